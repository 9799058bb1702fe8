"""What is counted, and the sum over an endpoint's workers."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.schema import Schema

NUMBERS = Schema("m", "regression", "y", (), edges=(1.0, 2.0, 3.0))
LABELS = Schema("m", "binary", "y", (), labels=(True, False))


def _samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, *_values(sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


def _values(labels: dict[str, str]) -> list[str]:
    """The deployment first, then the other one."""
    return [value for _, value in sorted(labels.items(), key=lambda pair: pair[0] != "deployment")]


def test_a_worker_alone() -> None:
    metrics = Metrics()
    tally = metrics.tally("v1")
    tally.record(200, 0.0002)
    tally.record(200, 3.0)
    tally.record(500, 99.0)
    tally.predicted([0.5, 1.0, 2.5, 9.0], NUMBERS)
    tally.outside.update(["age", "age"])
    metrics.tally("v2").predicted([True, True, False], LABELS)
    metrics.refused["busy"] += 1
    found = _samples(metrics)
    assert found["mlops_requests_total", "v1", "200"] == 2
    assert found["mlops_requests_total", "v1", "500"] == 1
    assert found["mlops_request_seconds_bucket", "v1", "0.00022"] == 1
    assert found["mlops_request_seconds_bucket", "v1", "4.7"] == 2
    assert found["mlops_request_seconds_bucket", "v1", "+Inf"] == 3
    assert found["mlops_request_seconds_sum", "v1"] == 102.0002
    assert [found["mlops_predictions_total", "v1", str(n)] for n in (0, 2, 3)] == [2, 1, 1]
    assert found["mlops_predictions_total", "v2", "true"] == 2
    assert found["mlops_out_of_contract_total", "v1", "age"] == 2
    assert found["mlops_refused_total", "busy"] == 1


def test_copies_are_counted_apart(tmp_path: Path) -> None:
    metrics, other = Metrics(tmp_path), Metrics(tmp_path)
    metrics.tally("v2").compare([0.5, 2.5], NUMBERS)
    for one in (metrics, other):
        copies = one.mirror("v2")
        copies.record(200, 0.02)
        copies.record(422, 0.02)
        copies.record(500, 3.0)
        copies.statuses["dropped"] += 4
        copies.predicted([0.5], NUMBERS)
    other.write()
    found = _samples(metrics)
    for outcome, count in {"answered": 2, "refused": 2, "failed": 2, "dropped": 8}.items():
        assert found["mlops_mirrored_total", "v2", outcome] == count
    assert found["mlops_mirrored_seconds_bucket", "v2", "0.022"] == 4
    assert found["mlops_mirrored_seconds_count", "v2"] == 6
    assert found["mlops_mirrored_predictions_total", "v2", "0"] == 2
    assert found["mlops_compared_predictions_total", "v2", "2"] == 1
    assert not [key for key in found if key[:2] == ("mlops_requests_total", "v2")]
    assert not [key for key in found if key[:2] == ("mlops_predictions_total", "v2")]


def test_workers_that_are_gone_still_count(tmp_path: Path) -> None:
    gone, other, asked = Metrics(tmp_path), Metrics(tmp_path), Metrics(tmp_path)
    for number, metrics in enumerate((gone, other, asked), 1):
        for _ in range(number):
            metrics.tally("v1").record(200, 0.001)
        metrics.refused["busy"] += 1
        metrics.write()
    other.tally("v1").record(404, 0.001)  # not yet written: not yet seen by the others
    found = _samples(asked)
    assert found["mlops_requests_total", "v1", "200"] == 6
    assert ("mlops_requests_total", "v1", "404") not in found
    assert found["mlops_request_seconds_count", "v1"] == 6
    assert found["mlops_refused_total", "busy"] == 3
    other.write()
    assert _samples(asked)["mlops_requests_total", "v1", "404"] == 1
    assert _samples(asked) == _samples(gone)


def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.tally("v1").record(200, 0.001)
    metrics.write()
    (path,) = (tmp_path / "counts").iterdir()
    before = path.stat().st_ino
    metrics.write()
    assert path.stat().st_ino == before
    metrics.tally("v1").record(200, 0.001)
    metrics.write()
    assert path.stat().st_ino != before
