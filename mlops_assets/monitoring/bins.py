"""Bins of one column, set by the reference: both sides are counted in the same ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlops_assets.evidence import Predictions

Array = np.ndarray[Any, Any]

#: Shares of the reference below the edges of a number's bins: fine in the middle, finer outside.
TAILS = (0.001, 0.005, 0.01, 0.99, 0.995, 0.999)
MIDDLE = tuple(round(i / 50, 2) for i in range(1, 50))
#: Names with a bin of their own, the most frequent ones; the others share one.
NAMES = 200
#: Of so many different texts, more than this share of the rows are no names but free text.
FREE_TEXT, FREE_TEXT_VALUES = 0.5, 50


@dataclass(frozen=True)
class Bins:
    """How a column of the reference is distributed over bins; missing values have none."""

    rows: int
    missing: int
    #: Rows per bin: ``len(edges) + 1`` of numbers, ``len(names) + 1`` of names, others last.
    counts: Array
    #: Upper ends of the bins of numbers, each included; the last bin lies above the greatest.
    edges: Array | None = None
    #: Where bins are parted into tenths, as far as ties allow it; of numbers alone.
    deciles: Array = field(default_factory=lambda: np.empty(0, int))
    names: tuple[str, ...] = ()
    mean: float = float("nan")
    deviation: float = float("nan")
    #: Names that one row alone has: how often a name is new in as many rows, if nothing moved.
    singletons: int = 0
    #: All names, where some have no bin of their own.
    known: frozenset[str] = frozenset()
    free_text: bool = False

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    def codes(self, values: Array) -> Array:
        """The bin of each value; -1 for a missing one (None, NaN, an empty text)."""
        if self.edges is not None:
            numbers = np.asarray(values, float)
            return np.where(np.isnan(numbers), -1, np.searchsorted(self.edges, numbers, "left"))
        places = {name: place for place, name in enumerate(self.names)}
        names = [None if v is None else name_of(v) for v in values.tolist()]
        codes = [-1 if not n else places.get(n, len(places)) for n in names]
        return np.array(codes, dtype=int)


def name_of(value: Any) -> str:
    """A label or category as text; booleans as DuckDB and JSON write them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def numeric(values: Array) -> Bins:
    """Bins of numbers; NaN is missing, infinity lies in the outermost bins."""
    numbers = np.asarray(values, float)
    present = np.sort(numbers[~np.isnan(numbers)])
    if not len(present):
        return Bins(len(numbers), len(numbers), np.zeros(1), np.empty(0))
    quantiles = np.quantile(present, [*MIDDLE, *TAILS], method="inverted_cdf")
    ends = [np.nextafter(present[0], -np.inf), present[-1]]
    edges = np.unique(np.concatenate([quantiles, ends]))
    counts = np.bincount(np.searchsorted(edges, present, "left"), minlength=len(edges) + 1)
    finite = present[np.isfinite(present)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(finite.mean()) if len(finite) else float("nan")
        deviation = float(finite.std()) if len(finite) else float("nan")
    return Bins(
        rows=len(numbers),
        missing=len(numbers) - len(present),
        counts=counts,
        edges=edges,
        deciles=_deciles(counts),
        mean=mean,
        deviation=deviation,
    )


def of_predictions(kept: Predictions) -> Bins:
    """Bins of the predictions that evidence keeps."""
    if kept.labels:
        return categorical(Counter(kept.labels), 0)
    counts = np.array(kept.counts)
    return Bins(
        rows=kept.rows,
        missing=0,
        counts=counts,
        edges=np.array(kept.edges),
        deciles=_deciles(counts),
        mean=float("nan") if kept.mean is None else kept.mean,
        deviation=float("nan") if kept.deviation is None else kept.deviation,
    )


def _deciles(counts: Array) -> Array:
    below = np.cumsum(counts) / counts.sum()
    starts = np.unique(np.searchsorted(below, np.arange(1, 10) / 10 - 1e-9) + 1)
    return starts[starts < len(counts)]


def categorical(counter: Counter[str], missing: int) -> Bins:
    """Bins of names, from rows per name; a missing name is counted apart."""
    present = sum(counter.values())
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    kept = ordered[:NAMES]
    free = len(ordered) > max(FREE_TEXT_VALUES, FREE_TEXT * present)
    return Bins(
        rows=present + missing,
        missing=missing,
        counts=np.array([*(count for _, count in kept), sum(c for _, c in ordered[NAMES:])]),
        names=tuple(name for name, _ in kept),
        singletons=sum(count == 1 for count in counter.values()),
        known=frozenset(name for name, _ in ordered[NAMES:]),
        free_text=free,
    )
