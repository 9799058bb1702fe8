"""Revision requests as issues of GitHub, by its REST API of 2022-11-28."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from resources.tracker import LABEL, OpenRequest, Request, Tracker, TrackerError, TrackerSettings
from resources.trackers.http import SETTLE_SECONDS, Api

#: Issues and comments of one answer, the most that there can be.
PAGE = 100
HINTS = {
    401: "the token is wrong or has expired",
    403: "the token needs the permission to write issues",
    404: "no such repository, or the token may not see it; see MLOPS_TRACKER",
    410: "issues are switched off in that repository",
}


class GitHubTracker(Tracker):
    """Issues with the label ``mlops-revision``.

    Only who may write to the repository can set a label, so nobody else's issue is taken for one.
    """

    def __init__(
        self, settings: TrackerSettings, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """The issues of the settings' repository; ``sleep`` waits so many seconds."""
        self._sleep = sleep
        self._name = f"GitHub {settings.owner}/{settings.project}"
        headers = {
            "authorization": f"Bearer {settings.token}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
            "user-agent": "mlops-assets",
        }
        self._api = Api(settings.url, self._name, headers, [settings.token], HINTS, sleep)
        self._path = f"/repos/{settings.owner}/{settings.project}"

    @property
    def name(self) -> str:
        """See Tracker.name."""
        return self._name

    def open_requests(self) -> list[OpenRequest]:
        """See Tracker.open_requests."""
        asked = {"state": "open", "labels": LABEL, "sort": "created", "direction": "asc"}
        issues = self._all(f"{self._path}/issues", asked)
        found = [
            OpenRequest.of(issue.get("body"), f"#{issue['number']}", issue["html_url"])
            for issue in issues
            if "pull_request" not in issue  # GitHub counts those as issues too
        ]
        return [request for request in found if request is not None]

    def _create(self, request: Request) -> OpenRequest:
        self._need_label()
        wanted = {"title": request.title, "body": _body(request), "labels": [LABEL]}
        made = self._api.ask("POST", f"{self._path}/issues", json=wanted)
        if LABEL not in [label.get("name") for label in made["labels"]]:
            # Dropped without a word for who may not set it; it would never be found again.
            self._state(made["number"], "not_planned")
            raise TrackerError(
                f"{self.name}: the token may open issues and not label them, so that #"
                f"{made['number']} was closed at once; give it the permission to write"
            )
        found = OpenRequest.of(request.marker, f"#{made['number']}", made["html_url"])
        assert found is not None, "a marker is read back"
        return found

    def _replace(self, found: OpenRequest, request: Request) -> None:
        wanted = {"title": request.title, "body": _body(request)}
        self._api.ask("PATCH", f"{self._path}/issues/{found.name[1:]}", json=wanted)

    def close(self, found: OpenRequest, comment: str, *, done: bool = True) -> None:
        """See Tracker.close."""
        number = int(found.name[1:])
        # Once more after a failure in between would comment twice.
        self.comment(number, comment, f"mlops-revision closing={found.content}")
        self._state(number, "completed" if done else "not_planned")

    def comment(self, number: int, text: str, marker: str) -> str:
        """See Tracker.comment; issues have comments likewise."""
        place = f"{self._path}/issues/{number}/comments"
        body = f"{text}\n\n<!-- {marker} -->"
        for known in self._all(place, {}):
            if (known.get("body") or "").rstrip().endswith(f"<!-- {marker} -->"):
                if known["body"] != body:
                    path = f"{self._path}/issues/comments/{known['id']}"
                    self._api.ask("PATCH", path, json={"body": body})
                return known["html_url"]
        return self._api.ask("POST", place, json={"body": body})["html_url"]

    def _settle(self) -> None:
        self._sleep(SETTLE_SECONDS)

    def _state(self, number: int, reason: str) -> None:
        wanted = {"state": "closed", "state_reason": reason}
        self._api.ask("PATCH", f"{self._path}/issues/{number}", json=wanted)

    def _need_label(self) -> None:
        if self._api.ask("GET", f"{self._path}/labels/{LABEL}", missing=True) is None:
            wanted = {
                "name": LABEL,
                "color": "d93f0b",
                "description": "A model in production asks for a revision.",
            }
            self._api.ask("POST", f"{self._path}/labels", json=wanted)

    def _all(self, path: str, asked: dict[str, str]) -> list[Any]:
        found: list[Any] = []
        page = 1
        while True:
            params = {**asked, "per_page": PAGE, "page": page}
            some = self._api.ask("GET", path, params=params)
            found += some
            if len(some) < PAGE:
                return found
            page += 1


def _body(request: Request) -> str:
    return f"{request.body}\n\n<!-- {request.marker} -->"
