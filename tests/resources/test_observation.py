"""What an endpoint's metrics are read as; the text is that of the server's own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mlops_assets.scoring.metrics import SECONDS, Metrics
from mlops_assets.scoring.schema import Schema
from resources.endpoints.base import Counts, EndpointError, Observation
from resources.endpoints.observation import observations

FIRST = Schema("m", "regression", "y", (), edges=(1.0, 2.0))
SECOND = Schema("m", "regression", "y", (), edges=(100.0,))


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    """Of a live version 1, and of a version 2 that is counted by the buckets of both."""
    found = Metrics(tmp_path)
    for name, schema in (("v1", FIRST), ("v2", SECOND)):
        tally = found.tally(name)
        for status in (200, 200, 200, 422, 500, 503):
            tally.record(status, 0.0012)
        tally.record(200, 77.0)
        tally.predicted([0.5, 1.5, 1.6, 9.0], schema)
        tally.outside["age"] += 1
    found.tally("v2").compare([0.5, 1.5, 1.6, 9.0], FIRST)
    copies = found.mirror("v2")
    copies.record(200, 0.0001)
    copies.record(404, 0.0001)
    copies.record(500, 0.0001)
    copies.statuses["dropped"] += 7
    copies.predicted([9.0], FIRST)
    found.refused["busy"] += 1
    return found


def test_what_the_server_writes_is_read(metrics: Metrics) -> None:
    found = observations(metrics.render().decode(), "v1")
    assert set(found) == {"v1", "v2"}
    for one in found.values():
        served = one.served
        assert (served.answered, served.refused, served.failed) == (4, 1, 2)
        assert served.requests == 7
        times = {bound: count for bound, count in served.seconds.items() if count}
        assert times == {0.0015: 6, math.inf: 1}
        assert list(served.seconds) == [*SECONDS, math.inf]
        # By the buckets of version 1, both.
        assert served.predictions == {"0": 1, "1": 2, "2": 1}
    copies = found["v2"].mirrored
    assert (copies.answered, copies.refused, copies.failed) == (1, 1, 1)
    assert copies.seconds[0.0001] == 3
    assert copies.predictions == {"2": 1}
    assert found["v1"].mirrored == Counts()


def test_a_window_is_the_difference_of_two_moments(metrics: Metrics) -> None:
    before = observations(metrics.render().decode(), "v1")["v1"].served
    metrics.tally("v1").record(200, 0.0012)
    metrics.tally("v1").record(500, 0.3)
    metrics.tally("v1").predicted([1.5], FIRST)
    after = observations(metrics.render().decode(), "v1")["v1"].served
    window = after.since(before)
    assert (window.answered, window.refused, window.failed) == (1, 0, 1)
    assert {bound: count for bound, count in window.seconds.items() if count} == {
        0.0015: 1, 0.33: 1,
    }  # fmt: skip
    assert {bucket: n for bucket, n in window.predictions.items() if n} == {"1": 1}
    # Another worker answers, which does not know yet what this one has counted.
    assert before.since(after).requests == 0


def test_nothing_was_asked_yet() -> None:
    assert observations(Metrics().render().decode(), "v1") == {}
    assert Observation() == Observation(Counts(), Counts())


@pytest.mark.parametrize("text", ["<html>", "mlops_requests_total{ 1", "a b c d e"])
def test_what_is_no_metrics_is_said(text: str) -> None:
    with pytest.raises(EndpointError, match="/metrics: not a Prometheus text"):
        observations(text, "v1")
