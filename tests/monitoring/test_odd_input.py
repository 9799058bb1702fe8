"""What no statistic is made for: no rows, one row, nothing but nulls, infinity, any text."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.monitoring.monitor import Span, monitor
from mlops_assets.monitoring.pictures import draw
from mlops_assets.monitoring.report import Report
from tests.monitoring.windows import NOW, captured, look, model, moved, reference

SPEC = model(
    {
        "number": "{type: float, nullable: true, minimum: -10, maximum: 10}",
        "whole": "{type: integer, nullable: true}",
        "text": "{type: string, nullable: true}",
        "flag": "{type: boolean, nullable: true}",
        "seen": "{type: timestamp, nullable: true}",
    },
    "monitoring: {minimum_rows: 20}",
)
TYPES = {
    "number": pa.float64(),
    "whole": pa.int64(),
    "text": pa.string(),
    "flag": pa.bool_(),
    "seen": pa.timestamp("us"),
}
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "number": st.none() | st.floats() | st.sampled_from([0.0, 1.0, float("inf")]),
    "whole": st.none() | INTEGERS | st.sampled_from([0, 1]),
    "text": st.none() | st.text(max_size=30).filter(lambda t: t.isprintable()) | st.just("a'\"$"),
    "flag": st.none() | st.booleans(),
    "seen": st.none() | st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)),
}


@st.composite
def tables(draw_from: st.DrawFn, least: int) -> pa.Table:
    """A few values per column, many times or not."""
    rows = draw_from(st.sampled_from([least, 1, 30, 200]).filter(lambda n: n >= least))
    random = np.random.default_rng(draw_from(st.integers(0, 2**32)))
    columns: dict[str, pa.Array] = {}
    for name, values in VALUES.items():
        pool = draw_from(st.lists(values, min_size=1, max_size=8))
        picked = [pool[i] for i in random.integers(0, len(pool), rows)]
        columns[name] = pa.array(picked, TYPES[name], from_pandas=False)
    return pa.table(columns)


@given(then=tables(1), now=tables(0), together=st.integers(1, 50))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_rows_get_a_report_that_is_json(
    tmp_path: Path, then: pa.Table, now: pa.Table, together: int
) -> None:
    n = then.num_rows
    then = then.append_column("id", pa.array(range(n))).append_column("y", pa.array([1.0] * n))
    requests = [i // together for i in range(now.num_rows)]
    window = captured(tmp_path / "w.parquet", now, None, requests)
    report = look(window, reference(tmp_path, then), SPEC)
    text = report.model_dump_json()
    assert Report.model_validate_json(text) == report
    json.loads(text, parse_constant=_refused)
    assert [c.column for c in report.columns] == list(VALUES)
    assert "seen" not in moved(report)
    if together == 1:
        draw(tmp_path / "pictures", report)


def _refused(constant: str) -> None:
    pytest.fail(f"{constant} is not JSON")


def sane(rows: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "number": random.normal(size=rows),
        "whole": random.integers(0, 50, rows),
        "text": random.choice(["a", "b", "c"], rows),
        "flag": random.random(rows) < 0.5,
        "seen": (np.datetime64("2026-01-01", "us") + seed * 10**12 + np.arange(rows)),
    }


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return reference(tmp_path / "r", {**sane(1000), "id": range(1000), "y": [1.0] * 1000})


def outcome(report: Report, name: str) -> tuple[str, str]:
    column = next(c for c in report.columns if c.column == name)
    return column.outcome, column.reason


def test_no_file_at_all(snapshot: Path) -> None:
    report = look([], snapshot, SPEC)
    assert report.verdict("drift").status == "too_few_rows"
    assert report.verdict("freshness").reason == "no request was captured yet"
    assert report.service.error_rate is None


def test_a_time_moves_without_alarm(tmp_path: Path, snapshot: Path) -> None:
    report = look(captured(tmp_path / "w.parquet", sane(300, 7)), snapshot, SPEC)
    assert outcome(report, "seen") == ("time", "a time, which moves by itself")
    assert report.verdict("drift").status == "ok"


def test_columns_that_are_not_captured_are_named(tmp_path: Path, snapshot: Path) -> None:
    rows = sane(300, 7)
    del rows["text"], rows["seen"]
    report = look(captured(tmp_path / "w.parquet", rows), snapshot, SPEC)
    assert outcome(report, "text") == ("not_captured", "not captured")
    assert report.verdict("drift").reason.endswith("not compared: text, seen")


def test_a_column_captured_in_some_files_is_judged_in_these(tmp_path: Path, snapshot: Path) -> None:
    rows = sane(300, 7)
    first = captured(tmp_path / "1.parquet", rows)
    del rows["text"]
    second = captured(tmp_path / "2.parquet", {**rows, "number": rows["number"] + 0.001})
    report = look([first, second], snapshot, SPEC)
    text = next(c for c in report.columns if c.column == "text")
    assert (text.outcome, text.missing_now) == ("same", 0.0)
    assert report.rows == 600


def test_a_column_that_was_empty_in_training(tmp_path: Path) -> None:
    then = {**sane(300), "id": range(300), "y": [1.0] * 300, "number": pa.nulls(300, pa.float64())}
    window = captured(tmp_path / "w.parquet", sane(300, 3))
    report = look(window, reference(tmp_path / "r", then), SPEC)
    assert outcome(report, "number")[0] == "empty_in_training"
    assert "number" in report.verdict("drift").reason


def test_ignored_columns_and_free_text(tmp_path: Path) -> None:
    spec = model(
        {"year": "{type: integer}", "note": "{type: string}", "x": "{type: float}"},
        "monitoring: {ignore: [year], minimum_rows: 50}",
    )
    x = np.random.default_rng(0).normal(size=600)
    then = {
        "id": range(300),
        "y": [1.0] * 300,
        "year": [2024] * 300,
        "note": [f"note {i}" for i in range(300)],
        "x": x[:300],
    }
    now = {"year": [2026] * 300, "note": [f"other {i}" for i in range(300)], "x": x[300:]}
    report = look(captured(tmp_path / "w.parquet", now), reference(tmp_path / "r", then), spec)
    assert outcome(report, "year")[0] == "ignored"
    assert outcome(report, "note")[0] == "free_text"
    assert report.verdict("drift").status == "ok"


def test_a_constant_that_is_none_any_more(tmp_path: Path, snapshot: Path) -> None:
    then = {**sane(1000), "id": range(1000), "y": [1.0] * 1000, "whole": [3] * 1000}
    constant = reference(tmp_path / "c", then)
    same = captured(tmp_path / "w.parquet", {**sane(300, 7), "whole": [3] * 300})
    assert not moved(look(same, constant, SPEC))
    other = captured(tmp_path / "w.parquet", {**sane(300, 7), "whole": [3] * 250 + [4] * 50})
    assert moved(look(other, constant, SPEC)) == {"whole"}


def test_a_number_that_comes_as_text(tmp_path: Path, snapshot: Path) -> None:
    rows = sane(300, 7)
    rows["number"] = [str(v) for v in rows["number"][:200]] + ["much"] * 100
    report = look(captured(tmp_path / "w.parquet", rows), snapshot, SPEC)
    assert moved(report) == {"number"}
    assert "33.3% of the rows do not meet the contract" in outcome(report, "number")[1]


def test_values_out_of_range_are_counted(tmp_path: Path, snapshot: Path) -> None:
    rows = sane(300, 7)
    rows["number"][:2] = [11.0, np.inf]
    report = look(captured(tmp_path / "w.parquet", rows), snapshot, SPEC)
    number = next(c for c in report.columns if c.column == "number")
    assert (number.violations, number.outcome) == (2, "same")


def test_a_file_that_is_none_is_named_and_the_others_are_read(
    tmp_path: Path, snapshot: Path
) -> None:
    window = captured(tmp_path / "w.parquet", sane(300, 7))
    (tmp_path / "half.parquet").write_bytes(window.read_bytes()[:500])
    report = look([window, tmp_path / "half.parquet"], snapshot, SPEC)
    assert report.rows == 300
    (problem,) = report.unreadable
    assert problem.startswith("half.parquet: ")


def test_service_and_freshness(tmp_path: Path, snapshot: Path) -> None:
    rows = sane(300, 7)
    requests = [i // 3 for i in range(300)]
    window = captured(tmp_path / "w.parquet", rows, None, requests, failed=25)
    span = Span([window], NOW, 1, last_data=NOW - dt.timedelta(hours=100))
    report = monitor(span, snapshot, SPEC, None)
    answered = report.service
    assert (answered.requests, answered.rows, answered.failed) == (125, 300, 25)
    assert answered.error_rate == 0.2
    assert answered.p50_ms == pytest.approx(2.0)
    assert answered.p95_ms == pytest.approx(500.0)
    verdict = report.verdict("freshness")
    assert verdict.status == "alarm"
    assert verdict.reason == "last data 100.0 hours ago, monitoring.freshness_hours is 48"


def test_more_rows_than_are_looked_at_for_requests(
    tmp_path: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlops_assets.monitoring.repeats.SAMPLE", 500)
    monkeypatch.setattr("mlops_assets.monitoring.window.TOGETHER", 500)
    rows = sane(6000, 7)
    requests = [i // 2 for i in range(6000)]
    report = look(captured(tmp_path / "w.parquet", rows, None, requests), snapshot, SPEC)
    assert report.verdict("drift").status == "ok"
    assert report.rows == 6000
    table = pq.read_table(tmp_path / "w.parquet").drop_columns(["seen"])
    twice = pa.concat_tables([table] * 4)
    pq.write_table(twice, tmp_path / "twice.parquet")
    again = look(tmp_path / "twice.parquet", snapshot, SPEC)
    assert again.verdict("drift").status == "ok"
    assert again.repeated > 0
