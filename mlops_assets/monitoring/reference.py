"""The snapshot that a version was trained on, column by column in memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pq

from mlops_assets.monitoring.bins import Bins, categorical, name_of, numeric
from mlops_assets.monitoring.report import Kind
from mlops_assets.spec import Column

# Its functions are made at run time, so that no type checker knows them.
pc: Any = pa_compute

#: Of a larger snapshot each k-th row is read: its own noise is then far below any window's.
ROWS = 1_000_000


def kind_of(column: Column) -> Kind:
    """How a column's values are compared."""
    if column.type == "timestamp":
        return "time"
    if column.type in ("string", "boolean") or column.categories is not None:
        return "category"
    return "number"


def bins_of(path: Path, name: str, column: Column) -> Bins:
    """How a column of the snapshot is distributed."""
    values = pq.read_table(path, columns=[name]).column(0)
    every = -(-len(values) // ROWS)
    if every > 1:  # the snapshot is sorted, so each k-th row is a fair sample
        values = values.take(pa.array(np.arange(0, len(values), every)))
    return bins_of_values(values, column)


def bins_of_values(values: pa.ChunkedArray, column: Column) -> Bins:
    """How values are distributed, compared as the contract's type asks."""
    if kind_of(column) == "category":
        counts = {e["values"]: e["counts"] for e in pc.value_counts(values).to_pylist()}
        missing = counts.pop(None, 0) + counts.pop("", 0)
        return categorical(Counter({name_of(v): n for v, n in counts.items()}), missing)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return numeric(values.cast(pa.float64(), safe=False).to_numpy())
