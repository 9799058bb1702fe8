"""Requests of recorded traffic, sent again to the test server, and the answers side by side."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.azure.server import GROUP, WORKSPACE, AzureServer

HOST = "https://management.azure.com"
#: Headers of which an answer has the same as the recorded one.
HEADERS = {
    "azure-asyncoperation", "content-type", "location", "x-ms-async-operation-timeout",
    "x-ms-failure-cause",
}  # fmt: skip
#: Values that differ from one run to the next; that they are there, and their type, is compared.
VOLATILE = {
    "accountname", "applicationinsights", "azureasyncoperationuri", "azureml.onlineendpointid",
    "containername", "containerregistry", "correlation", "createdat", "createdby",
    "createdbytype", "createdon", "creationtime", "discoveryurl", "endpoint", "endtime",
    "environment", "fqdn", "id", "key", "keyvault", "lastmodifiedat", "lastmodifiedby",
    "lastmodifiedbytype", "location", "mlflowtrackinguri", "modifiedon", "operation",
    "principalid", "request", "resourceid", "sdktelemetryappinsightskey", "starttime",
    "storageaccount", "swaggeruri", "scoringuri", "tenantid", "time", "workspaceid", "finishtime",
    "allocationstatetransitiontime", "correlationid", "duration", "templatehash", "timestamp",
    "trackingid", "operationid", "enabledataisolation", "notebookinfo",
    "firsttimestamp", "lasttimestamp", "computelocation",
}  # fmt: skip
_PENDING = {"InProgress", "Updating", "Running", "Pending", "Creating"}


@dataclass(frozen=True)
class Entry:
    """One recorded exchange with Resource Manager."""

    method: str
    #: Path and query.
    target: str
    request: Any
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def operation(self) -> str | None:
        """The id of the long-running operation that is asked about."""
        found = re.search(
            r"/(?:\w+OperationsStatus|operationStatuses|locations/\w+/operations)/([^/?]+)",
            self.target,
        )
        return found[1] if found else None

    @property
    def pending(self) -> bool:
        """Whether it is still going on."""
        return isinstance(self.body, dict) and self.body.get("status") in _PENDING


def recordings() -> Path | None:
    """The folder of recordings, from ``AZURE_RECORDINGS_DIR``."""
    found = os.environ.get("AZURE_RECORDINGS_DIR")
    return Path(found) if found else None


def read(path: Path) -> list[Entry]:
    """What a recording has of Resource Manager; of many questions about an operation, two."""
    seen: set[tuple[str, bool]] = set()
    kept: list[Entry] = []
    for entry in _entries(path):
        key = (entry.operation or "", entry.pending)
        if entry.operation and key in seen:
            continue
        seen.add(key)
        kept.append(entry)
    return kept


class Replay:
    """Sends what was recorded, with the names of the server's own resources."""

    def __init__(self, server: AzureServer) -> None:
        """Ask this server."""
        self._server = server
        context = ssl.create_default_context(cafile=str(server.authority.bundle))
        self._client = httpx.Client(proxy=server.proxy.url, verify=context, trust_env=False)
        token = server.login.token(HOST)
        self._client.headers["Authorization"] = f"Bearer {token}"
        #: Our operations, by the recorded ones.
        self._operations: dict[str, str] = {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, method: str, target: str, body: Any = None) -> httpx.Response:
        """Send a request."""
        text = None if body is None else self._named(json.dumps(body))
        headers = {"Content-Type": "application/json"} if text else {}
        address = f"{HOST}{self._named(target)}"
        return self._client.request(method, address, content=text, headers=headers)

    def differences(self, entry: Entry) -> list[str]:
        """Send a recorded request; where the answer differs from the recorded one."""
        answer = self._answer(entry)
        found: list[str] = []
        if answer.status_code != entry.status:
            return [f"status {answer.status_code} instead of {entry.status}: {answer.text[:300]}"]
        recorded = {n.lower(): v for n, v in entry.headers.items() if n.lower() in HEADERS}
        for name, value in recorded.items():
            own = answer.headers.get(name)
            if own is None:
                found.append(f"header {name} is missing")
            elif name in ("azure-asyncoperation", "location"):
                found += _addresses(name, value, own)
                if (before := _last(value)) and (now := _last(own)):
                    self._operations[before] = now
            elif own.partition(";")[0] != value.partition(";")[0]:
                found.append(f"header {name} is {own} instead of {value}")
        body = self._recorded_names(entry, answer.text) if answer.content else None
        return found + list(compare(entry.body, body))

    def _answer(self, entry: Entry) -> httpx.Response:
        target = entry.target
        if entry.operation:
            target = target.replace(entry.operation, self._operations[entry.operation])
        deadline = time.monotonic() + 60
        while True:
            answer = self.send(entry.method, target, entry.request)
            waits = entry.operation and not entry.pending
            if not waits or answer.json()["status"] not in _PENDING:
                return answer
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.02)

    def _recorded_names(self, entry: Entry, text: str) -> Any:
        """Our answer, with the names that the recording has."""
        for before, now in self._operations.items():
            text = text.replace(now, before)
        scope = re.match(r"/subscriptions/([^/]+)(?:/resource[gG]roups/([^/]+))?", entry.target)
        if scope:
            text = text.replace(self._server.subscription, scope[1])
            text = text.replace(GROUP, scope[2] or GROUP)
        return json.loads(text.replace(WORKSPACE, "00000"))

    def _named(self, text: str) -> str:
        text = re.sub(
            r"/subscriptions/[^/\"]+", f"/subscriptions/{self._server.subscription}", text
        )
        text = re.sub(r"/(resource[gG]roups)/[^/\"?]+", rf"/\1/{GROUP}", text)
        text = text.replace("/locations/westus/", f"/locations/{self._server.cloud.location}/")
        return text.replace("/workspaces/00000", f"/workspaces/{WORKSPACE}")


def compare(recorded: Any, own: Any, path: str = "$", name: str = "") -> Iterator[str]:
    """Where two bodies differ: in what is there, in its type, in values that do not vary."""
    if isinstance(recorded, dict) and isinstance(own, dict):
        for key in sorted(recorded.keys() - own.keys()):
            yield f"{path}.{key} is missing"
        for key in sorted(own.keys() - recorded.keys()):
            yield f"{path}.{key} is not recorded"
        for key in sorted(recorded.keys() & own.keys()):
            yield from compare(recorded[key], own[key], f"{path}.{key}", key)
    elif isinstance(recorded, list) and isinstance(own, list):
        named = all(isinstance(item, dict) and "name" in item for item in [*recorded, *own])
        if path.endswith(".value") and named:
            # A list of what is there: what only one of the two has says nothing.
            known = {item["name"]: item for item in recorded}
            pairs = [(known[item["name"]], item) for item in own if item["name"] in known]
            if recorded and not pairs:
                yield f"{path} has nothing of {sorted(known)}"
        elif len(recorded) != len(own):
            yield f"{path} has {len(own)} entries instead of {len(recorded)}"
            return
        else:
            pairs = list(zip(recorded, own, strict=True))
        for index, (item, other) in enumerate(pairs):
            yield from compare(item, other, f"{path}[{index}]")
    elif type(recorded) is not type(own):
        yield f"{path} is {json.dumps(own)[:80]} instead of {json.dumps(recorded)[:80]}"
    elif recorded != own and name.lower() not in VOLATILE and ".info" not in path:
        yield f"{path} is {json.dumps(own)[:200]} instead of {json.dumps(recorded)[:200]}"


def _addresses(name: str, recorded: str, own: str) -> Iterator[str]:
    """Addresses have the same form: the same words, whatever the names between them."""
    shapes = []
    for address in (recorded, own):
        parts = urlsplit(address)
        words = [part for part in parts.path.split("/") if part.isalpha() or "." in part]
        queries = sorted(part.partition("=")[0] for part in parts.query.split("&"))
        regions = {"westus", "eastus", "eastus2", "eastus2euap", "rgname"}
        shapes.append((parts.netloc, [word for word in words if word not in regions], queries))
    if shapes[0] != shapes[1]:
        yield f"header {name} is {own} instead of {recorded}"


def _last(address: str) -> str:
    return urlsplit(address).path.rpartition("/")[2]


def _entries(path: Path) -> Iterator[Entry]:
    if path.suffix == ".json":
        for found in json.loads(path.read_text())["Entries"]:
            target = found["RequestUri"].removeprefix(HOST)
            if target != found["RequestUri"]:
                body = None if found["ResponseBody"] == "null" else found["ResponseBody"]
                yield Entry(
                    found["RequestMethod"], target, found["RequestBody"], found["StatusCode"],
                    found["ResponseHeaders"], body or None,
                )  # fmt: skip
        return
    for found in yaml.safe_load(path.read_text())["interactions"]:
        request, response = found["request"], found["response"]
        body = response["body"].get("string") or None
        asked = request.get("body")
        yield Entry(
            request["method"],
            request["uri"].removeprefix(HOST),
            json.loads(asked) if isinstance(asked, str) and asked else asked,
            response["status"]["code"],
            {name: values[0] for name, values in response["headers"].items()},
            json.loads(body) if body else None,
        )
