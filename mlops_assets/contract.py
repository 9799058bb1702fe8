"""The data contract: files read with its types, and checked batch by batch.

Streams: memory is bounded by a batch of rows. What no single batch can show is left to the
snapshot. Knows nothing of Dagster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa_pandas
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pandera.errors import SchemaErrors

from mlops_assets.spec import Column, Data
from resources.storage import StorageError, StoredFile

# Its functions are made at run time, so that no type checker knows them.
pc: Any = pa_compute

#: Bytes of CSV that are parsed at a time.
BLOCK_BYTES = 8 << 20
#: Rows of Parquet that are read at a time.
BATCH_ROWS = 65_536
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


def write_checked(files: Iterable[StoredFile], data: Data, to: Path) -> list[Violation]:
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


# -- reading


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
    except Exception as error:
        # Each file system raises exceptions of its own.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StorageError(
            f"{file.path}: reading failed near row {row}: {reason}; nothing was taken"
        ) from error


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
