"""From raw files to a snapshot: checked file by file and as a whole, sorted, named by content.

Streams: memory is bounded by a batch of rows and by DuckDB's limit, whatever the data's size.
Knows nothing of Dagster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pq

from mlops_assets.contract import BATCH_ROWS, SHOWN, ContractError, Violation, write_checked
from mlops_assets.files import digest_json
from mlops_assets.spec import Data, Task
from resources.storage import StoredFile

# Its functions are made at run time, so that no type checker knows them.
pc: Any = pa_compute

#: DuckDB spills to disk beyond this.
MEMORY_LIMIT = "384MB"


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
    violations = write_checked(files, data, unsorted)
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
            f"COPY (SELECT * FROM read_parquet({_literal(unsorted)}) ORDER BY ALL) "
            f"TO {_literal(path)} "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {2 * BATCH_ROWS})"
        )
    unsorted.unlink()
    digest, rows = content_digest(path)
    return Snapshot(path, digest, rows)


# -- checking


def _whole_table_violations(
    database: duckdb.DuckDBPyConnection, path: Path, data: Data, task: Task
) -> list[Violation]:
    """What no single batch can show: too few rows, a key used twice, a target of one class."""
    table = f"read_parquet({_literal(path)})"
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


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


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
