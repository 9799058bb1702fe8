"""Labels as people write them, and the predictions that they find."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.monitoring import labels as labels_module
from mlops_assets.monitoring.labels import PREDICTED, TARGET, Joined, Labelled, join
from mlops_assets.monitoring.window import open_window
from mlops_assets.spec import ModelSpec, Task
from tests.monitoring.windows import NOW, captured, model

SPEC = model({"x": "{type: float}", "side": "{type: string}"}, "slices: [side]", "binary")
WISH = {0: "a", 1: "b", 2: "a", 3: "b"}


def joined(
    folder: Path,
    files: dict[str, str | bytes | pa.Table],
    *,
    spec: ModelSpec = SPEC,
    keys: Sequence[Any] = tuple(WISH),
    predictions: Sequence[Any] = tuple(WISH.values()),
    window: Sequence[Path] | None = None,
) -> Joined:
    """What label files find in a window of rows with keys and predictions."""
    if window is None:
        n = len(keys)
        rows = {"id": keys, "x": [0.5] * n, "side": ["left"] * n}
        window = [captured(folder / "w.parquet", rows, predictions)]
    kind: Literal["csv", "parquet"] = "csv"
    for name, content in files.items():
        if isinstance(content, pa.Table):
            pq.write_table(content, folder / name)
            kind = "parquet"
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with open_window(window, folder, 1) as opened:
        return join(opened, Labelled([folder / name for name in files], window, kind), spec)


def pairs(found: Joined) -> list[tuple[Any, Any]]:
    table = found.table
    return sorted(zip(*(table.column(n).to_pylist() for n in (TARGET, PREDICTED)), strict=True))


RIGHT = sorted((value, value) for value in WISH.values())


def lines(labels: dict[int, str], key: str = "{}") -> str:
    return "id,y\n" + "".join(f"{key.format(k)},{v}\n" for k, v in labels.items())


@pytest.mark.parametrize("key", ["{}", "{}.0", " {}", '"{}"'])
def test_a_key_is_a_value_not_its_spelling(tmp_path: Path, key: str) -> None:
    assert pairs(joined(tmp_path, {"l.csv": lines(WISH, key)})) == RIGHT


def test_a_key_is_not_rounded(tmp_path: Path) -> None:
    found = joined(tmp_path, {"l.csv": lines(WISH, "{}.4")})
    assert pairs(found) == []


def test_keys_of_parquet_files_may_have_several_types(tmp_path: Path) -> None:
    files = {
        "1.parquet": pa.table({"id": pa.array([0, 1], pa.int64()), "y": ["a", "b"]}),
        "2.parquet": pa.table({"id": pa.array([2.0, 3.0]), "y": ["a", "b"]}),
    }
    assert pairs(joined(tmp_path, dict(files))) == RIGHT


@pytest.mark.parametrize("spelled", ["{:%Y-%m-%d %H:%M:%S}", "{:%Y-%m-%dT%H:%M:%S}"])
def test_times_as_keys(tmp_path: Path, spelled: str) -> None:
    spec = SPEC.model_copy(deep=True)
    spec.data.columns["id"] = spec.data.columns["id"].model_copy(update={"type": "timestamp"})
    times = [dt.datetime(2026, 1, 1, n) for n in range(4)]
    text = "id,y\n" + "".join(f"{spelled.format(times[k])},{v}\n" for k, v in WISH.items())
    assert pairs(joined(tmp_path, {"l.csv": text}, spec=spec, keys=times)) == RIGHT
    zoned = pa.array(times, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({"id": zoned, "y": list(WISH.values())})
    assert pairs(joined(tmp_path, {"l.parquet": table}, spec=spec, keys=times)) == RIGHT


@pytest.mark.parametrize("spelled", ["", "NA", "NaN", "null"])
def test_what_is_missing_in_data_is_no_label(tmp_path: Path, spelled: str) -> None:
    found = joined(tmp_path, {"l.csv": lines({**WISH, 1: spelled})})
    assert pairs(found) == [("a", "a"), ("a", "a"), ("b", "b")]
    assert found.labelled == 3


@pytest.mark.parametrize("spelled", ["NaN", "inf", "-Infinity", "much"])
def test_a_number_that_is_none_spoils_no_other(tmp_path: Path, spelled: str) -> None:
    spec = model({"x": "{type: float}", "side": "{type: string}"})
    text = f"id,y\n0,1.5\n1,{spelled}\n2,2\n"
    found = joined(tmp_path, {"l.csv": text}, spec=spec, predictions=[1.0, 2.0, 3.0, 4.0])
    assert pairs(found) == [(1.5, 1.0), (2.0, 3.0)]


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "False"), ("1", "0")])
def test_booleans(tmp_path: Path, yes: str, no: str) -> None:
    spec = SPEC.model_copy(deep=True)
    spec.data.columns["y"] = spec.data.columns["y"].model_copy(update={"type": "boolean"})
    text = lines({k: yes if v == "a" else no for k, v in WISH.items()})
    predictions = ["true" if v == "a" else "false" for v in WISH.values()]
    found = joined(tmp_path, {"l.csv": text}, spec=spec, predictions=predictions)
    assert pairs(found) == sorted((v, v) for v in predictions)


def test_classes_that_are_numbers(tmp_path: Path) -> None:
    spec = SPEC.model_copy(deep=True)
    spec.data.columns["y"] = spec.data.columns["y"].model_copy(update={"type": "integer"})
    found = joined(tmp_path, {"l.csv": "id,y\n0,1\n1,0\n"}, spec=spec, predictions=["1"] * 4)
    assert pairs(found) == [(0, 1), (1, 1)]


def test_a_target_of_whole_numbers_is_predicted_by_any(tmp_path: Path) -> None:
    spec = model({"x": "{type: float}", "side": "{type: string}"})
    spec.data.columns["y"] = spec.data.columns["y"].model_copy(update={"type": "integer"})
    found = joined(tmp_path, {"l.csv": "id,y\n0,2\n"}, spec=spec, predictions=[2.4] * 4)
    assert pairs(found) == [(2.0, 2.4)]


def test_the_last_label_of_a_row_counts(tmp_path: Path) -> None:
    n = 30_000
    wrong = lines(dict.fromkeys(range(n), "b"))
    right = lines(dict.fromkeys(range(n), "a"))
    for _ in range(3):
        found = joined(
            tmp_path,
            {"0.csv": wrong + right[5:], "1.csv": wrong, "2.csv": right},
            keys=range(n),
            predictions=["a"] * n,
        )
        assert pairs(found) == [("a", "a")] * n


BAD = {
    "bytes of another encoding": b"id,y\n1,\xe9\n",
    "a row with more": lines(dict.fromkeys(range(25000), "a")).encode() + b"1,a,Planted\n",
    "nothing": b"",
    "no column y": b"id,z\n1,a\n",
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_read_is_named_and_left_out(tmp_path: Path, content: bytes) -> None:
    found = joined(tmp_path, {"bad.csv": content, "good.csv": lines(WISH)})
    assert pairs(found) == RIGHT
    (said,) = found.unreadable
    assert said.startswith("bad.csv: ")
    assert "Planted" not in said
    alone = joined(tmp_path, {"bad.csv": content})
    assert (alone.labelled, alone.problem) == (0, f"no labels can be read: {said}")


def test_half_a_parquet_file(tmp_path: Path) -> None:
    table = pa.table({"id": list(WISH), "y": list(WISH.values())})
    pq.write_table(table, tmp_path / "whole.parquet")
    (tmp_path / "half.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:200])
    window = captured(
        tmp_path / "w.parquet", {"id": list(WISH), "x": [0.5] * 4}, list(WISH.values())
    )
    with open_window([window], tmp_path, 1) as opened:
        files = [tmp_path / "half.parquet", tmp_path / "whole.parquet"]
        found = join(opened, Labelled(files, [window], "parquet"), SPEC)
    assert pairs(found) == RIGHT
    assert [said.partition(":")[0] for said in found.unreadable] == ["half.parquet"]


def test_many_labels_of_old_hide_none_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "ROWS", 10)
    old = dict.fromkeys(range(100, 5000), "b")
    found = joined(tmp_path, {"l.csv": lines({**old, **WISH})})
    assert pairs(found) == RIGHT
    assert found.labelled == 4904


def test_labels_of_rows_that_nobody_asked(tmp_path: Path) -> None:
    found = joined(tmp_path, {"l.csv": lines({100: "a", 101: "b"})})
    assert found.problem == "none of 2 labelled rows has the key of a request that was captured"


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_names_that_queries_use_too(tmp_path: Path, task: Task) -> None:
    """A slice, and the key, may be called anything but what capture keeps for itself."""
    names = ["target", "predicted", "h", "n", "request", "k0", "l_side", 'a "b"', "labelled"]
    columns = {f"'{name}'": "{type: string}" for name in names}
    spec = model(columns, f"slices: [{', '.join(repr(name) for name in names)}]", task)
    own = {"id": [0, 1], **{name: ["left", "right"] for name in names}}
    predictions = ["a", "b"] if task == "binary" else [1.0, 2.0]
    window = [captured(tmp_path / "w.parquet", own, predictions)]
    text = "id,y\n" + "".join(f"{k},{v}\n" for k, v in enumerate(predictions))
    found = joined(tmp_path, {"l.csv": text}, spec=spec, window=window)
    assert pairs(found) == [(v, v) for v in predictions]
    for name in names:
        assert sorted(found.table.column(name).to_pylist()) == ["left", "right"]


def test_slices_come_with_the_prediction(tmp_path: Path) -> None:
    """Of the same request; rows of files without the column have none, and stay."""
    early, late = NOW - dt.timedelta(hours=2), NOW - dt.timedelta(hours=1)
    window = [
        captured(tmp_path / "1.parquet", {"id": [0, 1], "side": ["left"] * 2}, ["b"] * 2, at=early),
        captured(
            tmp_path / "2.parquet", {"id": [0], "side": pa.nulls(1, pa.string())}, ["a"], at=late
        ),
        captured(tmp_path / "3.parquet", {"id": [2, 3]}, ["a", "b"], at=late),
        captured(tmp_path / "4.parquet", {"side": ["left"]}, ["a"], at=late),
    ]
    found = joined(tmp_path, {"l.csv": lines(WISH)}, window=window)
    assert pairs(found) == RIGHT
    assert found.table.column("side").to_pylist().count(None) == 3


def test_what_another_version_answered_is_not_joined(tmp_path: Path) -> None:
    window = [captured(tmp_path / "w.parquet", {"id": [0, 1]}, ["a", "b"], version=2)]
    found = joined(tmp_path, {"l.csv": lines(WISH)}, window=window)
    assert "no request carried the key id" in found.problem
    assert pairs(found) == []


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("maximum: 1000", "1e12"),
        ("minimum: 0", "-1"),
        ("minimum: 0", "much"),
        ("maximum: 9", "inf"),
    ],
)
def test_a_number_that_the_contract_does_not_allow_is_left_out(
    tmp_path: Path, column: str, label: str
) -> None:
    spec = model({"x": "{type: float}"})
    name, _, value = column.partition(": ")
    wanted = {name: float(value)}
    spec.data.columns["y"] = spec.data.columns["y"].model_copy(update=wanted)
    text = f"id,y\n0,1\n1,{label}\n2,3\n"
    found = joined(tmp_path, {"l.csv": text}, spec=spec, predictions=[1.0, 2.0, 3.0, 4.0])
    assert pairs(found) == [(1.0, 1.0), (3.0, 3.0)]
    assert (found.labelled, found.unfit) == (2, 1)


def test_a_misspelt_class_is_left_out(tmp_path: Path) -> None:
    spec = SPEC.model_copy(deep=True)
    wanted = {"categories": ["a", "b"]}
    spec.data.columns["y"] = spec.data.columns["y"].model_copy(update=wanted)
    found = joined(tmp_path, {"l.csv": lines({**WISH, 1: "B", 2: 'a"x'})}, spec=spec)
    assert pairs(found) == [("a", "a"), ("b", "b")]
    assert (found.labelled, found.unfit) == (2, 2)
    nothing = joined(tmp_path, {"l.csv": lines({0: "x", 1: "y"})}, spec=spec)
    assert nothing.problem == "none of 2 labels is as model.yaml describes y"


def test_a_label_that_is_taken_back_is_none(tmp_path: Path) -> None:
    found = joined(tmp_path, {"0.csv": lines(WISH), "1.csv": lines({0: ""})})
    assert pairs(found) == [("a", "a"), ("b", "b"), ("b", "b")]


def test_a_correction_need_not_repeat_the_slices(tmp_path: Path) -> None:
    window = [captured(tmp_path / "w.parquet", {"id": list(WISH)}, list(WISH.values()))]
    files = {"0.csv": "id,y,side\n0,b,left\n1,b,right\n", "1.csv": "id,y\n0,a\n"}
    found = joined(tmp_path, dict(files), window=window)
    assert pairs(found) == [("a", "a"), ("b", "b")]
    assert sorted(found.table.column("side").to_pylist()) == ["left", "right"]
