"""A GitHub that knows issues, labels and comments.

What it is asked, and what it answers, is checked against GitHub's own OpenAPI description: an
extract of the npm package @octokit/openapi.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator

from tests.resources.trackers.server import TOKEN, Told

REPO = "/repos/acme/rents"


def _plain(value: Any) -> Any:
    """Schemas of OpenAPI 3.0 as JSON Schema: ``nullable`` is a type of its own."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    plain = {k: _plain(v) for k, v in value.items() if k != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if value.get("nullable") is True else plain


def _loose(value: Any) -> Any:
    """Without what must be there: the answers hold what a client of ours reads, and no more."""
    if isinstance(value, list):
        return [_loose(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {k: _loose(v) for k, v in value.items() if k != "required" or isinstance(v, dict)}


DESCRIPTION = _plain(json.loads(Path(__file__).with_name("github.json").read_bytes()))
ANSWERS = _loose(DESCRIPTION)


def check(schema: Any, value: Any, document: Any = DESCRIPTION) -> None:
    whole = {"components": document["components"], "allOf": [schema]}
    errors = Draft4Validator(whole).iter_errors(value)
    problems = [f"{error.json_path}: {error.message[:200]}" for error in errors]
    assert not problems, problems


def _target(document: Any, value: Any) -> Any:
    while "$ref" in value:
        target = document
        for key in value["$ref"][2:].split("/"):
            target = target[key.replace("~1", "/").replace("~0", "~")]
        value = target
    return value


def operation(method: str, path: str) -> tuple[str, Any]:
    for template, item in DESCRIPTION["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in item:
            return template, item[method.lower()]
    raise AssertionError("no such operation")


@dataclass
class GitHub:
    """One repository."""

    #: Whether the token may set labels.
    writes: bool = True
    labels: set[str] = field(default_factory=set)
    issues: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    #: Called when an issue was made.
    made: Any = None
    lock: Any = field(default_factory=threading.RLock)

    @property
    def open(self) -> list[dict[str, Any]]:
        return [issue for issue in self.issues if issue["state"] == "open"]

    def issue(self, title: str, body: str, *labels: str, **more: Any) -> dict[str, Any]:
        with self.lock:
            number = len(self.issues) + 1
            url = f"https://github.example.org/acme/rents/issues/{number}"
            marks = [{"name": label} for label in labels]
            made = {"number": number, "title": title, "body": body, "state": "open"}
            self.issues.append({**made, "labels": marks, "html_url": url, **more})
            return self.issues[-1]

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Any
    ) -> tuple[int, Any]:
        if headers["authorization"] != f"Bearer {TOKEN}":
            raise Told(401, {"message": "Bad credentials"})
        template, described = operation(method, path)
        parameters = [_target(DESCRIPTION, p) for p in described["parameters"]]
        known = {p["name"]: p["schema"] for p in parameters if p["in"] == "query"}
        assert query.keys() <= known.keys(), query
        for name, value in query.items():
            typed = int(value) if known[name].get("type") == "integer" else value
            check(known[name], typed)
        if body is not None:
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            properties = _target(DESCRIPTION, schema)["properties"]
            assert body.keys() <= properties.keys(), body.keys()
            check(schema, body)
        if not path.startswith(REPO):
            raise Told(404, {"message": "Not Found"})
        assert headers["x-github-api-version"] == "2022-11-28"
        status, answer = self._do(method, path.removeprefix(REPO), query, body)
        loose = ANSWERS["paths"][template][method.lower()]["responses"][str(status)]
        content = _target(ANSWERS, loose)["content"]["application/json"]["schema"]
        check(content, answer, ANSWERS)
        return status, answer

    def _do(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        match method, path.strip("/").split("/"):
            case "GET", ["labels", name]:
                if name not in self.labels:
                    raise Told(404, {"message": "Not Found"})
                return 200, {"name": name}
            case "POST", ["labels"]:
                if not self.writes:
                    raise Told(403, {"message": "Resource not accessible by integration"})
                self.labels.add(body["name"])
                return 201, {"name": body["name"]}
            case "GET", ["issues"]:
                wanted = set(query["labels"].split(","))
                found = [i for i in self.open if wanted <= {m["name"] for m in i["labels"]}]
                return 200, _page(found, query)
            case "POST", ["issues"]:
                labels = body["labels"] if self.writes else []
                issue = self.issue(body["title"], body["body"], *labels)
                if self.made:
                    self.made(issue)
                return 201, issue
            case "PATCH", ["issues", number]:
                issue = self.issues[int(number) - 1]
                issue.update({k: v for k, v in body.items() if k in issue or k == "state_reason"})
                return 200, issue
            case "GET", ["issues", number, "comments"]:
                return 200, _page([c for c in self.comments if c["of"] == int(number)], query)
            case "POST", ["issues", number, "comments"]:
                identity = len(self.comments) + 1
                url = f"https://github.example.org/acme/rents/issues/{number}#{identity}"
                made = {"id": identity, "body": body["body"], "html_url": url, "of": int(number)}
                self.comments.append(made)
                return 201, made
            case "PATCH", ["issues", "comments", identity]:
                self.comments[int(identity) - 1].update(body)
                return 200, self.comments[int(identity) - 1]
        raise AssertionError("no such operation here")


def _page(found: list[Any], query: dict[str, str]) -> list[Any]:
    size, page = int(query["per_page"]), int(query["page"])
    return found[(page - 1) * size : page * size]
