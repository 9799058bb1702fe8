"""Azure ML's own collection, read into captured rows; the events are those of its documentation."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.schema import Schema
from resources.azure.collected import read_collected, write_collected
from tests.bundles import KEYS, MIXED, NUMBERS

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
SCHEMA = Schema("tiny", "regression", "y", NUMBERS, keys=KEYS)
SOURCE = "/subscriptions/s/resourceGroups/g/providers/p/onlineEndpoints/ep/deployments/v7-3ac66b21"


class Collector:
    """Writes as the platform's own does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def event(
        self, collection: str, key: str, data: Any, at: dt.datetime = NOON, **more: Any
    ) -> None:
        side = {"model_inputs": "inputs", "model_outputs": "outputs"}.get(collection, collection)
        found = {
            "specversion": "1.0", "id": f"{collection}-{key}", "source": SOURCE,
            "type": f"azureml.inference.{side}", "datacontenttype": "application/json",
            "time": f"{at:%Y-%m-%dT%H:%M:%SZ}", "data": data, "contentrange": "bytes 0-59/*",
            "correlationid": key, "xrequestid": f"x-{key}", **more,
        }  # fmt: skip
        path = self.folder / "ep" / "v7-3ac66b21" / collection / f"{at:%Y/%m/%d/%H}" / "one.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(found) + "\n")

    def both(self, key: str, asked: Any, answered: Any, at: dt.datetime = NOON) -> None:
        self.event("request", key, asked, at, path="/score", method="POST")
        self.event("response", key, answered, at)

    def read(self, schema: Schema = SCHEMA, **more: Any) -> Any:
        until = NOON + dt.timedelta(hours=2)
        return read_collected(self.folder, "ep", "v7-3ac66b21", schema, NOON, until, **more)


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    return Collector(tmp_path)


def test_payloads(collector: Collector, tmp_path: Path) -> None:
    record = {"a": 1.5, "b": 2, "patient": 7}
    collector.both("one", {"data": [record, {"a": 2, "b": 3}]}, {"predictions": [3.5, 5.0]})
    collector.both("two", json.dumps({"data": [[1, 2]]}), json.dumps({"predictions": [3]}))
    refused = {"error": {"code": "bad_request", "message": "row 0: missing column 'b'"}}
    collector.both("three", {"data": [{"a": 1}]}, refused)
    collector.both("four", {"data": [record]}, {"error": {"code": "internal", "message": "x"}})
    collector.both("metrics", {"metrics": True}, {"instance": "i", "metrics": "# HELP"})
    found = collector.read()
    assert found.unread == 0
    write_collected(found, tmp_path / "out" / "f.parquet")
    rows = pq.read_table(tmp_path / "out" / "f.parquet").to_pylist()
    assert [(r["mlops_request"], r["mlops_row"], r["mlops_status"]) for r in rows] == [
        ("x-one", 0, 200), ("x-one", 1, 200), ("x-two", 0, 200), ("x-three", None, 400),
        ("x-four", None, 500),
    ]  # fmt: skip
    assert [(r["a"], r["b"], r["patient"], r["mlops_prediction"]) for r in rows[:3]] == [
        (1.5, 2, 7, 3.5), (2.0, 3, None, 5.0), (1.0, 2, None, 3.0),
    ]  # fmt: skip
    assert {r["mlops_version"] for r in rows} == {7}
    assert {r["mlops_deployment"] for r in rows} == {"v7-3ac66b21"}
    assert {r["mlops_seconds"] for r in rows} == {None}
    assert rows[0]["mlops_time"] == NOON


def test_tables_that_a_script_has_logged(collector: Collector) -> None:
    schema = Schema("tiny", "multiclass", "y", MIXED, labels=("high", "low"))
    collector.event(
        "model_inputs", "one", [{"size": 1.5, "colour": None}, {"size": 2, "colour": "red"}]
    )
    collector.event("model_outputs", "one", [{"label": "low"}, {"label": "high"}])
    rows = collector.read(schema).table.to_pylist()
    assert [(r["size"], r["colour"], r["mlops_prediction"]) for r in rows] == [
        (1.5, None, "low"), (2.0, "red", "high"),
    ]  # fmt: skip


def test_requests_are_not_told_of_twice(collector: Collector) -> None:
    collector.both("one", {"data": [[1, 2]]}, {"predictions": [3]})
    collector.event("model_inputs", "one", [{"a": 1, "b": 2}])
    collector.event("model_outputs", "one", [{"y": 3}])
    assert collector.read().table.num_rows == 1


def test_both_sides_in_two_hours_and_what_is_outside_the_span(collector: Collector) -> None:
    minute = dt.timedelta(minutes=1)
    collector.event("request", "one", {"data": [[1, 2]]}, NOON - minute)
    collector.event("response", "one", {"predictions": [3]}, NOON)
    collector.both("two", {"data": [[1, 2]]}, {"predictions": [3]}, NOON - minute)
    found = collector.read()
    assert [r["mlops_request"] for r in found.table.to_pylist()] == ["x-one"]
    assert found.unread == 0


def test_what_cannot_be_read_is_counted(collector: Collector) -> None:
    collector.both("good", {"data": [[1, 2]]}, {"predictions": [3]})
    collector.event("request", "alone", {"data": [[1, 2]]})
    collector.both("other columns", {"data": [{"c": 1}]}, {"predictions": [3]})
    collector.both("no form", "nonsense", {"predictions": [3]})
    collector.event("request", "large", "https://a.blob.core.windows.net/x", datainblob="true")
    collector.event("response", "large", {"predictions": [3]})
    (path,) = collector.folder.rglob("response/**/*.jsonl")
    with path.open("a") as file:
        file.write('{"specversion": "1.0", "da')
    found = collector.read()
    assert found.table.num_rows == 1
    # Alone, two that are no requests of this version, a large one with both sides, half a line.
    assert found.unread == 1 + 2 + 2 + 1


def test_nothing_and_what_is_excluded(collector: Collector) -> None:
    empty = collector.read()
    assert (empty.table.num_rows, empty.unread) == (0, 0)
    assert "a" in empty.table.schema.names
    collector.both("one", {"data": [[1, 2]]}, {"predictions": [3]})
    found = collector.read(settings=CaptureSettings("", exclude=("a", "y")))
    assert found.table.schema.names[7:] == ["b", "patient", "visit"]
