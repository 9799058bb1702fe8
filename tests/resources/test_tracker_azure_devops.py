from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from resources.tracker import (
    LABEL,
    Request,
    TrackerError,
    TrackerSettings,
    UnclearError,
    build_tracker,
)
from resources.trackers.azure_devops import AzureDevOpsTracker
from tests.resources.trackers.azure_devops import PROCESSES, AzureDevOps
from tests.resources.trackers.server import TOKEN, Server, Told, Trouble, serve

REQUEST = Request("rent", "drift", 3, "Revise rent", "It *moved*.\n\n| a |\n|---|\n| 1 |")


@dataclass
class World:
    azure: AzureDevOps
    server: Server
    slept: list[float] = field(default_factory=list)

    @property
    def settings(self) -> TrackerSettings:
        return TrackerSettings("azure-devops", "acme", "Rents of flats", self.server.url, TOKEN)

    @property
    def tracker(self) -> AzureDevOpsTracker:
        return AzureDevOpsTracker(self.settings, self.slept.append)


@pytest.fixture
def world() -> Iterator[World]:
    azure = AzureDevOps()
    with serve(azure) as server:
        yield World(azure, server)


@pytest.mark.parametrize("process", PROCESSES)
def test_opened_once_updated_and_closed(world: World, process: str, tmp_path: Path) -> None:
    world.azure.process = process
    tracker = build_tracker(world.settings, tmp_path)
    made = tracker.open(REQUEST)
    assert (made.name, made.version, made.revision) == ("100", 3, 1)
    assert made.url == f"{world.server.url}/acme/Rents%20of%20flats/_workitems/edit/100"
    assert tracker.open(REQUEST) == made == tracker.find_open("rent", "drift")
    assert world.server.count("PATCH") == 0
    (item,) = world.azure.items
    assert item["fields"]["System.Tags"] == LABEL
    assert item["fields"]["System.Description"] == f"{REQUEST.body}\n\n`{REQUEST.marker}`"

    again = tracker.open(replace(REQUEST, body="It moved more."))
    assert (again.name, again.revision) == ("100", 2)
    assert tracker.open(replace(REQUEST, cause="slice")).name == "101"
    tracker.close(again, "Version 5 resolves it.")
    assert item["history"] == ["Version 5 resolves it."]
    assert [i["id"] for i in world.azure.open] == [101]
    assert tracker.open(REQUEST).name == "102"


def test_more_items_than_one_batch(world: World) -> None:
    for number in range(201):
        wanted = replace(REQUEST, model=f"m{number}")
        fields = {
            "System.State": "Active",
            "System.Tags": f"other; {LABEL}",
            "System.Description": wanted.marker,
        }
        world.azure.items.append({"id": number + 1, "rev": 1, "fields": fields})
    assert len(world.tracker.open_requests()) == 201


def test_what_somebody_changed_meanwhile_is_not_overwritten(world: World) -> None:
    made = world.tracker.open(REQUEST)
    world.azure.items[0]["rev"] += 1
    with pytest.raises(TrackerError, match=r"answers 412: TF26071.*somebody else changed it"):
        world.tracker.update(made, replace(REQUEST, body="newer"))
    assert world.tracker.open(replace(REQUEST, body="newer")).revision == 3


@pytest.mark.parametrize("told", [Told(500), None])
@pytest.mark.parametrize("done", [True, False])
def test_never_two_items_after_an_unclear_failure(
    world: World, told: Told | None, done: bool
) -> None:
    tracker = world.tracker
    create = tracker._create

    def broken(request: Request):  # only what comes after the search
        world.server.trouble = [Trouble(told, done, "POST")]
        tracker._create = create  # type: ignore[method-assign]
        return create(request)

    tracker._create = broken  # type: ignore[method-assign]
    assert tracker.open(REQUEST).name == "100"
    assert len(world.azure.items) == 1


@pytest.mark.parametrize("told", [Told(500), None])
def test_a_change_that_was_taken_is_not_made_twice(world: World, told: Told | None) -> None:
    made = world.tracker.open(REQUEST)
    world.server.trouble = [Trouble(told, True, "PATCH")]
    with pytest.raises(TrackerError):
        world.tracker.update(made, replace(REQUEST, body="newer"))
    assert world.tracker.open(replace(REQUEST, body="newer")).revision == 2
    assert world.server.count("PATCH") == 1


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (Told(203, "<html>sign in</html>"), "as for a token that it does not know"),
        (Told(401, {"message": "TF400813"}), "answers 401: TF400813; the token is wrong"),
        (Told(403, {"message": "TF401320"}), "answers 403: TF401320; the token needs the scope"),
        (Told(404, {"message": "TF200016"}), "answers 404: TF200016; no such organisation"),
        (Told(400, {"message": "TF401349"}), "answers 400: TF401349"),
        (Told(302, "", location="https://login.example.org"), "answers 302: it has moved"),
    ],
)
def test_what_is_refused_is_told_once(world: World, told: Told, message: str) -> None:
    world.server.trouble = [Trouble(told)]
    with pytest.raises(TrackerError, match=message) as caught:
        world.tracker.open(REQUEST)
    assert TOKEN not in str(caught.value)
    assert len(world.server.asked) == 1


def test_limits_are_waited_for(world: World) -> None:
    world.server.trouble = [
        Trouble(Told(429, retry_after="4")),
        Trouble(Told(503, retry_after="9")),
    ]
    assert world.tracker.open(REQUEST).name == "100"
    assert world.slept == [4.0, 9.0]


def test_one_comment_of_a_marker(world: World) -> None:
    others = [{"id": 1, "content": "a reviewer's", "commentType": "text"}]
    world.azure.threads += [
        {"id": 1, "status": "active", "comments": others},
        {"id": 2, "comments": [{"id": 1, "commentType": "system", "content": "voted 10"}]},
        {"id": 3, "isDeleted": True, "comments": [{"id": 1, "isDeleted": True}]},
    ]
    tracker = world.tracker
    first = tracker.comment(17, "worse", "mlops-experiment")
    assert first == (
        f"{world.server.url}/acme/Rents%20of%20flats/_git/rent%20models/pullrequest/17"
        "?discussionId=8"
    )
    made = world.azure.threads[-1]
    # A person answers, and resolves it: what comes next neither opens it nor touches the answer.
    made["comments"].append({"id": 2, "content": "why? `mlops-experiment`", "parentCommentId": 1})
    made["status"] = "fixed"
    assert tracker.comment(17, "better", "mlops-experiment") == first
    assert tracker.comment(17, "better", "mlops-experiment") == first
    assert (world.server.count("POST"), world.server.count("PATCH")) == (1, 1)
    assert [c["content"] for c in made["comments"]] == [
        "better\n\n`mlops-experiment`",
        "why? `mlops-experiment`",
    ]
    assert made["status"] == "fixed"
    assert others[0]["content"] == "a reviewer's"


def test_a_comment_that_people_deleted_is_made_again(world: World) -> None:
    world.tracker.comment(17, "worse", "mlops-experiment")
    world.azure.threads[0]["isDeleted"] = True
    assert world.tracker.comment(17, "worse", "mlops-experiment").endswith("?discussionId=6")


@pytest.mark.parametrize("told", [Told(500), None])
def test_a_comment_that_nobody_knows_of_is_not_made_twice(world: World, told: Told | None) -> None:
    world.server.trouble = [Trouble(told, True, "POST")]
    with pytest.raises(UnclearError):
        world.tracker.comment(17, "worse", "mlops-experiment")
    world.tracker.comment(17, "worse", "mlops-experiment")
    assert len(world.azure.threads) == 1


def test_a_pull_request_that_is_not_there(world: World) -> None:
    with pytest.raises(TrackerError, match=r"answers 404: TF401180.*no such .* pull request"):
        world.tracker.comment(18, "worse", "mlops-experiment")
    assert not world.azure.threads
