"""Tests of two samples counted in the same bins, which hold for ties, few rows and heavy tails.

A column's values are never compared by a statistic whose null is known for continuous values
alone (Kolmogorov-Smirnov is too timid with ties, and blind in the tails). Four tests share a
column's chance of a false alarm:

- rows per part, by Fisher's exact test: tenths of the reference and its outermost 5, 1 and 0.1 %,
  or single names; holds for any number of rows, and finds what moves in one tail;
- the mean rank (Wilcoxon) and the spread of the ranks (Mood), their variance over the pooled bins,
  so that ties are accounted for; ranks are bounded, so no heavy tail spoils the approximation;
- all bins at once (chi-squared), over bins with enough rows for it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special  # scipy.stats would take seconds to load

from mlops_assets.monitoring.bins import Bins
from mlops_assets.stability import stability_index

Array = np.ndarray[Any, Any]

#: With this many rows expected in the smallest cell the normal distribution is as good as exact.
NORMAL = 500
#: Rows expected in each cell of the chi-squared test, which is too bold in its tail below.
CELL = 25
#: Names beside "others" in a stability index.
NAMES = 30
#: Outermost shares of the reference that are counted apart.
OUTER = (0.0, 0.001, 0.01, 0.05)


def fisher(before: Array, rows_before: Array, after: Array, rows_after: Array) -> Array:
    """Two-sided chance, part by part, of rows as differently shared out as these or more so.

    Args:
        before: rows in the part, of the reference.
        rows_before: all rows of the reference.
        after: rows in the part, of the window.
        rows_after: all rows of the window; another number for each part where they count less.
    """
    before, m, after, n = np.broadcast_arrays(
        *(np.rint(x).astype(np.int64) for x in (before, rows_before, after, rows_after))
    )
    marked, total = before + after, before * 0 + m + n
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = marked * (n / total)
        least = np.minimum(marked, total - marked) * (np.minimum(n, m) / total)
        variance = expected * (1 - marked / total) * (m / np.maximum(total - 1, 1))
        z = (np.abs(after - expected) - 0.5) / np.sqrt(variance)
    found = np.where(variance > 0, 2 * special.ndtr(-np.maximum(z, 0)), 1.0)
    exact = (least < NORMAL) & (variance > 0)
    for place in np.flatnonzero(exact):
        of = (int(x.flat[place]) for x in (before, m, after, n))
        found.flat[place] = _exact(*of)
    return np.clip(np.nan_to_num(found, nan=1.0), 0.0, 1.0)


def _exact(before: int, m: int, after: int, n: int) -> float:
    """Twice the smaller tail of the hypergeometric distribution."""
    marked = before + after
    more = after * (m + n) >= marked * n
    last = min(marked, n) if more else max(0, marked - m)
    counts = np.arange(min(after, last), max(after, last) + 1, dtype=float)
    logs = (
        _log_choose(n, counts)
        + _log_choose(m, marked - counts)
        - _log_choose(m + n, np.array(float(marked)))
    )
    return min(1.0, 2 * float(np.exp(logs).sum()))


def _log_choose(n: float, k: Array) -> Array:
    return special.gammaln(n + 1.0) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def parts(bins: Bins) -> Array:
    """What is tested by Fisher's test: sets of bins, as columns of zeros and ones."""
    k = len(bins.counts)
    if bins.edges is None:
        # Not the others: which names have no bin is the reference's choice, so that a window has
        # more of them by chance. New ones have a test of their own.
        return np.eye(k)[:, :-1]
    places = np.arange(k)
    starts = np.concatenate([[0], bins.deciles, [k]])
    tenths = [(places >= a) & (places < b) for a, b in pairwise(starts)]
    below = np.cumsum(bins.counts) / max(bins.present, 1)
    outer = [places < max(1, np.searchsorted(below, share, "right")) for share in OUTER]
    above = np.cumsum(bins.counts[::-1]) / max(bins.present, 1)
    outer += [places[::-1] < max(1, np.searchsorted(above, share, "right")) for share in OUTER]
    found = np.unique(np.array([*tenths, *outer]), axis=0)
    return found[(found.sum(1) > 0) & (found.sum(1) < k)].T.astype(float)


def rank_scores(before: Array, after: Array) -> Array:
    """Mid-rank of each bin, 0 to 1 in both samples, and its squared distance from a half: k x 2."""
    pooled = before / max(before.sum(), 1) + after / max(after.sum(), 1)
    middle = (np.cumsum(pooled) - pooled / 2) / pooled.sum()
    return np.column_stack([middle, (middle - 0.5) ** 2])


def scored(scores: Array, before: Array, m: float, after: Array, n: Array) -> Array:
    """Two-sided chance of a difference of the mean scores as large as this.

    Args:
        scores: k x q, a score per bin.
        before: rows per bin of the reference.
        m: rows of the reference that count.
        after: rows per bin of the window.
        n: rows of the window that count, one number per score.
    """
    first, second = before / before.sum(), after / after.sum()
    difference = (second - first) @ scores
    pooled = (m * first[:, None] + n * second[:, None]) / (m + n)
    mean = (pooled * scores).sum(0)
    variance = (pooled * (scores - mean) ** 2).sum(0) * (1 / m + 1 / n)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.abs(difference) / np.sqrt(variance)
    return np.where(variance > 1e-300, 2 * special.ndtr(-z), 1.0)


def homogeneity(bins: Bins, after: Array, m: float, n: float) -> float:
    """Chi-squared test over all bins; those with few rows expected are taken together.

    Args:
        bins: the reference.
        after: rows per bin of the window.
        m: rows of the reference that count.
        n: rows of the window that count.
    """
    before = bins.counts / bins.counts.sum()
    now = after / after.sum()
    needed = CELL / min(m, n)
    if bins.edges is None:
        cells = _large(before, now, (m * before + n * now) / (m + n) >= needed)
    else:
        cells = _neighbours(before, needed)
    if len(cells) < 2:
        return 1.0
    p, q = (np.array([shares[cell].sum() for cell in cells]) for shares in (before, now))
    both = (m * p + n * q) / (m + n)
    statistic = ((p - q) ** 2 / both).sum() / (1 / m + 1 / n)
    return float(special.chdtrc(len(cells) - 1, statistic))


def _large(before: Array, now: Array, enough: Array) -> list[list[int]]:
    """Names that both sides together have often, each a cell, and all others as one."""
    enough[-1] = False
    cells = [[place] for place in np.flatnonzero(enough).tolist()]
    rest = np.flatnonzero(~enough).tolist()
    return [*cells, rest] if (before + now)[rest].sum() > 0 else cells


def _neighbours(before: Array, needed: float) -> list[list[int]]:
    """Bins of numbers, joined by the reference alone: its edges are its own rows.

    Cells chosen by the window's rows would be extreme by choice.
    """
    cells: list[list[int]] = []
    share = needed
    for place, expected in enumerate(before.tolist()):
        if share >= needed:
            cells.append([])
            share = 0.0
        cells[-1].append(place)
        share += expected
    if share < needed and len(cells) > 1:
        last = cells.pop()
        cells[-1] += last
    return cells


def stability(bins: Bins, after: Array, missing: float, rows: float) -> tuple[float, int]:
    """The stability index over tenths or names, missing values in a bin of their own.

    Returns:
        the index, counted in ``rows`` independent rows of the window, and its number of bins.
    """

    def grouped(counts: Array, absent: float) -> Array:
        if bins.edges is None:
            kept = counts[: min(NAMES, len(counts) - 1)]
            return np.array([*kept, counts.sum() - kept.sum(), absent])
        starts = np.unique(np.concatenate([[0], bins.deciles[bins.deciles < len(counts)]]))
        return np.array([*np.add.reduceat(counts, starts.astype(int)), absent])

    then, now = grouped(bins.counts, bins.missing), grouped(after, missing)
    used = (then + now) > 0
    now = now * (rows / max(now.sum(), 1))
    return stability_index(then[used].tolist(), now[used].tolist()), int(used.sum())


def index_noise(bins: int, m: float, n: float, chance: float) -> tuple[float, float]:
    """The stability index where nothing moved: its mean, and what it exceeds with ``chance``.

    About ``(1/n + 1/m)`` times a chi-squared variable with ``bins - 1`` degrees of freedom
    (Yurdakul and Naranjo 2020).
    """
    scale = 1 / max(m, 1) + 1 / max(n, 1)
    freedom = max(bins - 1, 1)
    return scale * freedom, scale * float(special.chdtri(freedom, chance))


def holm(chances: Array) -> Array:
    """Chances corrected for their number (Holm 1979): at most one false alarm."""
    order = np.argsort(chances, kind="stable")
    factors = len(chances) - np.arange(len(chances))
    corrected = np.empty(len(chances))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(chances[order] * factors))
    return corrected
