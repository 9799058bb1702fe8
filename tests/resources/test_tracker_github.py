from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from resources.tracker import (
    LABEL,
    OpenRequest,
    Request,
    TrackerError,
    TrackerSettings,
    UnclearError,
    build_tracker,
)
from resources.trackers.github import GitHubTracker
from tests.resources.trackers.github import GitHub
from tests.resources.trackers.server import TOKEN, Server, Told, Trouble, serve

REQUEST = Request("rent", "drift", 3, "Revise rent", "It *moved*.\n\n| a |\n|---|\n| 1 |")


@dataclass
class World:
    github: GitHub
    server: Server
    slept: list[float] = field(default_factory=list)

    @property
    def settings(self) -> TrackerSettings:
        return TrackerSettings("github", "acme", "rents", self.server.url, TOKEN)

    @property
    def tracker(self) -> GitHubTracker:
        return GitHubTracker(self.settings, self.slept.append)


@pytest.fixture
def world() -> Iterator[World]:
    github = GitHub()
    with serve(github) as server:
        yield World(github, server)


def test_opened_once_updated_and_closed(world: World, tmp_path: Path) -> None:
    tracker = build_tracker(world.settings, tmp_path)
    assert tracker.find_open("rent", "drift") is None
    made = tracker.open(REQUEST)
    assert (made.name, made.model, made.cause, made.version) == ("#1", "rent", "drift", 3)
    assert made.url == "https://github.example.org/acme/rents/issues/1"
    assert tracker.open(REQUEST) == made == tracker.find_open("rent", "drift")
    assert world.server.count("PATCH") == 0
    assert not tracker.update(made, REQUEST)
    assert world.server.count("PATCH") == 0

    newer = replace(REQUEST, body="It moved more.", version=4)
    again = tracker.open(newer)
    assert (again.name, again.version) == ("#1", 4)
    assert world.github.issues[0]["body"].startswith("It moved more.\n\n<!-- mlops-revision ")
    other = tracker.open(replace(REQUEST, cause="performance"))
    assert [r.name for r in tracker.open_requests()] == ["#1", "#2"] == ["#1", other.name]

    tracker.close(again, "Version 5 resolves it.")
    tracker.close(again, "Version 5 resolves it.")
    assert [c["body"].splitlines()[0] for c in world.github.comments] == ["Version 5 resolves it."]
    assert world.github.issues[0]["state_reason"] == "completed"
    assert tracker.find_open("rent", "drift") is None
    assert tracker.open(REQUEST).name == "#3"


def test_an_issue_of_somebody_else_is_not_taken(world: World) -> None:
    body = f"hello <!-- {REQUEST.marker} -->"
    world.github.issue("a stranger's", body)
    world.github.issue("no marker", "hello", LABEL)
    world.github.issue("a pull request", body, LABEL, pull_request={"url": "https://e.org/1"})
    assert world.tracker.open_requests() == []
    assert world.tracker.open(REQUEST).name == "#4"


def test_more_issues_than_one_page(world: World) -> None:
    for number in range(205):
        marker = replace(REQUEST, model=f"m{number}").marker
        world.github.issue("one", f"<!-- {marker} -->", LABEL)
    assert len(world.tracker.open_requests()) == 205
    assert world.tracker.find_open("m204", "drift") is not None
    assert world.tracker.find_open("m205", "drift") is None


@pytest.mark.parametrize("told", [Told(502, "bad gateway"), Told(500), None])
@pytest.mark.parametrize("done", [True, False])
def test_never_two_issues_after_an_unclear_failure(
    world: World, told: Told | None, done: bool
) -> None:
    world.github.labels.add(LABEL)
    world.server.trouble = [Trouble(told, done, "POST")]
    assert world.tracker.open(REQUEST).name == "#1"
    assert len(world.github.issues) == 1
    assert world.server.count("POST") == (1 if done else 2)


def test_unclear_twice_is_told_and_the_next_time_finds_it(world: World) -> None:
    world.github.labels.add(LABEL)
    world.server.trouble = [Trouble(None, False, "POST"), Trouble(Told(503), True, "POST")]
    with pytest.raises(UnclearError, match="GitHub acme/rents: answers 503"):
        world.tracker.open(REQUEST)
    assert world.tracker.open(REQUEST).name == "#1"
    assert len(world.github.issues) == 1


def test_two_at_the_same_time_leave_one(world: World) -> None:
    def quicker(_: object) -> None:
        world.github.made = None
        first = world.github.issues.pop()
        world.github.issue("theirs", f"<!-- {REQUEST.marker} -->", LABEL)
        world.github.issues.append(first | {"number": 2})
        world.github.issues[1]["html_url"] = "https://github.example.org/acme/rents/issues/2"
        _["number"] = 2  # type: ignore[index]

    world.github.made = quicker
    assert world.tracker.open(REQUEST).name == "#1"
    assert [i["number"] for i in world.github.open] == [1]
    assert world.github.issues[1]["state_reason"] == "not_planned"
    assert "The same is asked for in #1." in world.github.comments[0]["body"]


@pytest.mark.parametrize(
    ("told", "waits"),
    [
        (Told(429, retry_after="7"), [7.0]),
        (Told(403, retry_after="5"), [5.0]),
        (Told(403, {"message": "You have exceeded a secondary rate limit"}), [60.0]),
        (Told(503, retry_after="2"), [2.0]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_limits_are_waited_for(world: World, told: Told, waits: list[float], method: str) -> None:
    world.github.labels.add(LABEL)
    world.server.trouble = [Trouble(told, False, method)]
    assert world.tracker.open(REQUEST).name == "#1"
    assert world.slept == waits
    assert len(world.github.issues) == 1


def test_a_primary_limit_ends_at_its_time(world: World) -> None:
    reset = str(int(time.time()) + 40)
    told = Told(403, x_ratelimit_remaining="0", x_ratelimit_reset=reset)
    world.server.trouble = [Trouble(told)]
    assert world.tracker.open_requests() == []
    assert 30 < world.slept[0] <= 40


def test_a_long_limit_is_told_and_not_waited_for(world: World) -> None:
    world.server.trouble = [Trouble(Told(429, retry_after="3600"))]
    with pytest.raises(TrackerError, match="answers 429: too many requests; try again in 3600 s"):
        world.tracker.open(REQUEST)
    assert world.slept == []
    assert world.github.issues == []


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (Told(401, {"message": "Bad credentials"}), "answers 401: Bad credentials; the token is"),
        (Told(403, {"message": "not accessible"}), "answers 403: not accessible; the token needs"),
        (Told(404, {"message": "Not Found"}), "answers 404: Not Found; no such repository"),
        (Told(409, {"message": "Conflict"}), "answers 409: Conflict"),
        (Told(410, {"message": "Issues are disabled"}), "answers 410: .*switched off"),
        (
            Told(422, {"message": "Validation Failed", "errors": [{"code": "too_long"}]}),
            "answers 422: Validation Failed; too_long",
        ),
        (Told(400, "<html>no json</html>"), "answers 400: Bad Request"),
        (Told(301, location="https://github.example.org/repositories/7"), "has moved to https"),
        (Told(200, "<html>sign in</html>"), "with a page and not with JSON"),
        (Told(401, {"message": f"token {TOKEN} is bad"}), r"token \*\*\* is bad"),
    ],
)
def test_what_is_refused_is_told_once(world: World, told: Told, message: str) -> None:
    world.server.trouble = [Trouble(told)]
    with pytest.raises(TrackerError, match=message) as caught:
        world.tracker.open(REQUEST)
    assert str(caught.value).startswith("GitHub acme/rents: ")
    assert not isinstance(caught.value, UnclearError)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert (len(world.server.asked), world.slept, world.github.issues) == (1, [], [])


def test_reads_are_repeated_while_the_server_breaks(world: World) -> None:
    world.server.trouble = [Trouble(Told(500)), Trouble(None), Trouble(Told(502))]
    assert world.tracker.open_requests() == []
    assert len(world.slept) == 3
    world.server.trouble = [Trouble(Told(500))] * 4
    with pytest.raises(UnclearError, match="answers 500"):
        world.tracker.open_requests()


def test_nobody_answers(world: World) -> None:
    settings = replace(world.settings, url="http://127.0.0.1:9")
    with pytest.raises(TrackerError, match="cannot connect") as caught:
        GitHubTracker(settings, world.slept.append).open(REQUEST)
    assert not isinstance(caught.value, UnclearError)
    assert len(world.slept) == 3


def test_a_slow_answer_is_unclear(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.trackers.http.TIMEOUT_SECONDS", 0.2)
    world.github.labels.add(LABEL)
    world.github.made = lambda _: time.sleep(0.6)
    assert world.tracker.open(REQUEST).name == "#1"
    assert len(world.github.issues) == 1


def test_a_token_that_may_not_label(world: World) -> None:
    world.github.writes = False
    with pytest.raises(TrackerError, match="answers 403: Resource not accessible"):
        world.tracker.open(REQUEST)
    assert world.github.issues == []  # said before anything was made
    world.github.labels.add(LABEL)
    with pytest.raises(TrackerError, match=r"not label them, so that #1 was closed at once"):
        world.tracker.open(REQUEST)
    assert world.github.open == []


def test_one_comment_of_a_marker(world: World) -> None:
    world.github.issue("a pull request", "", pull_request={"url": "https://e.org/1"})
    tracker = world.tracker
    first = tracker.comment(1, "worse", "mlops-experiment")
    assert tracker.comment(1, "better", "mlops-experiment") == first
    assert tracker.comment(1, "better", "mlops-experiment") == first
    assert [c["body"] for c in world.github.comments] == ["better\n\n<!-- mlops-experiment -->"]
    assert (world.server.count("POST"), world.server.count("PATCH")) == (1, 1)


def test_the_token_is_in_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        world.tracker.open(REQUEST)
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(world.settings)


def test_a_body_without_a_marker_is_no_request() -> None:
    assert OpenRequest.of(None, "#1", "u") is None
    assert OpenRequest.of("mlops-revision model=rent cause=drift", "#1", "u") is None
