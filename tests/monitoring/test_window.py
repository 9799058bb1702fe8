"""Which captured rows are a window's."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.evidence import Evidence
from mlops_assets.monitoring import window as window_module
from mlops_assets.monitoring.labels import Labelled
from mlops_assets.monitoring.monitor import Span, monitor
from mlops_assets.training.metrics import Judged
from tests.monitoring.windows import NOW, captured, evidence, look, model, moved, reference

SPEC = model({"a": "{type: float}"}, "monitoring: {minimum_rows: 20}")


def _release() -> Evidence:
    y = np.arange(200.0)
    return evidence(Judged("regression", y, y))


def test_what_the_platform_itself_asks_is_not_judged(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    snapshot = reference(
        tmp_path, {"id": range(500), "a": random.normal(size=500), "y": np.arange(500.0) % 200}
    )
    rows = {"id": range(200), "a": random.normal(size=200)}
    asked = captured(tmp_path / "asked.parquet", rows, np.arange(200.0))
    # Rows that would be drift, another prediction for keys that have labels, and failures.
    own = captured(
        tmp_path / "own.parquet",
        {"id": range(200), "a": np.full(200, 9.0)},
        np.full(200, 1e6),
        own=True,
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("id,y\n" + "".join(f"{n},{n}.0\n" for n in range(200)))
    alone, beside = (
        look(files, snapshot, SPEC, _release(), Labelled([labels], files))
        for files in ([asked], [asked, own])
    )
    assert beside == alone
    assert beside.service.requests == beside.rows == 200
    assert beside.verdict("drift").status == "ok"
    assert look([own], snapshot, SPEC).service.requests == 0


@pytest.mark.parametrize("kind", ["float", "string", "integer"])
@pytest.mark.parametrize("copies", [1, 3])
def test_names_that_queries_use_too(tmp_path: Path, kind: str, copies: int) -> None:
    random = np.random.default_rng(1)
    names = ["h", "n", "request", "value", "times", "asked"]

    def values(n: int) -> dict[str, np.ndarray]:
        drawn = {
            "float": lambda: random.normal(size=n),
            "string": lambda: random.choice(["a", "b", "c"], n),
            "integer": lambda: random.integers(-5, 5, n),
        }[kind]
        return {**{name: drawn() for name in names}, "x": random.normal(size=n)}

    spec = model(
        {**dict.fromkeys(names, f"{{type: {kind}}}"), "x": "{type: float}"},
        "monitoring: {minimum_rows: 20}",
    )
    snapshot = reference(tmp_path, {"id": range(1000), **values(1000), "y": range(1000)})
    rows = {"id": range(600), **{k: np.repeat(v, copies) for k, v in values(600 // copies).items()}}
    window = captured(tmp_path / "w.parquet", rows, requests=[n // 4 for n in range(600)])
    report = look(window, snapshot, spec)
    assert report.verdict("drift").status == "ok", report.verdict("drift").reason
    assert report.repeated == 600 - 600 // copies
    assert {c.outcome for c in report.columns} == {"same"}


def test_predictions_that_may_not_be_seen_are_nowhere(tmp_path: Path) -> None:
    """Not even where files of before have them, and rows repeat."""
    random = np.random.default_rng(2)
    snapshot = reference(tmp_path, {"id": range(500), "a": random.normal(size=500)})
    rows = {"id": range(400), "a": np.repeat(random.normal(size=100), 4)}
    window = captured(tmp_path / "w.parquet", rows, np.full(400, 31337.0))
    y = np.arange(200.0)
    release = evidence(Judged("regression", y, y))
    span = Span([window], NOW, 1)
    shown = monitor(span, snapshot, SPEC, release)
    assert "mlops_prediction" in moved(shown)
    report = monitor(span, snapshot, SPEC, release, predictions=False)
    assert report.prediction.outcome == "not_captured"
    assert "31337" in shown.model_dump_json()
    assert "31337" not in report.model_dump_json()
    without = tmp_path / "without.parquet"
    pq.write_table(pq.read_table(window).drop_columns(["mlops_prediction"]), without)
    assert look(without, snapshot, SPEC, release).repeated == 300


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (pa.array([1, 2] * 200), pa.array([True, False] * 200)),
        (pa.array([0.5, 2.0] * 200), pa.array([1, 0] * 200)),
        (pa.array([0] * 400, pa.timestamp("us")), pa.array([0.5, 1.5] * 200)),
    ],
    ids=["integer to boolean", "float to integer", "timestamp to float"],
)
def test_a_column_whose_type_a_new_version_changes(
    tmp_path: Path, before: pa.Array, now: pa.Array
) -> None:
    kind = {pa.bool_(): "boolean", pa.int64(): "integer"}.get(now.type, "float")
    spec = model({"c": f"{{type: {kind}}}"}, "monitoring: {minimum_rows: 20}")
    ids = list(range(400))
    snapshot = reference(tmp_path, {"id": ids, "c": now, "y": ids})
    files = [
        captured(tmp_path / "1.parquet", pa.table({"id": ids, "c": before}), version=1),
        captured(tmp_path / "2.parquet", pa.table({"id": ids, "c": now}), version=2, failed=3),
    ]
    report = monitor(Span(files, NOW, 2), snapshot, spec, None)
    assert report.verdict("drift").status == "ok", report.verdict("drift").reason
    assert (report.rows, report.service.requests, report.service.failed) == (400, 803, 3)


def test_a_few_large_requests_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows they have: what one request is of is no drift."""
    monkeypatch.setattr(window_module, "TOGETHER", 100)
    random = np.random.default_rng(3)
    snapshot = reference(tmp_path, {"id": range(500), "a": random.normal(size=500)})
    for requests in (1, 3):
        rows = {"id": range(6000), "a": np.repeat(random.normal(size=requests), 6000 // requests)}
        of = np.arange(6000) // (6000 // requests)
        report = look(captured(tmp_path / "w.parquet", rows, requests=of), snapshot, SPEC)
        assert report.verdict("drift").status == "too_few_rows"
        assert report.effective_rows == requests
