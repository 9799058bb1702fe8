"""Copies of requests: scored aside, counted, dropped where they would pile up."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.scoring import mirror as module
from mlops_assets.scoring.deployments import Deployment
from mlops_assets.scoring.generation import Entry
from mlops_assets.scoring.metrics import Tally
from mlops_assets.scoring.mirror import Mirror
from mlops_assets.scoring.predictor import Predictor
from resources.endpoints.base import VersionRef
from tests.bundles import tried
from tests.local_servers import eventually


def _deployment(version: VersionRef, reference: Deployment | None, percent: int) -> Deployment:
    entry = Entry(str(version.bundle), version.digest, version.version, mirror=percent)
    predictor = Predictor.load(version.bundle, version.digest)
    schema = reference.predictor.schema if reference else None
    return Deployment(f"v{version.version}", entry, predictor, schema)


def _body(a: float, b: int = 1) -> bytes:
    return json.dumps({"data": [{"a": a, "b": b}]}).encode()


@pytest.fixture
def mirrors() -> Iterator[list[Mirror]]:
    """Those that a test makes; closed after it."""
    found: list[Mirror] = []
    yield found
    for mirror in found:
        mirror.close()


def _mirror(
    mirrors: list[Mirror], tmp_path: Path, percent: int = 100, **what: float
) -> tuple[Mirror, Tally]:
    live = _deployment(tried(tmp_path, 1), None, 0)
    tally = Tally()
    mirrors.append(Mirror(_deployment(tried(tmp_path, 2, **what), live, percent), tally))
    return mirrors[-1], tally


def test_copies_are_scored_and_counted_by_the_buckets_of_the_live_version(
    mirrors: list[Mirror], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror, tally = _mirror(mirrors, tmp_path, greatest=7)
    with caplog.at_level(logging.ERROR):
        # The live version's edges are -7.875, -5.875 ...; the new one's -7.75, -5.75 ...
        for body in (_body(-7.8), _body(9.0), _body(0, b=9), _body(0, b=8), b'{"data": [[1]]}'):
            mirror.offer(body)
        eventually(lambda: tally.statuses.total() == 5)
    assert tally.statuses == {"200": 2, "500": 2, "400": 1}
    assert tally.predictions == {"1": 1, "9": 1}
    assert sum(tally.latencies) == 5
    # Told of once, and never with what was asked.
    assert caplog.text.count("mirrored requests fail on v2") == 1
    assert "RuntimeError" in caplog.text


def test_a_share_of_the_requests_is_copied(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirror, tally = _mirror(mirrors, tmp_path, percent=20)
    for number in range(1500):
        mirror.offer(_body(1.0))
        if number % 20 == 19:
            eventually(lambda: not mirror.waiting)
    assert 200 < tally.statuses["200"] < 400  # six standard deviations
    assert "dropped" not in tally.statuses


def test_what_piles_up_is_dropped_and_nobody_waits(mirrors: list[Mirror], tmp_path: Path) -> None:
    mirror, tally = _mirror(mirrors, tmp_path, seconds=0.05)
    for _ in range(module.MAXIMUM_WAITING + 30):
        mirror.offer(_body(1.0))  # returns while the first one is being scored
    assert tally.statuses["dropped"] >= 28
    dropped = tally.statuses["dropped"]
    mirror.close()
    eventually(lambda: tally.statuses.total() == module.MAXIMUM_WAITING + 30)
    assert tally.statuses["dropped"] > dropped  # what waited when it was closed


def test_large_bodies_pile_up_sooner(
    mirrors: list[Mirror], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAXIMUM_BYTES", 1000)
    mirror, tally = _mirror(mirrors, tmp_path, seconds=0.05)
    for _ in range(5):
        mirror.offer(_body(1.0) + b" " * 400)
    assert tally.statuses["dropped"] >= 2
    eventually(lambda: not mirror.waiting)
    mirror.offer(_body(1.0))
    eventually(lambda: not mirror.waiting)
    assert tally.statuses == Counter({"200": 6 - tally.statuses["dropped"]}) + Counter(
        dropped=tally.statuses["dropped"]
    )
