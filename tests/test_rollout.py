"""The algorithm against a target in memory; tests/resources has it against real servers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from mlops_assets import trial
from mlops_assets.rollout import RolloutError, Sample, roll_out
from resources.endpoints.base import (
    Answer,
    Counts,
    Deployment,
    EndpointError,
    Observation,
    Request,
    VersionRef,
    split_traffic,
)
from resources.traffic import Limits, Step, Traffic

SAMPLE = Sample.model_validate(
    {"name": "one row", "request": {"data": [1]}, "expect": {"predictions": 1, "maximum": 9}}
)


def _version(number: int) -> VersionRef:
    return VersionRef("tiny", number, f"digest {number}", Path(f"v{number}"))


def _steps(*percents: int) -> Traffic:
    return Traffic(steps=[Step(percent=percent) for percent in percents])


def _counts(requests: int, *, failed: bool, refused: int = 0) -> Counts:
    if failed:
        return Counts(failed=requests, seconds={1.0: requests})
    answered = requests - refused
    return Counts(answered, refused, seconds={1.0: requests}, predictions={"yes": answered})


class Memory:
    """An endpoint whose version n answers n; any verb can be made to fail at its n-th call."""

    def __init__(self, *live: tuple[int, int]) -> None:
        self.deployments = {f"v{n}": Deployment(f"v{n}", n, f"digest {n}", t) for n, t in live}
        self.calls: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.url = "memory"
        self.sticky_header: str | None = None
        self.mirrored: str | None = None
        #: Name -> requests so far, and copies.
        self.counts: dict[str, tuple[int, int]] = {}
        #: Names of those that answer no request of a user.
        self.failing: set[str] = set()
        #: One of so many requests of users is wrong, and refused by whichever version.
        self.refused_of = 1_000_000

    def _call(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failures:
            raise self.failures.pop(call)

    def live(self) -> dict[str, Deployment]:
        return dict(self.deployments)

    def stage(self, version: VersionRef, mirror: int = 0) -> Deployment:
        self._call(f"stage {version.version}" + (f" mirror {mirror}" if mirror else ""))
        self.mirrored = f"v{version.version}" if mirror else None
        new = Deployment(f"v{version.version}", version.version, version.digest, 0)
        return self.deployments.setdefault(new.name, new)

    def score(self, deployment: str | None, request: Request) -> Answer:
        self._call(f"score {deployment}")
        assert json.loads(request.body) == {"data": [1]}
        if deployment is None:
            deployment = max(self.deployments.values(), key=lambda d: d.traffic).name
        answer = {"predictions": [self.deployments[deployment].version]}
        return Answer(200, json.dumps(answer).encode(), {}, 0.001)

    def promote(self, deployment: str, percent: int, sticky_header: str | None = None) -> None:
        self._call(f"promote {deployment} {percent}")
        self.sticky_header, self.mirrored = sticky_header, None
        before = {name: d.traffic for name, d in self.deployments.items()}
        for name, share in split_traffic(before, deployment, percent).items():
            self.deployments[name] = replace(self.deployments[name], traffic=share)

    def discard(self, deployment: str) -> None:
        self._call(f"discard {deployment}")
        del self.deployments[deployment]

    def observe(self) -> dict[str, Observation]:
        """As if users had asked a hundred times since the last look."""
        self._call("observe")
        for name, deployment in self.deployments.items():
            served, mirrored = self.counts.get(name, (0, 0))
            self.counts[name] = (
                served + 100 * (deployment.traffic > 0),
                mirrored + 100 * (name == self.mirrored),
            )
        return {
            name: Observation(
                _counts(served, failed=name in self.failing, refused=served // self.refused_of),
                _counts(mirrored, failed=name in self.failing),
            )
            for name, (served, mirrored) in self.counts.items()
            if served or mirrored
        }

    @property
    def shares(self) -> dict[int, int]:
        return {d.version: d.traffic for d in self.deployments.values()}


def test_the_first_deployment() -> None:
    target = Memory()
    lines: list[str] = []
    result = roll_out(target, _version(1), [SAMPLE], log=lines.append)
    assert (result.outcome, result.version, result.previous) == ("deployed", 1, None)
    assert result.started <= result.ended
    (sample,) = result.samples
    assert (sample.name, sample.status, sample.problems) == ("one row", 200, ())
    assert target.shares == {1: 100}
    assert target.calls == ["stage 1", "score v1", "promote v1 100", "score None"]
    assert lines[0] == "v1 is loaded; asking it 1 samples"


def test_the_next_one_in_steps() -> None:
    target = Memory((1, 100))
    result = roll_out(target, _version(2), [SAMPLE], traffic=_steps(10, 50))
    assert (result.outcome, result.previous) == ("deployed", 1)
    assert target.calls == [
        "stage 2", "score v2", "promote v2 10", "score v2", "promote v2 50", "score v2",
        "promote v2 100", "score None", "discard v1",
    ]  # fmt: skip
    assert target.shares == {2: 100}


def test_the_same_version_again_changes_nothing() -> None:
    target = Memory((2, 100))
    result = roll_out(target, _version(2), [SAMPLE])
    assert (result.outcome, result.previous) == ("unchanged", 2)
    assert target.calls == ["score v2"]


def test_the_same_version_again_clears_what_was_left() -> None:
    target = Memory((1, 0), (2, 100))
    assert roll_out(target, _version(2), [SAMPLE]).outcome == "unchanged"
    assert target.shares == {2: 100}


def test_the_same_version_that_now_fails_is_left_serving() -> None:
    target = Memory((10, 100))
    with pytest.raises(RolloutError, match="version 10 serves already, and is left serving, but"):
        roll_out(target, _version(10), [SAMPLE])
    assert target.shares == {10: 100}


def test_a_failing_sample_names_itself_the_answer_and_the_expectation() -> None:
    target = Memory((1, 100))
    with pytest.raises(RolloutError) as caught:
        roll_out(target, _version(10), [SAMPLE])
    assert str(caught.value) == (
        "version 10 was discarded, version 1 serves as before: sample 'one row': expected at most "
        '9, found 10; the answer was 200 {"predictions": [10]}'
    )
    assert target.shares == {1: 100}
    assert "promote v10 100" not in target.calls


def test_a_failing_first_deployment_leaves_nothing() -> None:
    target = Memory()
    with pytest.raises(RolloutError, match="version 10 was discarded, nothing serves: sample"):
        roll_out(target, _version(10), [SAMPLE])
    assert target.shares == {}


@pytest.mark.parametrize(
    "call",
    ["stage 2", "score v2", "promote v2 50", "promote v2 100", "score None"],
)
@pytest.mark.parametrize(
    "error", [EndpointError("broken"), OSError("full"), KeyboardInterrupt("stop")]
)
def test_a_failure_anywhere_restores_the_old_version(call: str, error: BaseException) -> None:
    target = Memory((1, 100))
    target.failures[call] = error
    expected = RolloutError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected, match=str(error)):
        roll_out(target, _version(2), [SAMPLE], traffic=_steps(50))
    assert target.shares == {1: 100}


def test_a_failure_of_the_cleaning_up_too_is_told_and_mended_by_the_next() -> None:
    target = Memory((1, 100))
    target.failures["score None"] = EndpointError("first")
    target.failures["promote v1 100"] = EndpointError("second")
    with pytest.raises(RolloutError, match=r"first \(and cleaning up failed, .*: second\)"):
        roll_out(target, _version(2), [SAMPLE])
    assert target.shares == {1: 0, 2: 100}
    assert roll_out(target, _version(3), [SAMPLE]).outcome == "deployed"
    assert target.shares == {3: 100}


def test_an_old_version_that_cannot_be_discarded_is_left_to_the_next() -> None:
    target = Memory((1, 100))
    target.failures["discard v1"] = EndpointError("busy")
    lines: list[str] = []
    assert roll_out(target, _version(2), [SAMPLE], log=lines.append).outcome == "deployed"
    assert "left to the next rollout: busy" in lines[-1]
    assert target.shares == {1: 0, 2: 100}
    assert roll_out(target, _version(3), [SAMPLE]).previous == 2
    assert target.shares == {3: 100}


@pytest.mark.parametrize(
    ("left", "previous"),
    [
        ([(1, 100), (2, 0)], 1),  # killed after stage
        ([(1, 90), (2, 10)], 1),  # killed between steps
        ([(1, 10), (2, 90)], 1),
        ([(1, 100), (5, 0)], 1),  # another version's rollout was killed
        ([(1, 30), (5, 70)], 5),
        ([(5, 0)], None),  # the first one was killed
        ([(2, 0)], None),
    ],
)
@pytest.mark.parametrize("number", [2, 10])
def test_what_a_killed_rollout_left(
    left: list[tuple[int, int]], previous: int | None, number: int
) -> None:
    target = Memory(*left)
    if number == 2:
        result = roll_out(target, _version(2), [SAMPLE])
        assert (result.outcome, result.previous) == ("deployed", previous)
        assert target.shares == {2: 100}
        return
    with pytest.raises(RolloutError):
        roll_out(target, _version(10), [SAMPLE])
    survivor = max(left, key=lambda pair: pair[1])[0]  # version 2 is not on trial here
    assert target.shares == ({} if previous is None else {survivor: 100})


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.01)


WATCHED = Traffic(
    mirror_percent=20,
    mirror_seconds=0.02,
    sticky_header="X-User",
    steps=[Step(percent=10, seconds=0.02), Step(percent=50), Step(percent=100, seconds=0.02)],
)


@pytest.mark.usefixtures("_often")
def test_copies_then_steps_each_watched() -> None:
    target = Memory((1, 100))
    lines: list[str] = []
    result = roll_out(target, _version(2), [SAMPLE], traffic=WATCHED, log=lines.append)
    assert target.shares == {2: 100}
    assert target.sticky_header == "x-user"
    calls = [call for call, _ in itertools.groupby(target.calls)]
    assert calls == [
        "stage 2", "score v2", "stage 2 mirror 20", "observe",
        "promote v2 10", "score v2", "observe", "promote v2 50", "score v2",
        "promote v2 100", "score None", "observe", "discard v1",
    ]  # fmt: skip
    assert [j.step for j in result.judgements] == ["20 % mirrored", "10 %", "100 %"]
    assert {j.judgement.verdict for j in result.judgements} == {"as good"}
    # At all of the traffic the live version's last figures count.
    last, before = result.judgements[2].judgement, result.judgements[1].judgement
    assert last.figures["requests_live"] == before.figures["requests_live"] > 0
    assert [line for line in lines if line.startswith("as good at")] == [
        str(j) for j in result.judgements
    ]


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize(("step", "judged"), [("20 % mirrored", 1), ("10 %", 2), ("100 %", 3)])
def test_a_version_that_does_worse_at_any_step_is_discarded(step: str, judged: int) -> None:
    target = Memory((1, 100))

    def log(line: str) -> None:
        if f"{step.split()[0]} % of the" in line:
            target.failing.add("v2")

    with pytest.raises(RolloutError) as caught:
        roll_out(target, _version(2), [SAMPLE], traffic=WATCHED, log=log)
    assert str(caught.value).startswith(
        f"version 2 was discarded, version 1 serves as before: worse at {step} after 0 s: "
    )
    assert "requests failed" in str(caught.value)
    assert [j.judgement.verdict for j in caught.value.judgements] == (judged - 1) * ["as good"] + [
        "worse"
    ]
    assert target.shares == {1: 100}


@pytest.mark.usefixtures("_often")
def test_what_the_live_version_refuses_too_is_no_fault() -> None:
    target = Memory((1, 100))
    target.refused_of = 5
    # Copies are only of what was answered; at full traffic the wrong requests come as well.
    traffic = WATCHED.model_copy(update={"steps": [Step(percent=100, seconds=0.02)]})
    result = roll_out(target, _version(2), [SAMPLE], traffic=traffic)
    assert [j.judgement.verdict for j in result.judgements] == ["as good", "as good"]


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("error", [EndpointError("gone"), KeyboardInterrupt("stop")])
def test_an_endpoint_that_cannot_be_observed_keeps_its_version(error: BaseException) -> None:
    target = Memory((1, 100))
    target.failures["observe"] = error
    expected = RolloutError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected, match=str(error)):
        roll_out(target, _version(2), [SAMPLE], traffic=WATCHED)
    assert target.shares == {1: 100}


@pytest.mark.usefixtures("_often")
def test_a_sample_that_fails_later_leaves_what_was_judged_on_record() -> None:
    target = Memory((1, 100))
    target.failures["promote v2 50"] = EndpointError("broken")
    with pytest.raises(RolloutError, match="broken") as caught:
        roll_out(target, _version(2), [SAMPLE], traffic=WATCHED)
    assert [j.step for j in caught.value.judgements] == ["20 % mirrored", "10 %"]


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("too_few", ["continue", "discard"])
def test_too_few_requests(too_few: Literal["continue", "discard"]) -> None:
    limits = Limits(minimum_requests=1_000_000, too_few=too_few)
    traffic = Traffic(steps=[Step(percent=10, seconds=0.01)], limits=limits)
    target = Memory((1, 100))
    if too_few == "continue":
        (judged,) = roll_out(target, _version(2), [SAMPLE], traffic=traffic).judgements
        assert judged.judgement.verdict == "too few requests"
    else:
        with pytest.raises(RolloutError, match="too few requests at 10 %"):
            roll_out(target, _version(2), [SAMPLE], traffic=traffic)
    assert target.shares == {2 if too_few == "continue" else 1: 100}


def test_a_first_deployment_has_nothing_to_be_compared_with() -> None:
    target = Memory()
    result = roll_out(target, _version(1), [SAMPLE], traffic=WATCHED)
    assert result.judgements == ()
    assert target.calls == ["stage 1", "score v1", "promote v1 100", "score None"]
