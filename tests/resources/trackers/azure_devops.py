"""An Azure DevOps that knows Tasks of one project, and one pull request.

Microsoft publishes no description of it as a package, so the shapes stand here, written down from
its REST API reference 7.1: paths, api-version, media types, JSON patches, answers.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from tests.resources.trackers.server import TOKEN, Told

PROJECT = "/acme/Rents%20of%20flats"
WIQL = {
    "type": "object",
    "required": ["query"],
    "additionalProperties": False,
    "properties": {"query": {"type": "string"}},
}
BATCH = {
    "type": "object",
    "required": ["ids"],
    "additionalProperties": False,
    "properties": {
        "ids": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 200},
        "fields": {"type": "array", "items": {"type": "string"}},
    },
}
PATCH = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["op", "path"],
        "additionalProperties": False,
        "properties": {
            "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
            "path": {
                "pattern": r"^/(rev$|fields/[\w.]+$|multilineFieldsFormat/[\w.]+$|relations/)"
            },
            "value": {},
            "from": {"type": "string"},
        },
    },
}
COMMENT = {
    "type": "object",
    "required": ["content"],
    "additionalProperties": False,
    "properties": {
        "content": {"type": "string", "minLength": 1},
        "parentCommentId": {"type": "integer"},
        "commentType": {"enum": [1]},
    },
}
THREAD = {
    "type": "object",
    "required": ["comments", "status"],
    "additionalProperties": False,
    "properties": {
        "comments": {"type": "array", "items": COMMENT, "minItems": 1, "maxItems": 1},
        "status": {"enum": [1, 2, 3, 4, 5, 6]},
    },
}
#: State -> category, of the four processes that Azure Boards comes with.
PROCESSES = {
    "Basic": {"To Do": "Proposed", "Doing": "InProgress", "Done": "Completed"},
    "Agile": {
        "New": "Proposed",
        "Active": "InProgress",
        "Closed": "Completed",
        "Removed": "Removed",
    },
    "Scrum": {
        "To Do": "Proposed",
        "In Progress": "InProgress",
        "Done": "Completed",
        "Removed": "Removed",
    },
    "CMMI": {
        "Proposed": "Proposed",
        "Active": "InProgress",
        "Resolved": "Resolved",
        "Closed": "Completed",
    },
}


def check(schema: Any, value: Any) -> None:
    errors = Draft202012Validator(schema).iter_errors(value)
    problems = [f"{error.json_path}: {error.message[:200]}" for error in errors]
    assert not problems, problems


@dataclass
class AzureDevOps:
    """One project."""

    process: str = "Agile"
    items: list[dict[str, Any]] = field(default_factory=list)
    #: Of pull request 17, in the repository models.
    threads: list[dict[str, Any]] = field(default_factory=list)

    @property
    def states(self) -> dict[str, str]:
        return PROCESSES[self.process]

    @property
    def open(self) -> list[dict[str, Any]]:
        ended = ("Completed", "Removed")
        return [i for i in self.items if self.states[i["fields"]["System.State"]] not in ended]

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Any
    ) -> tuple[int, Any]:
        basic = base64.b64encode(f":{TOKEN}".encode()).decode()
        if headers["authorization"] != f"Basic {basic}":
            raise Told(203, "<html>sign in</html>")
        assert query == {"api-version": "7.1"}, query
        git = path.removeprefix(f"{PROJECT}/_apis/git/")
        if git != path:
            if body is not None:
                assert headers["content-type"] == "application/json", headers["content-type"]
            return 200, self._of_git(method, git, body)
        if not path.startswith(f"{PROJECT}/_apis/wit/"):
            raise Told(404, {"message": "TF200016: The following project does not exist"})
        patch = re.search(r"/workitems/", path) is not None
        if body is not None:
            kind = "application/json-patch+json" if patch else "application/json"
            assert headers["content-type"] == kind, headers["content-type"]
        return 200, self._do(method, path.removeprefix(f"{PROJECT}/_apis/wit/"), body)

    def _do(self, method: str, path: str, body: Any) -> Any:
        match method, path.split("/"):
            case "GET", ["workitemtypes", "Task", "states"]:
                found = [
                    {"name": n, "color": "b2b2b2", "category": c} for n, c in self.states.items()
                ]
                return {"count": len(found), "value": found}
            case "POST", ["wiql"]:
                check(WIQL, body)
                return {"queryType": "flat", "workItems": self._query(body["query"])}
            case "POST", ["workitemsbatch"]:
                check(BATCH, body)
                found = [self._shown(number, body["fields"]) for number in body["ids"]]
                return {"count": len(found), "value": found}
            case "POST", ["workitems", "$Task"]:
                check(PATCH, body)
                first = next(iter(self.states))
                fields = {"System.State": first, "System.WorkItemType": "Task"}
                item = {"id": len(self.items) + 100, "rev": 1, "fields": fields, "history": []}
                _change(item, body)
                self.items.append(item)
                return item
            case "PATCH", ["workitems", number]:
                check(PATCH, body)
                item = self._item(int(number))
                _change(item, body)
                assert item["fields"]["System.State"] in self.states
                item["rev"] += 1
                return item
        raise AssertionError("no such operation here")

    def _of_git(self, method: str, path: str, body: Any) -> Any:
        threads = ["repositories", "r-1", "pullRequests", "17", "threads"]
        match method, path.split("/"):
            case "GET", ["pullrequests", "17"]:
                repository = {"id": "r-1", "name": "rent models"}
                return {"pullRequestId": 17, "repository": repository, "status": "active"}
            case "GET", ["pullrequests", number]:
                raise Told(404, {"message": f"TF401180: pull request {number} was not found."})
            case "GET", found if found == threads:
                return {"count": len(self.threads), "value": self.threads}
            case "POST", found if found == threads:
                check(THREAD, body)
                comments = [{"id": 1, **body["comments"][0]}]
                self.threads.append(
                    {"id": len(self.threads) + 5, "status": "active", "comments": comments}
                )
                return self.threads[-1]
            case "PATCH", [*found, number, "comments", "1"] if found == threads:
                check(COMMENT, body)
                thread = next(one for one in self.threads if one["id"] == int(number))
                thread["comments"][0].update(body)
                return thread["comments"][0]
        raise AssertionError("no such operation here")

    def _query(self, query: str) -> list[dict[str, Any]]:
        pattern = (
            r"SELECT \[System.Id\] FROM WorkItems WHERE \[System.TeamProject\] = @project AND "
            r"\[System.WorkItemType\] = 'Task' AND \[System.Tags\] CONTAINS '([\w-]+)' AND "
            r"\[System.State\] NOT IN \(('[^']+'(?:, '[^']+')*)\) ORDER BY \[System.Id\]"
        )
        found = re.fullmatch(pattern, query)
        assert found, query
        ended = re.findall(r"'([^']+)'", found[2])
        return [
            {"id": item["id"], "url": f"https://dev.azure.com/_apis/wit/workItems/{item['id']}"}
            for item in self.items
            if found[1] in item["fields"].get("System.Tags", "").split("; ")
            and item["fields"]["System.State"] not in ended
        ]

    def _item(self, number: int) -> dict[str, Any]:
        return next(item for item in self.items if item["id"] == number)

    def _shown(self, number: int, fields: list[str]) -> dict[str, Any]:
        item = self._item(number)
        shown = {name: value for name, value in item["fields"].items() if name in fields}
        return {"id": number, "rev": item["rev"], "fields": shown}


def _change(item: dict[str, Any], patch: list[dict[str, Any]]) -> None:
    for step in patch:
        kind, _, name = step["path"].strip("/").partition("/")
        if step["op"] == "test":
            if item["rev"] != step["value"]:
                raise Told(412, {"message": "TF26071: This work item has been changed"})
        elif name == "System.History":
            item["history"].append(step["value"])
        elif kind == "fields":
            # Comments of HTML do not survive.
            item["fields"][name] = re.sub(r"<!--.*?-->", "", str(step["value"]), flags=re.S)
        else:
            assert (kind, step["value"]) == ("multilineFieldsFormat", "Markdown")
