"""Revision requests as work items of Azure DevOps, and comments on its pull requests: REST 7.1."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from resources.tracker import LABEL, OpenRequest, Request, Tracker, TrackerError, TrackerSettings
from resources.trackers.http import SETTLE_SECONDS, Api

VERSION = {"api-version": "7.1"}
PATCH = "application/json-patch+json"
#: A type that every process of Azure Boards has: Basic, Agile, Scrum and CMMI.
TYPE = "Task"
#: Categories of the states in which nobody works on an item any more.
ENDED = ("Completed", "Removed")
#: Items that one request can ask for.
BATCH = 200
#: Longest title there.
TITLE = 255
HINTS = {
    401: "the token is wrong or has expired",
    403: "the token needs the scope Work Items (read and write); for comments Code (read) and Pull "
    "Request Threads (read and write), or Contribute to pull requests where a pipeline asks",
    404: "no such organisation, project or pull request, or the token may not see it; see "
    "MLOPS_TRACKER",
    409: "somebody else changed it meanwhile",
    412: "somebody else changed it meanwhile",
}


class AzureDevOpsTracker(Tracker):
    """Tasks with the tag ``mlops-revision``."""

    def __init__(
        self, settings: TrackerSettings, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """The work items of the settings' project; ``sleep`` waits so many seconds."""
        self._sleep = sleep
        self._name = f"Azure DevOps {settings.owner}/{settings.project}"
        basic = base64.b64encode(f":{settings.token}".encode()).decode()
        headers = {"authorization": f"Basic {basic}", "accept": "application/json"}
        secrets = [settings.token, basic]
        self._api = Api(settings.url, self._name, headers, secrets, HINTS, sleep)
        self._project = f"/{settings.owner}/{quote(settings.project, safe='')}"
        self._wit = f"{self._project}/_apis/wit"
        self._root = f"{settings.url}{self._project}"
        self._web = f"{self._root}/_workitems/edit"

    @property
    def name(self) -> str:
        """See Tracker.name."""
        return self._name

    def open_requests(self) -> list[OpenRequest]:
        """See Tracker.open_requests."""
        ended = ", ".join(f"'{_quoted(state)}'" for state in self._ended())
        query = (
            "SELECT [System.Id] FROM WorkItems WHERE [System.TeamProject] = @project AND "
            f"[System.WorkItemType] = '{TYPE}' AND [System.Tags] CONTAINS '{LABEL}' AND "
            f"[System.State] NOT IN ({ended}) ORDER BY [System.Id]"
        )
        asked = self._read("wiql", {"query": query})
        ids = [int(item["id"]) for item in asked["workItems"]]
        items: list[Any] = []
        for start in range(0, len(ids), BATCH):
            wanted = {"ids": ids[start : start + BATCH], "fields": ["System.Description"]}
            items += self._read("workitemsbatch", wanted)["value"]
        found = [
            OpenRequest.of(
                item["fields"].get("System.Description"),
                str(item["id"]),
                f"{self._web}/{item['id']}",
                item["rev"],
            )
            for item in sorted(items, key=lambda item: int(item["id"]))
        ]
        return [request for request in found if request is not None]

    def _create(self, request: Request) -> OpenRequest:
        wanted = [*_content(request), _add("/fields/System.Tags", LABEL)]
        path = f"{self._wit}/workitems/${TYPE}"
        made = self._api.ask("POST", path, params=VERSION, json=wanted, content_type=PATCH)
        name = str(made["id"])
        found = OpenRequest.of(request.marker, name, f"{self._web}/{name}", made["rev"])
        assert found is not None, "a marker is read back"
        return found

    def _replace(self, found: OpenRequest, request: Request) -> None:
        self._patch(found, _content(request))

    def close(self, found: OpenRequest, comment: str, *, done: bool = True) -> None:
        """See Tracker.close."""
        del done  # in every process there is one state that is done
        state = next(name for name, category in self._states() if category == "Completed")
        changes = [_add("/fields/System.State", state), _add("/fields/System.History", comment)]
        self._patch(found, changes)

    def comment(self, number: int, text: str, marker: str) -> str:
        """See Tracker.comment; it is the first one of a thread of its own."""
        git = f"{self._project}/_apis/git"
        # Numbers of pull requests are the project's; their threads are the repository's.
        found = self._api.ask("GET", f"{git}/pullrequests/{number}", params=VERSION)
        repository = found["repository"]
        place = f"{git}/repositories/{repository['id']}/pullRequests/{number}/threads"
        web = f"{self._root}/_git/{quote(repository['name'], safe='')}/pullrequest/{number}"
        body = f"{text}\n\n`{marker}`"
        for thread in self._api.ask("GET", place, params=VERSION)["value"]:
            first = next(iter(thread.get("comments") or []), {})
            deleted = thread.get("isDeleted") or first.get("isDeleted")
            known = first.get("content") or ""
            if deleted or not known.rstrip().endswith(f"`{marker}`"):
                continue
            if known != body:
                path = f"{place}/{thread['id']}/comments/{first['id']}"
                self._api.ask("PATCH", path, params=VERSION, json={"content": body})
            return f"{web}?discussionId={thread['id']}"
        # 1 is a text, and 1 a thread that is open.
        wanted = {"parentCommentId": 0, "content": body, "commentType": 1}
        thread = {"comments": [wanted], "status": 1}
        made = self._api.ask("POST", place, params=VERSION, json=thread)
        return f"{web}?discussionId={made['id']}"

    def _settle(self) -> None:
        self._sleep(SETTLE_SECONDS)

    def _read(self, path: str, body: dict[str, Any]) -> Any:
        return self._api.ask("POST", f"{self._wit}/{path}", params=VERSION, json=body, again=True)

    def _patch(self, found: OpenRequest, changes: list[dict[str, Any]]) -> None:
        """Change an item that nobody has changed since it was read; both changes would be lost."""
        same = {"op": "test", "path": "/rev", "value": found.revision}
        path = f"{self._wit}/workitems/{found.name}"
        wanted = [same, *changes]
        # Once: after a change that was taken the test would fail.
        self._api.ask("PATCH", path, params=VERSION, json=wanted, content_type=PATCH, again=False)

    def _ended(self) -> list[str]:
        return [name for name, category in self._states() if category in ENDED]

    def _states(self) -> list[tuple[str, str]]:
        path = f"{self._wit}/workitemtypes/{TYPE}/states"
        found = self._api.ask("GET", path, params=VERSION)["value"]
        states = [(str(state["name"]), str(state["category"])) for state in found]
        if "Completed" not in [category for _, category in states]:
            raise TrackerError(f"{self.name}: the work item type {TYPE} has no state that is done")
        return states


def _content(request: Request) -> list[dict[str, Any]]:
    # Comments of HTML do not survive there, so the marker is a line that people see.
    return [
        _add("/fields/System.Title", request.title[:TITLE]),
        _add("/fields/System.Description", f"{request.body}\n\n`{request.marker}`"),
        _add("/multilineFieldsFormat/System.Description", "Markdown"),
    ]


def _add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _quoted(text: str) -> str:
    return text.replace("'", "''")
