"""How well a version predicts since its release, from labelled rows that arrived later."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.evidence import Evidence, Interval, Slice
from mlops_assets.monitoring.bins import name_of
from mlops_assets.monitoring.labels import PREDICTED, TARGET, Joined
from mlops_assets.monitoring.report import LiveMetric, LiveSlice, Performance
from mlops_assets.spec import METRICS, OF_PROBABILITIES, ModelSpec, metric_range
from mlops_assets.training.metrics import Judged, bootstrap, interval, unit_values

Array = np.ndarray[Any, Any]

#: Half-widths of a 95 % interval in standard errors.
HALF = 1.96
#: Values of one slice column that are looked at.
SLICE_VALUES = 50
#: Rows of a slice at release below which its value says nothing.
LEAST_AT_RELEASE = 10


def judge(joined: Joined, spec: ModelSpec, release: Evidence) -> Performance:
    """The live metrics beside those at release, over all rows and in each slice."""
    policy = spec.monitoring
    empty = Performance(
        primary=spec.live_metric,
        tolerance=spec.live_tolerance,
        labelled=joined.labelled,
        joined=joined.table.num_rows if not joined.problem else 0,
        unfit=joined.unfit,
        problem=joined.problem,
    )
    if joined.problem or empty.joined < 2:
        return empty
    judged = _judged(joined.table, spec, release)
    parts = _slices(joined.table, spec)
    # The policy's chance of a false alarm is shared by the whole and the slices.
    able = [part for part in parts if len(part[2]) >= policy.performance.minimum_rows]
    level = policy.false_alarm_rate / 2
    live = _metrics(judged)
    metrics = [
        _beside(name, value, release.metrics.get(name), spec, level, _sizes(judged, release))
        for name, value in live.items()
    ]
    found: list[LiveSlice] = []
    for column, value, places in parts:
        slice_ = LiveSlice(column=column, value=value, rows=len(places), status="too_few_rows")
        if len(places) >= policy.performance.minimum_rows:
            at = _slice_at_release(release, column, value, spec.live_metric)
            found.append(_judge_slice(slice_, judged, places, at, spec, level / len(able)))
        else:
            found.append(slice_)
    return empty.model_copy(update={"metrics": metrics, "slices": found})


def _judged(table: pa.Table, spec: ModelSpec, release: Evidence) -> Judged:
    target, predicted = (np.array(table.column(n).to_pylist()) for n in (TARGET, PREDICTED))
    if spec.task == "regression":
        return Judged(spec.task, target, predicted)
    known = list(release.predictions.labels) if release.predictions else []
    labels = np.unique(np.concatenate([target, predicted, np.array(known, target.dtype.kind)]))
    return Judged(spec.task, target, predicted, None, labels)


def _metrics(judged: Judged) -> dict[str, Interval]:
    replicates = bootstrap([judged])[0]
    return {
        name: Interval.model_validate(interval(value, replicates[name]))
        for name, value in unit_values(judged).items()
        if value is not None and name not in OF_PROBABILITIES
    }


def _slices(table: pa.Table, spec: ModelSpec) -> list[tuple[str, Any, Array]]:
    """Column, value and rows of each slice."""
    found: list[tuple[str, Any, Array]] = []
    for column in spec.slices:
        if column not in table.column_names:
            continue
        values = np.array([v or "" for v in table.column(column).to_pylist()])
        shown = np.unique(values).tolist()[:SLICE_VALUES]
        found += [(column, value or None, np.flatnonzero(values == value)) for value in shown]
    return found


def _slice_at_release(
    release: Evidence, column: str, value: Any, metric: str
) -> tuple[Slice, Interval] | None:
    """A slice at release; its half-width is that of the whole, for as many rows.

    It ends where the metric does: a slice that is better than the whole has less room above it.
    """
    whole = release.metrics.get(metric)
    for one in release.slices:
        name = None if one.value is None else str(one.value)
        same = value in (name, name_of(one.value))
        known = one.metrics.get(metric)
        if one.column == column and same and known is not None and whole is not None:
            if one.rows < LEAST_AT_RELEASE:
                return None
            wider = (release.holdout.rows / one.rows) ** 0.5
            lower = known - wider * (whole.value - whole.lower)
            upper = known + wider * (whole.upper - whole.value)
            return one, _within(*metric_range(metric), known, lower, upper)
    return None


def _within(least: float, most: float, value: float, lower: float, upper: float) -> Interval:
    """An interval whose ends are values that there can be."""
    return Interval(
        value=value, lower=min(max(lower, least), most), upper=min(max(upper, least), most)
    )


def _judge_slice(
    slice_: LiveSlice,
    judged: Judged,
    places: Array,
    at: tuple[Slice, Interval] | None,
    spec: ModelSpec,
    level: float,
) -> LiveSlice:
    metric = spec.live_metric
    part = Judged(judged.task, judged.target[places], judged.predicted[places], None, judged.labels)
    live = _metrics(part).get(metric)
    if live is None or at is None:
        return slice_.model_copy(update={"status": "unknown"})
    classes = 1 if judged.labels is None else len(judged.labels)
    sizes = (len(places) / classes, at[0].rows / classes)
    found = _beside(metric, live, at[1], spec, level, sizes)
    return slice_.model_copy(update={"status": "alarm" if found.worse else "ok", "metric": found})


def _sizes(judged: Judged, release: Evidence) -> tuple[float, float]:
    classes = 1 if judged.labels is None else len(judged.labels)
    return len(judged.target) / classes, release.holdout.rows / classes


def _beside(
    metric: str,
    live: Interval,
    release: Interval | None,
    spec: ModelSpec,
    level: float,
    sizes: tuple[float, float],
) -> LiveMetric:
    """A metric now and at release; worse where the difference's interval excludes the tolerance.

    The interval of the difference adds the half-widths of both in square (MOVER; Zou and Donner
    2008), since the rows are others. A share of which no row of a few is wrong has no width by the
    bootstrap; it then gets Wilson's.
    """
    if release is None:
        return LiveMetric(metric=metric, live=live, release=None, difference=None, worse=False)
    if spec.task != "regression":
        live, release = _widened(live, sizes[0]), _widened(release, sizes[1])
    scale = NormalDist().inv_cdf(1 - level) / HALF
    value = live.value - release.value
    down = np.hypot(live.value - live.lower, release.upper - release.value) * scale
    up = np.hypot(live.upper - live.value, release.value - release.lower) * scale
    least, most = metric_range(metric)
    difference = _within(least - most, most - least, value, value - float(down), value + float(up))
    loss = -difference.upper if METRICS[spec.task][metric] else difference.lower
    worse = loss > (spec.live_tolerance if metric == spec.live_metric else 0.0)
    return LiveMetric(
        metric=metric, live=live, release=release, difference=difference, worse=bool(worse)
    )


def _widened(share: Interval, rows: float) -> Interval:
    if share.upper - share.lower > 0 or rows <= 0:
        return share
    width = HALF**2 / (rows + HALF**2)
    return _within(0.0, 1.0, share.value, share.value - width, share.value + width)


def worse_slices(performance: Performance) -> list[LiveSlice]:
    """Slices that became worse, the worst loss first."""
    found = [one for one in performance.slices if one.status == "alarm"]

    def loss(one: LiveSlice) -> float:
        assert one.metric is not None, "an alarm has a metric"
        assert one.metric.difference is not None, "and a difference"
        return -abs(one.metric.difference.value)

    return sorted(found, key=loss)


def primary_of(performance: Performance) -> LiveMetric | None:
    """The metric that decides, if it could be computed."""
    by_name: Mapping[str, LiveMetric] = {m.metric: m for m in performance.metrics}
    return by_name.get(performance.primary)
