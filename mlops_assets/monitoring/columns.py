"""Which columns moved: beyond chance at the window's own size, and far enough to matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_assets.monitoring import statistics as st
from mlops_assets.monitoring.bins import Bins
from mlops_assets.monitoring.policy import MinimumEffect
from mlops_assets.monitoring.report import Bar, Change, ColumnReport, Kind
from mlops_assets.monitoring.requests import (
    Requests,
    average_effect,
    design_effects,
    greatest_effect,
)
from mlops_assets.monitoring.window import Counts, shortened

Array = np.ndarray[Any, Any]

#: Bars of a picture at most.
BARS = 12
#: Tests of one column: its distribution, missing values, new values, the contract.
TESTS = 4


@dataclass(frozen=True)
class Case:
    """A column on both sides, and how many of its rows count as one."""

    name: str
    kind: Kind
    bins: Bins
    counts: Counts
    requests: Requests | None = None
    #: Bin of each row of the requests' sample.
    codes: Array | None = None


@dataclass(frozen=True)
class _Measured:
    case: Case
    #: Chances of distribution, missing, new values, contract; NaN where there is no such test.
    chances: Array
    #: Whether each is large enough to matter, and what is said of it.
    large: tuple[bool, ...]
    words: tuple[str, ...]
    effective: float
    psi: float
    bars_of_index: int
    shift: float | None


def judge(cases: Sequence[Case], rate: float, least: MinimumEffect) -> list[ColumnReport]:
    """Judge columns together: ``rate`` is the chance of one false alarm or more over all of them.

    Args:
        cases: columns with at least one row on both sides.
        rate: the family-wise false alarm rate of a window.
        least: moves smaller than this are no alarm however sure they are.
    """
    level = rate / max(1, TESTS * len(cases))
    measured = [_measure(case, level, least) for case in cases]
    chances = np.array([m.chances for m in measured]).reshape(-1)
    tested = np.isfinite(chances)
    corrected = np.full(len(chances), np.nan)
    corrected[tested] = st.holm(chances[tested])
    rows = corrected.reshape(-1, TESTS)
    return [_report(m, p, rate, level) for m, p in zip(measured, rows, strict=True)]


WHATS = ("distribution", "missing", "new_values", "contract")


def _report(m: _Measured, corrected: Array, rate: float, level: float) -> ColumnReport:
    changes = [
        Change(what=what, p=float(p), alarm=bool(p <= rate and large), words=words)
        for what, p, large, words in zip(WHATS, corrected, m.large, m.words, strict=True)
        if np.isfinite(p)
    ]
    alarms = [change.words for change in changes if change.alarm]
    bins, counts = m.case.bins, m.case.counts
    _, noise = st.index_noise(m.bars_of_index, bins.rows, m.effective, level)
    number = m.case.kind == "number" and bins.present > 0
    return ColumnReport(
        column=m.case.name,
        kind=m.case.kind,
        outcome="moved" if alarms else "same",
        reason="; ".join(alarms),
        effective_rows=round(m.effective),
        reference_rows=bins.rows,
        psi=m.psi,
        psi_noise=noise,
        shift=m.shift,
        mean_then=bins.mean if number and np.isfinite(bins.mean) else None,
        mean_now=counts.mean,
        missing_then=bins.missing / bins.rows,
        missing_now=counts.missing / counts.rows if counts.rows else None,
        new_values=list(counts.new_values),
        violations=counts.violations,
        changes=changes,
        bars=bars(bins, counts),
    )


def _measure(case: Case, level: float, least: MinimumEffect) -> _Measured:
    bins, counts = case.bins, case.counts
    table = None
    if case.requests is not None and case.codes is not None:
        table = case.requests.table(case.codes, len(bins.counts))
    total = 0 if case.requests is None else case.requests.total
    # A column without any value in the window has no distribution there, only missing values.
    there = counts.bins.sum() > 0 and bins.present > 0
    average = 1.0 if table is None else average_effect(table, total, level)
    present = counts.bins.sum() / average
    absent, rows = _missing_effect(case, level)
    # New values and those out of contract may be those of a few requests.
    alike = 1.0 if table is None else max(greatest_effect(table), average)
    chance = _distribution(bins, counts, table, total, average, level) if there else float("nan")
    missing = _single(bins.missing, bins.rows, counts.missing, counts.rows, rows)
    new = contract = float("nan")
    if bins.edges is None and there and not bins.free_text:
        new = _single(
            bins.singletons,
            bins.present,
            counts.new_rows,
            counts.bins.sum(),
            counts.bins.sum() / alike,
        )
    out = counts.violations / counts.rows
    if counts.violations:
        contract = _single(0, bins.rows, counts.violations, counts.rows, counts.rows / alike)
    psi, groups = st.stability(bins, counts.bins, counts.missing, rows) if there else (0.0, 1)
    mean_noise, _ = st.index_noise(groups, bins.rows, min(rows, present) or 1, level)
    shift, tail, words = _far(case, psi)
    far = psi - mean_noise >= least.psi or (shift or 0.0) >= least.shift or tail >= least.share
    new_share = counts.new_rows / max(counts.bins.sum(), 1) - bins.singletons / max(bins.present, 1)
    then, now = bins.missing / bins.rows, counts.missing / counts.rows
    return _Measured(
        case=case,
        chances=np.array([chance, missing, new, contract]),
        large=(far, abs(now - then) >= least.share, new_share >= least.share, out >= least.share),
        words=(
            words,
            f"missing in {now:.1%} of the rows, {then:.1%} then",
            f"values that were never there: {_named(counts)}",
            f"{out:.1%} of the rows do not meet the contract",
        ),
        effective=absent,
        psi=psi,
        bars_of_index=groups,
        shift=shift,
    )


def _distribution(
    bins: Bins, counts: Counts, table: Array | None, total: int, average: float, level: float
) -> float:
    """Chance of the least of four statistics, corrected for their number."""
    before, after, m = bins.counts.astype(float), counts.bins, float(bins.present)
    sets = st.parts(bins)
    scores = st.rank_scores(before, after)
    effects, rank_effects = np.ones(sets.shape[1]), np.ones(scores.shape[1])
    if table is not None:
        effects = np.maximum(design_effects(table, sets, total, level), average)
        rank_effects = design_effects(table, scores, total, level)
    n = after.sum()
    tests = [float(st.homogeneity(bins, after, m, n / average))]
    if sets.shape[1]:
        each = st.fisher(before @ sets, np.array(m), after @ sets / effects, n / effects)
        tests.append(min(1.0, float(each.min()) * len(each)))
    if bins.edges is not None:
        tests += st.scored(scores, before, m, after, n / rank_effects).tolist()
    return min(1.0, min(tests) * len(tests))


def _missing_effect(case: Case, level: float) -> tuple[float, float]:
    """Rows that count as independent, by the column's bins with missing values as one of them."""
    if case.requests is None or case.codes is None:
        return float(case.counts.rows), float(case.counts.rows)
    k = len(case.bins.counts)
    codes = np.where(case.codes < 0, k, case.codes)
    table = case.requests.table(codes, k + 1)
    average = average_effect(table, case.requests.total, level)
    score = np.zeros((k + 1, 1))
    score[k] = 1.0
    own = float(design_effects(table, score, case.requests.total, level)[0])
    return case.counts.rows / average, case.counts.rows / max(own, average)


def _single(before: float, m: float, after: float, rows: float, effective: float) -> float:
    """Fisher's test of one share, the window's rows counted as so many independent ones."""
    scale = effective / rows if rows else 0.0
    arrays = (np.array([float(x)]) for x in (before, m, after * scale, effective))
    return float(st.fisher(*arrays)[0])


def _far(case: Case, psi: float) -> tuple[float | None, float, str]:
    """Shift of the mean in standard deviations, change of the outermost shares, and words."""
    bins, counts = case.bins, case.counts
    after, before = counts.bins / max(counts.bins.sum(), 1), bins.counts / max(bins.present, 1)
    if bins.edges is None:
        moves = (after - before)[:-1]
        most = int(np.argmax(np.abs(moves)))
        name = repr(shortened(bins.names[most]))
        words = f"{name} in {after[most]:.1%} of the rows, {before[most]:.1%} then (PSI {psi:.2g})"
        return None, 0.0, words
    shift = None
    if counts.mean is not None and np.isfinite(bins.mean) and np.isfinite(bins.deviation):
        distance = abs(counts.mean - bins.mean)
        # A constant has no unit to measure its distance in; it is then told by its shares.
        shift = distance / bins.deviation if bins.deviation > 0 else None
    tails = _tails(bins)
    moves = [abs(after[t].sum() - before[t].sum()) for t in tails]
    words = f"mean {_figure(counts.mean)}, {_figure(bins.mean)} then (PSI {psi:.2g})"
    if shift is None or shift < 0.1:
        most = int(np.argmax(moves))
        where = ("lowest", "highest")[most]
        words += f"; {after[tails[most]].sum():.1%} of the rows lie where the {where} "
        words += f"{before[tails[most]].sum():.1%} did"
    return shift, float(max(moves)), words


def _tails(bins: Bins) -> tuple[Array, Array]:
    """Bins of at most the lowest and of at most the highest hundredth."""
    k = len(bins.counts)
    share = 0.01 * max(bins.present, 1)
    low = max(1, int(np.searchsorted(np.cumsum(bins.counts), share, "right")))
    high = max(1, int(np.searchsorted(np.cumsum(bins.counts[::-1]), share, "right")))
    return np.arange(low), np.arange(k - high, k)


def bars(bins: Bins, counts: Counts) -> list[Bar]:
    """Shares of tenths or names on both sides, missing values last."""
    k = len(bins.counts)
    if bins.edges is None:
        most = np.argsort(
            -(bins.counts[:-1] / max(bins.rows, 1) + counts.bins[:-1] / max(counts.rows, 1)),
            kind="stable",
        )
        kept = np.sort(most[: BARS - 2])
        groups = [(shortened(bins.names[i]), [i]) for i in kept.tolist()]
        rest = sorted(set(range(k)) - set(kept.tolist()))
        groups.append(("others", rest))
    else:
        starts = (
            np.unique(np.concatenate([[0], bins.deciles[bins.deciles < k]])).astype(int).tolist()
        )
        ends = [*starts[1:], k]
        groups = [
            (_span(bins.edges, a, b), list(range(a, b))) for a, b in zip(starts, ends, strict=True)
        ]
    found = [
        Bar(
            name=name,
            then=float(bins.counts[places].sum()) / max(bins.rows, 1),
            now=float(counts.bins[places].sum()) / max(counts.rows, 1),
        )
        for name, places in groups
    ]
    missing = Bar(
        name="missing",
        then=bins.missing / max(bins.rows, 1),
        now=counts.missing / max(counts.rows, 1),
    )
    return [bar for bar in [*found, missing] if bar.then or bar.now]


def _span(edges: Array, start: int, end: int) -> str:
    if end > len(edges):
        return f"> {edges[start - 1]:.4g}" if start else "all"
    return f"≤ {edges[end - 1]:.4g}"


def _named(counts: Counts) -> str:
    shown = ", ".join(f"{v.value!r} ({v.rows} rows)" for v in counts.new_values[:5])
    return shown + (", and others" if len(counts.new_values) > 5 else "")


def _figure(value: float | None) -> str:
    return "none" if value is None or not np.isfinite(value) else f"{value:.4g}"
