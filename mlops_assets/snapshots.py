"""From raw files to a snapshot: read with the contract's types, checked, sorted, named by content.

Streams: memory is bounded by a batch of rows and by DuckDB's limit, whatever the data's size.
Knows nothing of Dagster.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pandera.pandas as pa_pandas
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pandera.errors import SchemaErrors

from mlops_assets.files import digest_json
from mlops_assets.spec import Column, Data, Task
from resources.storage import StoredFile

# Its functions are made at run time, so that no type checker knows them.
pc: Any = pa_compute

#: Bytes of CSV that are parsed at a time.
BLOCK_BYTES = 8 << 20
#: Rows of Parquet that are read at a time.
BATCH_ROWS = 65_536
#: DuckDB spills to disk beyond this.
MEMORY_LIMIT = "384MB"
#: Spellings of a missing value in CSV.
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
#: How many values of a violation are shown.
SHOWN = 5

_ARROW_TYPES = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}


@dataclass
class Violation:
    """One way in which one column breaks the contract."""

    column: str
    rule: str
    #: How many rows.
    count: int = 0
    #: The first values with their places, ``file:row``, data rows counted from 1.
    examples: list[str] = field(default_factory=list[str])

    def add(self, place: str, value: Any) -> None:
        """Count one row, and keep it as an example if there are few."""
        self.count += 1
        if len(self.examples) < SHOWN:
            shown = value.item() if hasattr(value, "item") else value  # numpy's repr names its type
            self.examples.append(f"{shown!r} at {place}")


class ContractError(Exception):
    """The data breaks the contract; nothing was published."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        lines = [
            f"{v.column}: {v.rule}"
            + (f" ({v.count} rows: {', '.join(v.examples)})" if v.count else "")
            for v in violations
        ]
        super().__init__("the data does not meet data.columns of model.yaml\n" + "\n".join(lines))


@dataclass(frozen=True)
class Snapshot:
    """A sorted Parquet file and the name that its content gives it."""

    path: Path
    #: SHA-256 over types and values; files' order, names and dates do not matter.
    digest: str
    rows: int


def take_snapshot(files: Iterable[StoredFile], data: Data, task: Task, folder: Path) -> Snapshot:
    """Read all files into one sorted Parquet file below ``folder``.

    Args:
        files: the files of one location.
        data: the contract.
        task: regression, binary or multiclass; a classifier's target must have two values.
        folder: an existing scratch folder; ``data.parquet`` is written there.

    Raises:
        ContractError: with every violation of every column.
    """
    unsorted = folder / "unsorted.parquet"
    violations = _write_checked(files, data, unsorted)
    if violations:
        raise ContractError(violations)
    with duckdb.connect(
        config={
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(folder / "spill"),
            "threads": 2,
        }
    ) as database:
        violations = _whole_table_violations(database, unsorted, data, task)
        if violations:
            raise ContractError(violations)
        path = folder / "data.parquet"
        database.execute(
            f"COPY (SELECT * FROM {_quoted_path(unsorted)} ORDER BY ALL) "
            f"TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {2 * BATCH_ROWS})"
        )
    unsorted.unlink()
    digest, rows = content_digest(path)
    return Snapshot(path, digest, rows)


# -- reading


def _write_checked(files: Iterable[StoredFile], data: Data, to: Path) -> list[Violation]:
    """Write every batch that meets the contract to ``to``; return what does not."""
    schema = pa.schema([(name, _ARROW_TYPES[c.type]) for name, c in data.columns.items()])
    pandera_schema = _pandera_schema(data)
    found: dict[tuple[str, str], Violation] = {}
    with pq.ParquetWriter(to, schema, compression="zstd") as writer:
        for file in files:
            row = 1
            for batch in _batches(file, data, schema, found):
                _check(batch, pandera_schema, file.name, row, found)
                row += batch.num_rows
                if not found:
                    writer.write_batch(batch)
    return list(found.values())


def _batches(
    file: StoredFile,
    data: Data,
    schema: pa.Schema,
    found: dict[tuple[str, str], Violation],
) -> Iterator[pa.RecordBatch]:
    """The file's rows in the contract's types and order; wrong columns and types go to found."""
    if file.size == 0:
        _add(found, file.name, "empty file (0 bytes); remove it, or upload it again")
        return
    read = _csv_batches if data.format == "csv" else _parquet_batches
    row = 1
    try:
        for raw in read(file):
            if row == 1 and not _same_columns(raw.schema.names, data, file.name, found):
                return
            yield _typed(raw.select(schema.names), data, file.name, row, found)
            row += raw.num_rows
    except pa.ArrowInvalid as error:
        _add(found, file.name, f"not readable as {data.format} near row {row}: {error}")


def _csv_batches(file: StoredFile) -> Iterator[pa.RecordBatch]:
    """All columns as text: one wrong value must not hide the others from the report."""
    with file.path.open("rb") as stream, pa.PythonFile(stream, mode="r") as source:
        header = pa_csv.open_csv(source, pa_csv.ReadOptions(block_size=1 << 20)).schema.names
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        null_values=MISSING,
        strings_can_be_null=True,
    )
    with file.path.open("rb") as stream, pa.PythonFile(stream, mode="r") as source:
        yield from pa_csv.open_csv(
            source,
            pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            pa_csv.ParseOptions(newlines_in_values=True),
            options,
        )


def _parquet_batches(file: StoredFile) -> Iterator[pa.RecordBatch]:
    with file.path.open("rb") as stream:
        yield from pq.ParquetFile(stream, pre_buffer=False).iter_batches(BATCH_ROWS)


def _same_columns(
    names: list[str], data: Data, file: str, found: dict[tuple[str, str], Violation]
) -> bool:
    declared = list(data.columns)
    repeated = sorted({name for name in names if names.count(name) > 1})
    for name in (name for name in declared if name not in names):
        _add(found, name, f"column missing in {file}, which has {', '.join(names)}")
    for name in (name for name in names if name not in declared):
        _add(found, name, f"column of {file} that data.columns does not declare")
    for name in repeated:
        _add(found, name, f"column written more than once in {file}")
    return not repeated and set(names) == set(declared)


def _typed(
    batch: pa.RecordBatch,
    data: Data,
    file: str,
    first_row: int,
    found: dict[tuple[str, str], Violation],
) -> pa.RecordBatch:
    """Cast each column to the contract's type; values that do not fit are reported, then null."""
    columns: list[pa.Array] = []
    for name, column in data.columns.items():
        wanted = _ARROW_TYPES[column.type]
        values = batch.column(name)
        try:
            typed = _cast(values, wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            typed = _cast_reporting(values, wanted, name, column, file, first_row, found)
        columns.append(_canonical(typed))
    return pa.record_batch(columns, names=list(data.columns))


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if wanted == pa.bool_() and pa.types.is_string(values.type):
        values = pc.utf8_lower(values)  # pandas writes True, others true
    if pa.types.is_timestamp(values.type) and values.type.tz:
        values = values.cast(pa.timestamp("us", tz="UTC"))
        return values.cast(wanted)
    return values.cast(wanted)


def _cast_reporting(
    values: pa.Array,
    wanted: pa.DataType,
    name: str,
    column: Column,
    file: str,
    first_row: int,
    found: dict[tuple[str, str], Violation],
) -> pa.Array:
    rule = f"not of type {column.type}"
    fitting: list[Any] = []
    for offset in range(len(values)):
        one = values.slice(offset, 1)
        try:
            fitting.append(_cast(one, wanted)[0].as_py())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            fitting.append(None)
            violation = found.setdefault((name, rule), Violation(name, rule))
            violation.add(f"{file}:{first_row + offset}", one[0].as_py())
    return pa.array(fitting, wanted)


def _canonical(values: pa.Array) -> pa.Array:
    """One spelling of each value: no NaN beside null, no minus zero."""
    if not pa.types.is_floating(values.type):
        return values
    without_nan = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return pc.add(without_nan, 0.0)


def _add(found: dict[tuple[str, str], Violation], column: str, rule: str) -> None:
    found.setdefault((column, rule), Violation(column, rule))


# -- checking


def _pandera_schema(data: Data) -> pa_pandas.DataFrameSchema:
    def column(spec: Column) -> pa_pandas.Column:
        checks: list[pa_pandas.Check] = []
        if spec.minimum is not None:
            checks.append(pa_pandas.Check.ge(spec.minimum, error=f"below minimum {spec.minimum}"))
        if spec.maximum is not None:
            checks.append(pa_pandas.Check.le(spec.maximum, error=f"above maximum {spec.maximum}"))
        if spec.type == "float":
            checks.append(pa_pandas.Check(_finite, error="infinite"))
        if spec.categories is not None:
            rule = f"not one of {', '.join(map(str, spec.categories))}"
            checks.append(pa_pandas.Check.isin(spec.categories, error=rule))
        return pa_pandas.Column(checks=checks, nullable=spec.nullable)

    return pa_pandas.DataFrameSchema({n: column(c) for n, c in data.columns.items()})


def _finite(values: pd.Series[float]) -> pd.Series[bool]:
    return values.abs() != math.inf


def _check(
    batch: pa.RecordBatch,
    schema: pa_pandas.DataFrameSchema,
    file: str,
    first_row: int,
    found: dict[tuple[str, str], Violation],
) -> None:
    # Integers with missing values stay integers: as floats, 2**53 + 1 would be another number.
    frame = batch.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        for case in errors.failure_cases.itertuples(index=False):
            rule = "missing" if case.check == "not_nullable" else str(case.check)
            if rule == "missing" and (case.column, _type_rule(found, case.column)) in found:
                continue  # null only because its value had the wrong type
            violation = found.setdefault((case.column, rule), Violation(case.column, rule))
            violation.add(f"{file}:{first_row + int(case.index)}", case.failure_case)


def _type_rule(found: dict[tuple[str, str], Violation], column: str) -> str:
    return next((r for c, r in found if c == column and r.startswith("not of type")), "")


def _whole_table_violations(
    database: duckdb.DuckDBPyConnection, path: Path, data: Data, task: Task
) -> list[Violation]:
    """What no single batch can show: too few rows, a key used twice, a target of one class."""
    table = _quoted_path(path)
    found: list[Violation] = []
    (rows,) = _row(database, f"SELECT count(*) FROM {table}")
    if rows < data.minimum_rows:
        rule = f"{rows} rows, data.minimum_rows is {data.minimum_rows}"
        return [Violation("(all)", rule)]
    keys = ", ".join(_quoted(name) for name in data.key)
    repeated = database.execute(
        f"SELECT {keys}, count(*) AS times FROM {table} GROUP BY {keys} HAVING count(*) > 1 "
        f"ORDER BY ALL LIMIT {SHOWN}"
    ).fetchall()
    if repeated:
        violation = Violation(" + ".join(data.key), "key not unique")
        violation.examples = [f"{row[:-1]!r} {row[-1]} times" for row in repeated]
        (violation.count,) = _row(
            database,
            f"SELECT count(*) FROM (SELECT {keys} FROM {table} GROUP BY {keys} "
            "HAVING count(*) > 1)",
        )
        found.append(violation)
    target = _quoted(data.target)
    (distinct,) = _row(database, f"SELECT count(DISTINCT {target}) FROM {table}")
    if distinct < 2:
        (value,) = _row(database, f"SELECT min({target}) FROM {table}")
        what = "one class only" if task != "regression" else "one value only"
        found.append(Violation(data.target, f"target has {what}: {value!r}"))
    elif task == "binary" and distinct != 2:
        found.append(Violation(data.target, f"target has {distinct} classes, task is binary"))
    return found


def _row(database: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    return database.execute(query).fetchall()[0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted_path(path: Path) -> str:
    return "read_parquet('" + str(path).replace("'", "''") + "')"


# -- naming


def content_digest(path: Path) -> tuple[str, int]:
    """SHA-256 over names, types and values of a Parquet file in its order, and its rows.

    Independent of the writer, its version, compression and row groups: each column's values,
    validity and text lengths run through hashes of their own.
    """
    # Read ahead, the whole file would be in memory.
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    schema = file.schema_arrow
    hashes = {name: [hashlib.sha256() for _ in range(3)] for name in schema.names}
    rows = 0
    for batch in file.iter_batches(BATCH_ROWS):
        rows += batch.num_rows
        for name in schema.names:
            for state, part in zip(hashes[name], _parts(batch.column(name)), strict=True):
                state.update(part)
    columns = [
        [name, str(schema.field(name).type), *(state.hexdigest() for state in hashes[name])]
        for name in schema.names
    ]
    return digest_json({"rows": rows, "columns": columns}), rows


def _parts(values: pa.Array) -> tuple[bytes, bytes, bytes]:
    """Values with nulls as zero, validity as one byte per row, lengths of text."""
    valid = values.is_valid().cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_string(values.type):
        text = values.fill_null("")
        lengths = pc.binary_length(text).to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        _, offsets, data = text.buffers()
        if data is None or not len(text):
            return b"", valid, lengths
        ends = memoryview(offsets).cast("i")
        data = memoryview(data)[ends[text.offset] : ends[text.offset + len(text)]]
        return bytes(data), valid, lengths
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    zero = False if pa.types.is_boolean(values.type) else 0
    return values.fill_null(zero).to_numpy(zero_copy_only=False).tobytes(), valid, b""
