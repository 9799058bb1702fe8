import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from mlops_assets.contract import ContractError
from mlops_assets.snapshots import Snapshot, content_digest, take_snapshot
from mlops_assets.spec import Data, Task
from resources.storage import StoredFile

COLUMNS = {
    "patient": {"type": "integer"},
    "age": {"type": "integer", "minimum": 0, "maximum": 120, "nullable": True},
    "sex": {"type": "string", "categories": ["female", "male"], "nullable": True},
    "smoker": {"type": "boolean"},
    "seen": {"type": "timestamp"},
    "progression": {"type": "float"},
}
HEADER = ",".join(COLUMNS)


def contract(**changes: object) -> Data:
    return Data.model_validate(
        {
            "location": "diabetes",
            "key": ["patient"],
            "target": "progression",
            "columns": COLUMNS,
            "minimum_rows": 2,
            **changes,
        }
    )


def row(i: int, **changes: object) -> str:
    values = {
        "patient": i,
        "age": 20 + i % 60,
        "sex": ("female", "male", "")[i % 3],
        "smoker": ("true", "False")[i % 2],
        "seen": "2024-05-01T12:00:00",
        "progression": i * 1.5,
    }
    return ",".join(str(value) for value in {**values, **changes}.values())


def files(folder: Path, *parts: list[str], header: str = HEADER) -> list[StoredFile]:
    folder.mkdir(parents=True, exist_ok=True)
    found: list[StoredFile] = []
    for number, rows in enumerate(parts):
        path = folder / f"part-{number}.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        found.append(StoredFile(UPath(path), path.stat().st_size))
    return found


def snapshot(
    folder: Path, *parts: list[str], task: Task = "regression", **changes: object
) -> Snapshot:
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return take_snapshot(files(folder, *parts), contract(**changes), task, folder / "out")


def violations(folder: Path, *parts: list[str], **options: object) -> str:
    with pytest.raises(ContractError) as caught:
        snapshot(folder, *parts, **options)  # type: ignore[arg-type]
    assert not (folder / "out" / "data.parquet").exists()
    return str(caught.value)


def test_values_arrive_in_the_types_of_the_contract(tmp_path: Path) -> None:
    taken = snapshot(tmp_path, [row(i) for i in range(9)])
    table = pq.read_table(taken.path)
    assert [str(field.type) for field in table.schema] == [
        "int64",
        "int64",
        "string",
        "bool",
        "timestamp[us]",
        "double",
    ]
    assert taken.rows == 9
    assert table.column("sex").null_count == 3
    assert table.column("smoker").to_pylist()[:2] == [True, False]


def test_a_folder_may_have_a_quote_in_its_name(tmp_path: Path) -> None:
    taken = snapshot(tmp_path / "it's", [row(i) for i in range(9)])
    assert taken.path == tmp_path / "it's" / "out" / "data.parquet"
    assert (taken.rows, pq.read_table(taken.path).num_rows) == (9, 9)


@given(st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_order_and_files_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, shuffle: random.Random, count: int
) -> None:
    rows = [row(i) for i in range(30)]
    one = snapshot(tmp_path_factory.mktemp("one"), rows)
    shuffle.shuffle(rows)
    parts = [rows[i::count] for i in range(count)]
    other = snapshot(tmp_path_factory.mktemp("other"), *parts)
    assert one.digest == other.digest
    assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize(
    "change", [{"age": 99}, {"sex": "male"}, {"progression": 0.1}, {"age": ""}, {"patient": 77}]
)
def test_any_changed_value_is_another_snapshot(tmp_path: Path, change: dict[str, object]) -> None:
    rows = [row(i) for i in range(9)]
    one = snapshot(tmp_path / "one", rows)
    other = snapshot(tmp_path / "other", [row(0, **change), *rows[1:]])
    assert one.digest != other.digest


def test_text_cannot_move_between_rows_unseen(tmp_path: Path) -> None:
    def digest(names: list[str]) -> str:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.table({"name": names}), path)
        return content_digest(path)[0]

    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_the_digest_does_not_depend_on_row_groups(tmp_path: Path) -> None:
    table = pa.table({"x": list(range(1000)), "name": [str(i) for i in range(1000)]})
    for size in (1000, 7):
        pq.write_table(table, tmp_path / f"{size}.parquet", row_group_size=size)
    assert content_digest(tmp_path / "7.parquet") == content_digest(tmp_path / "1000.parquet")


def test_every_violation_is_reported_with_count_values_and_rows(tmp_path: Path) -> None:
    rows = [row(i) for i in range(20)]
    rows[3] = row(3, age=130, sex="m")
    rows[4] = row(4, age=-1)
    rows[5] = row(5, progression="high")
    rows[6] = row(6, smoker="")
    message = violations(tmp_path, rows[:10], rows[10:])
    assert "age: above maximum 120.0 (1 rows: 130 at part-0.csv:4)" in message
    assert "age: below minimum 0.0 (1 rows: -1 at part-0.csv:5)" in message
    assert "sex: not one of female, male (1 rows: 'm' at part-0.csv:4)" in message
    assert "progression: not of type float (1 rows: 'high' at part-0.csv:6)" in message
    assert "smoker: missing (1 rows" in message
    assert "progression: missing" not in message


def test_many_violations_show_the_first_values(tmp_path: Path) -> None:
    message = violations(tmp_path, [row(i, age=200 + i) for i in range(30)])
    assert "(30 rows: 200 at part-0.csv:1, 201 at part-0.csv:2" in message
    assert "206" not in message


def test_columns_missing_extra_and_repeated(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    header = HEADER.replace("age", "years").replace("sex", "smoker")
    with pytest.raises(ContractError) as caught:
        take_snapshot(
            files(tmp_path, [row(1)], header=header), contract(), "regression", tmp_path / "out"
        )
    message = str(caught.value)
    assert "age: column missing in part-0.csv, which has patient, years" in message
    assert "years: column of part-0.csv that data.columns does not declare" in message
    assert "smoker: column written more than once" in message


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    good = files(tmp_path, [row(i) for i in range(5)])
    empty = tmp_path / "broken.csv"
    empty.write_bytes(b"")
    with pytest.raises(ContractError, match=r"broken\.csv: empty file"):
        take_snapshot(
            [*good, StoredFile(UPath(empty), 0)], contract(), "regression", tmp_path / "out"
        )


def test_a_line_with_a_field_too_many_is_an_error(tmp_path: Path) -> None:
    assert "not readable as csv" in violations(tmp_path, [row(1), row(2) + ",7"])


def test_a_target_without_values(tmp_path: Path) -> None:
    assert "progression: missing (9 rows" in violations(
        tmp_path, [row(i, progression="") for i in range(9)]
    )


def test_a_target_with_one_value(tmp_path: Path) -> None:
    assert "progression: target has one value only: 2.0" in violations(
        tmp_path, [row(i, progression=2) for i in range(9)]
    )


def test_a_classifier_wants_classes(tmp_path: Path) -> None:
    rows = [row(i) for i in range(12)]
    columns = {**COLUMNS, "sex": {"type": "string"}}
    changes = {"target": "sex", "columns": columns, "key": ["patient"]}
    one = [row(i, sex="male") for i in range(9)]
    message = violations(tmp_path / "1", one, task="multiclass", **changes)
    assert "sex: target has one class only: 'male'" in message
    three = [row(i, sex="abc"[i % 3]) for i in range(9)]
    message = violations(tmp_path / "2", three, task="binary", **changes)
    assert "sex: target has 3 classes, task is binary" in message
    snapshot(
        tmp_path / "3", [r.replace(",,", ",other,") for r in rows], task="multiclass", **changes
    )


def test_a_key_names_one_row(tmp_path: Path) -> None:
    message = violations(tmp_path, [row(i) for i in range(9)], [row(3), row(4)])
    assert "patient: key not unique (2 rows: (3,) 2 times, (4,) 2 times)" in message


def test_too_few_rows(tmp_path: Path) -> None:
    assert "3 rows, data.minimum_rows is 10" in violations(
        tmp_path, [row(i) for i in range(3)], minimum_rows=10
    )


def test_parquet_and_csv_of_the_same_rows_are_the_same_snapshot(tmp_path: Path) -> None:
    rows = [row(i) for i in range(9)]
    from_csv = snapshot(tmp_path / "csv", rows)
    folder = tmp_path / "parquet"
    (folder / "out").mkdir(parents=True)
    backwards = pq.read_table(from_csv.path).take(list(reversed(range(9))))
    pq.write_table(backwards, folder / "a.parquet")
    stored = StoredFile(UPath(folder / "a.parquet"), 1)
    taken = take_snapshot([stored], contract(format="parquet"), "regression", folder / "out")
    assert taken.digest == from_csv.digest
