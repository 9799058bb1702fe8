"""Whether columns of one snapshot are distributed as in another.

The population stability index of two samples of n and m rows over k bins is, when nothing moved,
about ``(1/n + 1/m)`` times a chi-squared variable with ``k - 1`` degrees of freedom
(Yurdakul and Naranjo 2020). So each column is judged against its own sampling noise, not against
a fixed limit that cries wolf on a hundred rows and sleeps on a million.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.stability import stability_index

#: Chance of one false alarm over all columns of a table in which nothing moved.
FALSE_ALARMS = 0.01
#: A move smaller than this changes no decision, however significant millions of rows make it.
LEAST_PSI = 0.02
#: Bins of a numeric column, at the quantiles of the reference.
BINS = 10
#: Values of a text column with a bin of their own; the rest share one.
CATEGORIES = 30


@dataclass(frozen=True)
class ColumnDrift:
    """How far one column moved: PSI, without unit, and the greatest that chance explains."""

    column: str
    psi: float
    limit: float

    @property
    def moved(self) -> bool:
        """Whether chance does not explain the difference."""
        return self.psi > self.limit


def drift(reference: Path, current: Path, columns: list[str]) -> list[ColumnDrift]:
    """Compare columns of two Parquet files, one column in memory at a time.

    Args:
        reference: the file that things should be as in.
        current: the file that is judged.
        columns: names that both files have; one that is missing in either is passed over.
    """
    shared = set(pq.read_schema(reference).names) & set(pq.read_schema(current).names)
    judged = [name for name in columns if name in shared]
    return [
        _column(name, _read(reference, name), _read(current, name), len(judged)) for name in judged
    ]


def _read(path: Path, column: str) -> np.ndarray[Any, Any]:
    values = pq.read_table(path, columns=[column]).column(0)
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        values = values.cast(pa.float64(), safe=False)  # so that a missing value is NaN
    return values.to_numpy()


def _column(
    name: str, reference: np.ndarray[Any, Any], current: np.ndarray[Any, Any], columns: int
) -> ColumnDrift:
    from scipy.special import chdtri  # not with the module: a third of a second

    before, after = _counts(reference, current)
    psi = stability_index(before.tolist(), after.tolist())
    chance = FALSE_ALARMS / columns
    noise = (1 / before.sum() + 1 / after.sum()) * chdtri(len(before) - 1, chance)
    return ColumnDrift(name, psi, max(float(noise), LEAST_PSI))


def _counts(
    reference: np.ndarray[Any, Any], current: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows per bin on both sides; missing values have a bin of their own."""
    if reference.dtype.kind in "fiub":
        return _numeric_counts(reference.astype(float), current.astype(float))
    if reference.dtype.kind == "M":
        return _numeric_counts(_seconds(reference), _seconds(current))
    names, counts = np.unique(reference.astype(str), return_counts=True)
    kept = names[np.argsort(-counts)[:CATEGORIES]]
    return _text_counts(reference.astype(str), kept), _text_counts(current.astype(str), kept)


def _seconds(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    numbers = values.astype("datetime64[us]").astype(float) / 1e6
    return np.where(np.isnat(values), np.nan, numbers)


def _numeric_counts(
    reference: np.ndarray[Any, Any], current: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    present = reference[~np.isnan(reference)]
    inner = np.linspace(0, 1, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(present, inner)) if len(present) else np.empty(0)

    def count(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        known = values[~np.isnan(values)]
        bins = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
        return np.append(bins, len(values) - len(known))

    before, after = count(reference), count(current)
    used = (before + after) > 0
    return before[used], after[used]


def _text_counts(values: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    counts = np.array([(values == name).sum() for name in kept])
    return np.append(counts, len(values) - counts.sum())
