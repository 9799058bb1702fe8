"""Azure ML's own collection, read into captured rows; the events are those of its documentation."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mlops_assets.scoring.schema import Schema
from resources.azure import collected
from resources.azure.collected import read_collected
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

    def read(self, schema: Schema = SCHEMA) -> tuple[list[dict[str, Any]], int]:
        """The rows, and how many requests cannot be read."""
        place, path = self.folder / "ep", self.folder / "out" / "rows.parquet"
        names = [found.relative_to(place).as_posix() for found in place.rglob("*.jsonl")]
        unread = read_collected(place, sorted(names), "v7-3ac66b21", schema, path)
        return pq.read_table(path).to_pylist(), unread


@pytest.fixture
def collector(tmp_path: Path) -> Collector:
    return Collector(tmp_path)


def test_payloads(collector: Collector) -> None:
    times = [NOON + dt.timedelta(seconds=n) for n in range(4)]
    record = {"a": 1.5, "b": 2, "patient": 7}
    collector.both(
        "one", {"data": [record, {"a": 2, "b": 3}]}, {"predictions": [3.5, 5.0]}, times[0]
    )
    collector.both(
        "two", json.dumps({"data": [[1, 2]]}), json.dumps({"predictions": [3]}), times[1]
    )
    refused = {"error": {"code": "bad_request", "message": "row 0: missing column 'b'"}}
    collector.both("three", {"data": [{"a": 1}]}, refused, times[2])
    collector.both(
        "four", {"data": [record]}, {"error": {"code": "internal", "message": "x"}}, times[3]
    )
    collector.both("metrics", {"metrics": True}, {"instance": "i", "metrics": "# HELP"})
    rows, unread = collector.read()
    assert unread == 0
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
    rows, _ = collector.read(schema)
    assert [(r["size"], r["colour"], r["mlops_prediction"]) for r in rows] == [
        (1.5, None, "low"), (2.0, "red", "high"),
    ]  # fmt: skip


def test_requests_are_not_told_of_twice(collector: Collector) -> None:
    collector.both("one", {"data": [[1, 2]]}, {"predictions": [3]})
    collector.event("model_inputs", "one", [{"a": 1, "b": 2}])
    collector.event("model_outputs", "one", [{"y": 3}])
    collector.both("one", {"data": [[1, 2]]}, {"predictions": [3]})  # collected once more
    rows, unread = collector.read()
    assert (len(rows), unread) == (1, 0)


def test_both_sides_may_lie_in_neighbouring_hours(collector: Collector) -> None:
    minute, hour = dt.timedelta(minutes=1), dt.timedelta(hours=1)
    collector.event("request", "one", {"data": [[1, 2]]}, NOON - minute)
    collector.event("response", "one", {"predictions": [3]}, NOON)
    collector.event("response", "two", {"predictions": [3]}, NOON - minute)
    collector.event("request", "two", {"data": [[1, 2]]}, NOON)
    collector.event("request", "three", {"data": [[1, 2]]}, NOON - minute)
    collector.both("four", {"data": [[1, 2]]}, {"predictions": [3]}, NOON + hour)
    collector.event("response", "three", {"predictions": [3]}, NOON + 2 * hour)
    rows, unread = collector.read()
    assert {row["mlops_request"] for row in rows} == {"x-one", "x-two", "x-four"}
    assert unread == 2


def test_what_cannot_be_read_is_counted(collector: Collector) -> None:
    collector.both("good", {"data": [[1, 2]]}, {"predictions": [3]})
    collector.event("request", "alone", {"data": [[1, 2]]})
    collector.both("other columns", {"data": [{"c": 1}]}, {"predictions": [3]})
    collector.both("no form", "nonsense", {"predictions": [3]})
    collector.event("request", "large", "https://a.blob.core.windows.net/x", datainblob="true")
    collector.event("response", "large", {"predictions": [3]})
    (path,) = collector.folder.rglob("response/**/*.jsonl")
    with path.open("a") as file:
        file.write('[]\n"text"\n\n{"specversion": "1.0", "da')
    rows, unread = collector.read()
    assert len(rows) == 1
    # Alone, two that are no requests of this version, a large one's two sides, no events.
    assert unread == 1 + 2 + 2 + 3


@pytest.mark.parametrize("side", ["request", "response"])
@pytest.mark.parametrize(
    "data",
    [b'"\xff"', b'"\\ud800"', b"[" * 5000, b"{" * 5000, b'"[[1,"', b"null", b"NaN", b"[[]]",
     b'{"data": 3}', b'{"error": null}', b'{"error": {"code": []}}', b'"' + b"[" * 100_000 + b'"'],
)  # fmt: skip
def test_any_data(collector: Collector, side: str, data: bytes) -> None:
    other = {"request": "response", "response": "request"}[side]
    collector.event(other, "one", {"predictions": [3]} if side == "request" else {"data": [[1, 2]]})
    collector.event(side, "one", "DATA")
    (path,) = collector.folder.rglob(f"{side}/**/*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"DATA"', data))
    collector.both("good", {"data": [[1, 2]]}, {"predictions": [3]})
    rows, unread = collector.read()
    assert "x-good" in [row["mlops_request"] for row in rows]
    assert unread in (1, 2) or (side == "response" and rows[0]["mlops_status"] == 400)


def test_nothing(collector: Collector) -> None:
    assert collector.read() == ([], 0)
    collector.event("request", "alone", {"data": [[1, 2]]})
    assert collector.read() == ([], 1)


def test_more_than_is_decoded_at_a_time(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collected, "_TOGETHER", 7)
    monkeypatch.setattr(collected, "_IN_TURN", 3)
    for n in range(100):
        asked = {"data": [[n, 2]] * (n % 3 + 1)} if n % 10 else "nonsense"
        at = NOON + dt.timedelta(seconds=n)
        collector.both(f"{n}", asked, {"predictions": [n] * (n % 3 + 1)}, at)
    rows, unread = collector.read()
    assert unread == 10
    expected = [n for n in range(100) if n % 10 for _ in range(n % 3 + 1)]
    assert [row["a"] for row in rows] == [row["mlops_prediction"] for row in rows] == expected
