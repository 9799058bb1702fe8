"""How many independent rows a window holds, where several come in one request.

Rows of one request are often of one kind: one island, one customer, one batch. Taken for
independent they raise false alarms. The variance of each statistic is therefore estimated between
requests, and divided by what independent rows would have (the design effect; Kish 1965, Rao and
Scott 1981); so many rows count as one. Fewer than ``LEAST`` requests tell nothing about that:
each counts as one row, unless model.yaml says that rows are independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

Array = np.ndarray[Any, Any]

#: Requests that it takes to estimate how alike their rows are.
LEAST = 20


@dataclass(frozen=True)
class Requests:
    """The rows of a window (or a sample of its requests), each with its request."""

    #: Index of each row's request.
    of_row: Array
    #: Number of requests among these rows, and in the whole window.
    count: int
    total: int

    def table(self, codes: Array, bins: int) -> Array:
        """Rows per request and bin; rows with code -1 are counted nowhere."""
        known = codes >= 0
        flat = self.of_row[known] * bins + codes[known]
        return np.bincount(flat, minlength=self.count * bins).reshape(self.count, bins)


def design_effects(
    table: Array, scores: Array, total: int, chance: float, *, together: bool = False
) -> Array:
    """How many rows count as one, for the mean of each score.

    Args:
        table: rows per request and bin.
        scores: bins x q, a score per bin.
        total: number of requests of the window.
        chance: level at which the statistic is judged; few requests make the estimate unsure.
        together: whether the scores are only used in their sum, so that rare ones need not tell
            anything each by itself.

    Returns:
        q numbers, 1 or more.
    """
    table = table[table.sum(1) > 0].astype(float)
    sizes = table.sum(1)
    rows, requests = sizes.sum(), len(table)
    if not rows:
        return np.ones(scores.shape[1])
    kish = greatest_effect(table)
    if total < LEAST or requests < LEAST:
        return np.full(scores.shape[1], max(1.0, rows / requests))
    shares = table.sum(0) / rows
    mean = shares @ scores
    between = requests / (requests - 1) * ((table @ scores - sizes[:, None] * mean) ** 2).sum(0)
    within = (shares[:, None] * (scores - mean) ** 2).sum(0) * rows
    effect = np.where(within > 1e-12, between / np.maximum(within, 1e-12), kish)
    # What differs in few requests alone tells too little of itself: their rows may be all alike.
    usual = scores[int(np.argmax(shares))]
    telling = ((table @ (scores != usual)) > 0).sum(0)
    if together:
        telling = np.full(len(telling), int(((table @ (shares < shares.max())) > 0).sum()))
    effect = np.where(telling < LEAST, np.maximum(effect, kish), effect)
    ratio = special.stdtrit(requests - 1, chance / 2) / special.ndtri(chance / 2)
    return np.maximum(1.0, effect) * ratio**2


def greatest_effect(table: Array) -> float:
    """How many rows count as one where all of a request are alike."""
    sizes = table.sum(1).astype(float)
    return max(1.0, float((sizes**2).sum() / max(sizes.sum(), 1)))


def average_effect(table: Array, total: int, chance: float) -> float:
    """The design effect of a chi-squared test over all bins: Rao and Scott's first correction."""
    bins = table.shape[1]
    shares = table.sum(0) / max(table.sum(), 1)
    used = shares > 0
    if used.sum() < 2:
        return float(design_effects(table, np.zeros((bins, 1)), total, chance)[0])
    effects = design_effects(table, np.eye(bins)[:, used], total, chance, together=True)
    weights = 1 - shares[used]
    return float((weights * effects).sum() / weights.sum())
