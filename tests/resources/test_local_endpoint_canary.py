"""New versions on trial on real servers, with users who ask all the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlops_assets import trial
from mlops_assets.rollout import Rollout, RolloutError, Sample, roll_out
from resources.endpoints.base import VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.traffic import Traffic
from tests.bundles import tried
from tests.load import USER, load
from tests.local_servers import eventually, serve

SAMPLE = Sample.model_validate({"name": "one row", "request": {"data": [{"a": 1, "b": 2}]}})
BAD = [
    ({"offset": 8.0}, "its predictions are distributed otherwise than the live version's"),
    ({"greatest": 7.0}, r"% of \d+ requests failed, 0\.0% of \d+ at the live version"),
    ({"seconds": 0.03}, r"95 % of requests within \d+\.?\d* ms, .* ms at the live version"),
]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.2)


def _deploy(
    endpoints: LocalEndpoints,
    version: VersionRef,
    settings: LocalSettings | None = None,
    **traffic: Any,
) -> Rollout:
    with endpoints.open("tiny", "staging", settings or LocalSettings()) as target:
        return roll_out(target, version, [SAMPLE], traffic=Traffic.model_validate(traffic))


def _wanted(endpoints: LocalEndpoints) -> dict[int, int]:
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        return {d.version: d.traffic for d in target.live().values()}


@pytest.mark.parametrize(("what", "reason"), BAD)
def test_a_worse_version_is_discarded_before_its_time(
    endpoints: LocalEndpoints, tmp_path: Path, what: dict[str, float], reason: str
) -> None:
    serve(endpoints, tried(tmp_path, 1))
    with load(endpoints) as users:
        with pytest.raises(RolloutError, match=reason) as caught:
            _deploy(endpoints, tried(tmp_path, 2, **what), steps=[{"percent": 50, "seconds": 60}])
        discarded = len(users.answers)
        eventually(lambda: len(users.answers) > discarded + 20)
    assert str(caught.value).startswith(
        "version 2 was discarded, version 1 serves as before: worse at 50 % after "
    )
    (judged,) = caught.value.judgements
    assert judged.judgement.verdict == "worse"
    assert judged.seconds < 60
    assert _wanted(endpoints) == {1: 100}
    assert users.statuses(1) == {200}  # whoever was not on trial noticed nothing
    assert {version for _, version, _ in users.answers[discarded:]} == {1}


@pytest.mark.parametrize(("what", "reason"), BAD[:2])
def test_a_worse_version_is_found_without_a_user_who_notices(
    endpoints: LocalEndpoints, tmp_path: Path, what: dict[str, float], reason: str
) -> None:
    serve(endpoints, tried(tmp_path, 1))
    with load(endpoints) as users, pytest.raises(RolloutError, match=reason) as caught:
        _deploy(endpoints, tried(tmp_path, 2, **what), mirror_percent=50, mirror_seconds=60)
    (judged,) = caught.value.judgements
    assert judged.step == "50 % mirrored"
    assert {(version, status) for _, version, status in users.answers} == {(1, 200)}
    assert _wanted(endpoints) == {1: 100}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_good_version_goes_to_all(
    endpoints: LocalEndpoints, tmp_path: Path, workers: int
) -> None:
    settings = LocalSettings(workers=workers)
    serve(endpoints, tried(tmp_path, 1), settings)
    with load(endpoints) as users:
        result = _deploy(
            endpoints,
            tried(tmp_path, 2, offset=0.1),
            settings,
            mirror_percent=50,
            mirror_seconds=1.2,
            sticky_header=USER,
            steps=[{"percent": n, "seconds": 1.2} for n in (30, 60, 100)],
            limits={"minimum_requests": 10},
        )
        deployed = len(users.answers)
        eventually(lambda: len(users.answers) > deployed + 20)
    assert (result.outcome, result.previous) == ("deployed", 1)
    verdicts = [(j.step, j.judgement.verdict) for j in result.judgements]
    assert verdicts == [
        (step, "as good") for step in ("50 % mirrored", "30 %", "60 %", "100 %")
    ]  # fmt: skip
    figures = result.judgements[1].judgement.figures
    assert figures["requests_live"] > figures["requests_new"] >= 10
    assert {version for _, version, _ in users.answers[deployed:]} == {2}
    assert {status for _, _, status in users.answers} == {200}
    # Everybody went from the old one to the new one, and nobody back.
    assert {tuple(users.versions(user)) for user in range(40)} == {(1, 2)}


def test_without_traffic_nothing_hangs_or_fails(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, tried(tmp_path, 1))
    traffic: dict[str, Any] = {
        "mirror_percent": 10,
        "mirror_seconds": 0.3,
        "steps": [{"percent": 10, "seconds": 0.3}],
    }
    result = _deploy(endpoints, tried(tmp_path, 2, offset=8.0), **traffic)
    assert [j.judgement.verdict for j in result.judgements] == 2 * ["too few requests"]
    assert _wanted(endpoints) == {2: 100}
    with pytest.raises(RolloutError, match="version 2 serves as before: too few requests at 10 %"):
        _deploy(endpoints, tried(tmp_path, 3), **traffic, limits={"too_few": "discard"})
    assert _wanted(endpoints) == {2: 100}
