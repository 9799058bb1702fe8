"""Rows of a window that are equal: how many, and each counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlops_assets.monitoring.window import Window, quoted
from mlops_assets.scoring.capture.settings import PREDICTION

#: Rows whose repetitions are looked at; a window with more of them is sampled.
SAMPLE = 200_000
#: Below this share of different rows a window's repeated rows count once.
DISTINCT = 0.95


@dataclass(frozen=True)
class Repeats:
    """How often rows are equal, in a sample that holds all copies of its rows."""

    rows: int
    #: Different rows per row.
    distinct: float
    #: Pairs of equal rows in the sample, and how many pairs stand for one of them.
    equal: int
    each: int

    @property
    def pairs(self) -> float:
        """Of all rows, as many as the sample has of its own."""
        return self.rows * (self.rows - 1) / 2 / self.each


def repeats(window: Window, columns: Sequence[str]) -> Repeats:
    """Count equal rows; of two that are equal in some columns, by a hash of those."""
    rows = window.rows
    every = max(1, rows // SAMPLE)
    seen, different, equal = window.one(
        "SELECT coalesce(sum(mlops_copies), 0), count(*), "
        "coalesce(sum(mlops_copies * (mlops_copies - 1) // 2), 0) FROM "
        f"(SELECT mlops_hash, count(*) AS mlops_copies FROM (SELECT {_hash(columns)} AS mlops_hash "
        f"FROM {window.source(window.files)}) WHERE mlops_hash % {every} = 0 GROUP BY mlops_hash)"
    )
    return Repeats(rows, different / seen if seen else 1.0, int(equal), every)


def count_repeated_once(window: Window, columns: Sequence[str]) -> None:
    """Keep one of each set of equal rows; rows without any value are kept all.

    A client that asks the same again brings no new row, and a thousand copies are no distribution.
    """
    every = max(1, window.rows // SAMPLE)
    own = [name for name in ("mlops_request", PREDICTION) if window.holding(name)]
    names = ", ".join(quoted(n) for n in [*columns, *own])
    empty = " AND ".join(f"{quoted(name)} IS NULL" for name in columns)
    window.database.execute(
        f"CREATE TEMP TABLE mlops_once AS SELECT DISTINCT ON (mlops_hash, mlops_empty) * FROM ("
        f"SELECT {names}, {_hash(columns)} AS mlops_hash, CASE WHEN {empty} THEN row_number() "
        f"OVER () ELSE 0 END AS mlops_empty FROM {window.source(window.files)}) "
        f"WHERE mlops_empty > 0 OR mlops_hash % {every} = 0"
    )
    window.table = "mlops_once"


def _hash(columns: Sequence[str]) -> str:
    return f"hash({', '.join(quoted(name) for name in columns)})"
