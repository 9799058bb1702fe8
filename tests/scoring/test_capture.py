"""Real servers: what they were asked and answered, in files."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.files import files_below
from tests.bundles import KEYS, broken, exported_classifier, keyed, regression, wide
from tests.local_servers import eventually, processes_of
from tests.scoring.capturing import BODY, capturing

#: Bodies of one request each, and the rows that they hold.
RECORDS = [{"a": 1.5, "b": 2}, {"a": -3, "b": 0}]
SENT = [(1.5, 2), (-3.0, 0)]
SPLIT = {"columns": ["b", "a"], "data": [[2, 1.5], [0, -3]]}
TENSORS = {
    "inputs": [
        {"name": "a", "shape": [2], "datatype": "FP64", "data": [1.5, -3]},
        {"name": "b", "shape": [2, 1], "datatype": "INT64", "data": [[2], [0]]},
    ]
}
FORMS: dict[str, tuple[str, Any]] = {
    "records": ("/score", {"data": RECORDS}),
    "rows": ("/score", {"data": [[1.5, 2], [-3, 0]]}),
    "input_data": ("/score", {"input_data": {**SPLIT, "index": [7, 8]}}),
    "input_data-records": ("/score", {"input_data": RECORDS}),
    "dataframe_split": ("/score", {"dataframe_split": SPLIT}),
    "dataframe_records": ("/score", {"dataframe_records": RECORDS}),
    "spaces": ("/score", json.dumps({"data": RECORDS}, indent=3).encode()),
    "through-asgi": ("/score?x=1", {"data": RECORDS}),
    "in-a-thread": ("/score", json.dumps({"data": RECORDS}).encode() + b" " * 100_000),
    "tensors": ("/v2/models/tiny/infer", TENSORS),
}
REFUSED: dict[str, tuple[int, str, Any, dict[str, str]]] = {
    "no-json": (400, "/score", b"{", {}),
    "a-column-too-many": (400, "/score", {"data": [{"a": 1, "b": 2, "c": 3}]}, {}),
    "no-key": (401, "/score", BODY, {"authorization": "Bearer no"}),
    "no-deployment": (404, "/score", BODY, {"azureml-model-deployment": "no"}),
    "another-model": (404, "/v2/models/large/infer", TENSORS, {}),
    "no-body": (405, "/score", None, {}),
}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_form_and_every_refusal(tmp_path: Path, workers: int) -> None:
    before = dt.datetime.now(dt.UTC)
    with capturing(tmp_path, keyed(tmp_path, 1), workers) as server:
        for name, (path, body) in FORMS.items():
            status, _ = server.client().ask("POST", path, body, x_request_id=name)
            assert status == 200, name
        for name, (status, path, body, headers) in REFUSED.items():
            method = "GET" if body is None else "POST"
            asked = server.client().ask(method, path, body, x_request_id=name, **headers)
            assert asked[0] == status, name
        for path in ("/", "/metrics", "/v2/health/live", "/swagger.json"):
            assert server.client().ask("GET", path)[0] == 200
        assert server.client().ask("OPTIONS")[0] == 200
        assert server.client().ask(body={"metrics": True})[0] == 200
        with_keys = [
            {"data": [{"patient": 7, **RECORDS[0]}, {"visit": "x:y", **RECORDS[1]}]},
            {"input_data": {"columns": ["visit", "a", "b"], "data": [["x:y", 1.5, 2]]}},
            {"data": [{"a": 1.5, "b": 2, "patient": None}]},
        ]
        for number, body in enumerate(with_keys):
            assert server.client().score(body, f"key-{number}")[0] == 200
        wrong = {"data": [{**RECORDS[0], "patient": "seven"}]}
        status, answer = server.client().score(wrong, "wrong-key")
        assert (status, "column 'patient': wants an integer" in str(answer)) == (400, True)
        eventually(lambda: server.metric("mlops_captured_total")[""] == len(FORMS) + 6 + 4)
        assert server.metric("mlops_capture_dropped_total") == {}
        assert len(processes_of(server.folder, "scoring.worker ")) == workers
        for worker in processes_of(server.folder, "scoring.worker "):
            assert worker.memory_info().rss < 110e6
            assert not any("arrow" in mapped.path for mapped in worker.memory_maps())
        server.stop()
        rows = server.rows()
    assert len({row["mlops_time"] for row in rows}) == len(FORMS) + 6 + 4
    for row in rows:
        assert before <= row["mlops_time"] <= dt.datetime.now(dt.UTC)
        assert 0 < row["mlops_seconds"] < 30
    names = [f.name for f in KEYS]
    for name in FORMS:
        found = [row for row in rows if row["mlops_request"] == name]
        assert [row["mlops_row"] for row in found] == [0, 1]
        assert [(row["a"], row["b"]) for row in found] == SENT
        assert [row["mlops_prediction"] for row in found] == [1003.5, 997.0]
        for row in found:
            assert (row["mlops_deployment"], row["mlops_version"]) == (
                found[0]["mlops_deployment"],
                1,
            )
            assert row["mlops_deployment"]
            assert row["mlops_status"] == 200
            assert {row[name] for name in names} == {None}
    by_id = {row["mlops_request"]: row for row in rows}
    for name, (status, *_) in REFUSED.items():
        row = by_id[name]
        assert row["mlops_status"] == status
        assert {row[n] for n in ("a", "b", *names, "mlops_row", "mlops_prediction")} == {None}
    assert by_id["a-column-too-many"]["mlops_version"] == 1
    assert by_id["no-key"]["mlops_version"] is None
    keys = [
        (row["patient"], row["visit"], row["a"]) for row in rows if "key-" in row["mlops_request"]
    ]
    assert keys == [(7, None, 1.5), (None, "x:y", -3.0), (None, "x:y", 1.5), (None, None, 1.5)]


def test_every_type_labels_and_a_failure(tmp_path: Path) -> None:
    record = {
        "size": 60,
        "rooms": None,
        "new": True,
        "colour": "red",
        "seen": "2026-01-31T12:00:00+01:00",
    }
    with capturing(tmp_path / "wide", wide(tmp_path, 1)) as server:
        assert server.client().score({"data": [record]}, "one")[0] == 200
        server.stop()
        (row,) = server.rows()
    seen = dt.datetime(2026, 1, 31, 11)
    assert {n: row[n] for n in record} == {**record, "size": 60.0, "seen": seen}
    assert row["mlops_prediction"] == "true"
    with capturing(tmp_path / "broken", broken(tmp_path)) as server:
        assert server.client().score({"data": [{"a": 7, "b": 1}]}, "two")[0] == 500
        server.stop()
        (row,) = server.rows()
    assert (row["mlops_status"], row["mlops_version"], row["a"]) == (500, 1, None)


def test_a_share_is_of_whole_requests(tmp_path: Path) -> None:
    with capturing(tmp_path, keyed(tmp_path, 1), share=0.3) as server:
        client = server.client()
        for number in range(1000):
            assert client.score({"data": RECORDS}, str(number))[0] == 200
        server.stop()
        rows = server.rows()
    kept = {row["mlops_request"] for row in rows}
    # By chance outside once in a million times.
    assert 230 <= len(kept) <= 371
    assert len(rows) == 2 * len(kept)


PLANTED = "c4n4ry"


@pytest.mark.parametrize("only", [None, ("size",)])
def test_an_excluded_value_is_in_no_file(tmp_path: Path, only: tuple[str, ...] | None) -> None:
    version = exported_classifier(tmp_path / "bundles", ranges="warn")
    exclude = {"exclude": ("colour", "elsewhere")} if only is None else {"columns": only}
    with capturing(tmp_path / "state", version, rotate_seconds=0.3, **exclude) as server:
        client = server.client()

        def looked() -> None:
            for path in files_below(tmp_path / "state"):
                assert PLANTED.encode() not in path.read_bytes(), path

        for number in range(200):
            record = {"size": number, "colour": PLANTED}
            assert client.score({"data": [record]}, f"a{number}")[0] == 200
            client.score({"data": [{**record, PLANTED: PLANTED}]}, f"b{number}")
            client.score({"data": [record, {"size": PLANTED, "colour": PLANTED}]}, f"c{number}")
            if number % 20 == 0:
                looked()
        assert PLANTED not in str(client.ask("GET", "/metrics"))
        looked()
        for _ in range(10):  # spool and files as they come and go
            time.sleep(0.1)
            looked()
        server.process("capture").kill()  # what it left is looked at too
        time.sleep(0.5)
        looked()
        server.stop()
        looked()
        rows = server.rows()
    answered = [row for row in rows if row["mlops_status"] == 200]
    assert len(answered) >= 190
    assert all("colour" not in row and row["size"] is not None for row in answered)


def test_the_prediction_may_be_excluded(tmp_path: Path) -> None:
    with capturing(tmp_path, keyed(tmp_path, 1), exclude=("y",)) as server:
        server.client().score(BODY, "one")
        server.stop()
        (row,) = server.rows()
    assert "mlops_prediction" not in row
    assert row["a"] == 1.0


def test_files_rotate_by_time_and_by_size(tmp_path: Path) -> None:
    version = keyed(tmp_path, 1)
    with capturing(tmp_path / "time", version, rotate_seconds=0.5) as server:
        client = server.client()
        client.score(BODY, "one")
        eventually(lambda: len(server.rows()) == 1, 5)
        client.score(BODY, "two")
        eventually(lambda: len(server.rows()) == 2, 5)
        assert len([*server.captured.rglob("*.parquet")]) == 2
        first = min(server.captured.rglob("*.parquet"))
        moment = dt.datetime.strptime(
            f"{first.parent.name} {first.name[:6]}", "%Y-%m-%d %H%M%S"
        ).replace(tzinfo=dt.UTC)
        assert abs((server.rows()[0]["mlops_time"] - moment).total_seconds()) < 1
    with capturing(
        tmp_path / "size", version, rotate_seconds=3600, rotate_megabytes=0.05
    ) as server:
        client = server.client()
        many = {"data": [{"a": n / 7, "b": n % 10} for n in range(10)] * 60}
        for number in range(30):
            client.score(many, str(number))
            time.sleep(0.03)
        eventually(lambda: len([*server.captured.rglob("*.parquet")]) >= 2, 10)
        server.stop()
        assert len(server.rows()) == 30 * 600


def test_days_that_are_over_are_removed(tmp_path: Path) -> None:
    today = dt.datetime.now(dt.UTC).date()
    captured = tmp_path / "captured" / "staging" / "tiny"
    for age in (0, 2, 3, 400):
        day = captured / str(today - dt.timedelta(days=age))
        day.mkdir(parents=True)
        (day / "000000-a.parquet").write_bytes(b"")
        (day / ".000000-b.parquet.tmp").write_bytes(b"")
    (captured / "notes").mkdir()
    with capturing(tmp_path, keyed(tmp_path, 1), keep_days=2):
        eventually(lambda: len([*captured.iterdir()]) == 3)
        assert not [*captured.rglob("*.tmp")]
        assert [p.name for p in sorted(captured.rglob("*.parquet"))] == ["000000-a.parquet"] * 2


def test_another_version_is_another_file(tmp_path: Path) -> None:
    with capturing(tmp_path, regression(tmp_path, 1)) as server:
        server.client().score(BODY, "one")
        with server.endpoints.open("tiny", "staging", _settings(server.folder)) as target:
            staged = target.stage(wide(tmp_path, 2))
            target.promote(staged.name, 100)
        server.client().score({"data": [[60, None, True, "red", None]]}, "two")
        server.stop()
        files = [*server.captured.rglob("*.parquet")]
        rows = server.rows()
    assert len(files) == 2
    assert [row["mlops_version"] for row in rows[:2]] == [1, 2]
    assert (rows[0]["b"], rows[1]["rooms"]) == (2, None)


def _settings(folder: Path) -> Any:
    from mlops_assets.scoring.supervisor import read_settings

    return read_settings(folder)
