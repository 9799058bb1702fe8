"""The snapshot as the training process sees it: rows, sides, targets, and samples as JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Feature
from mlops_assets.training.errors import TrainingProblem
from mlops_assets.training.split import held_out, holdout_digest, row_hashes

#: How many rows the bundle's sample holds.
SAMPLE_ROWS = 5


@dataclass(frozen=True)
class SplitRule:
    """How rows are held out; recorded with the evidence."""

    columns: list[str]
    salt: str
    fraction: float

    def mask(self, table: pa.Table) -> np.ndarray[Any, Any]:
        """True for the held-out rows of a table; KeyError for a column it does not have."""
        hashes = self.hashes(table)
        return held_out(hashes, self.fraction)

    def hashes(self, table: pa.Table) -> np.ndarray[Any, Any]:
        """A 64-bit hash per row."""
        columns = {name: table.column(name) for name in self.columns}
        return row_hashes(columns, self.columns, self.salt)


@dataclass(frozen=True)
class Side:
    """The rows on one side of the split."""

    table: pa.Table
    frame: pd.DataFrame
    target: np.ndarray[Any, Any]


def read_sides(
    path: Path, features: Sequence[Feature], target: str, task: str, rule: SplitRule
) -> tuple[Side, Side, str]:
    """Read a snapshot and part it.

    Returns:
        the rows to train on, the rows held out, and the digest of the latter.

    Raises:
        TrainingProblem: a side is empty, or a classifier has a single class to train on.
    """
    table = pq.read_table(path)
    hashes = rule.hashes(table)
    mask = held_out(hashes, rule.fraction)
    training = side_of(table.filter(pa.array(~mask)), features, target, task)
    holdout = side_of(table.filter(pa.array(mask)), features, target, task)
    for name, side in (("training", training), ("holdout", holdout)):
        if not len(side.target):
            raise TrainingProblem(
                "data",
                f"split: no row is left for the {name} side of {table.num_rows}; "
                f"change split.holdout ({rule.fraction}) or split.columns ({rule.columns})",
            )
    if task != "regression" and len(np.unique(training.target)) < 2:
        raise TrainingProblem(
            "data",
            f"{target}: one class only among the {len(training.target)} rows to train on: "
            f"{training.target.tolist()[0]!r}; change split.columns or split.salt, "
            "or bring more data",
        )
    return training, holdout, holdout_digest(hashes[mask])


def target_values(column: pa.ChunkedArray, task: str) -> np.ndarray[Any, Any]:
    """The target as scikit-learn wants it: float64, or labels of one type."""
    if task == "regression":
        return column.to_numpy().astype(np.float64)
    return np.array(column.to_pylist())


def side_of(table: pa.Table, features: Sequence[Feature], target: str, task: str) -> Side:
    """Rows as an estimator sees them; KeyError for a column that the table does not have."""
    columns = {feature.name: table.column(feature.name) for feature in features}
    return Side(table, to_frame(columns, features), target_values(table.column(target), task))


def sample_records(side: Side, names: Sequence[str], rows: list[int]) -> list[dict[str, Any]]:
    """Rows of a side, by number, as an application would send them."""
    records = side.table.select(list(names)).take(rows).to_pylist()
    return [{name: plain(value) for name, value in row.items()} for row in records]


def plain(value: Any) -> Any:
    """A cell as a JSON value."""
    return value.isoformat() if isinstance(value, dt.datetime) else value
