"""What a report says in one sentence each: drift, performance, freshness."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from mlops_assets.monitoring.performance import primary_of, worse_slices
from mlops_assets.monitoring.policy import Monitoring
from mlops_assets.monitoring.report import ColumnReport, LiveMetric, Performance, Report, Verdict
from mlops_assets.scoring.capture.settings import PREDICTION

#: Columns that a sentence tells of; the others are counted.
TOLD = 5


@dataclass(frozen=True)
class Fresh:
    """When something came last; None where nothing did, or nobody knows."""

    now: dt.datetime
    request: dt.datetime | None
    data: dt.datetime | None
    #: When the version began to serve.
    serves: dt.datetime | None = None


def verdicts(report: Report, policy: Monitoring, fresh: Fresh) -> list[Verdict]:
    """The three verdicts of a report."""
    return [_drift(report, policy), _performance(report, policy), _freshness(policy, fresh)]


def _drift(report: Report, policy: Monitoring) -> Verdict:
    found = _judged_drift(report, policy)
    if not report.unreadable:
        return found
    left = f"; {len(report.unreadable)} files cannot be read: {report.unreadable[0]}"
    return found.model_copy(update={"reason": found.reason + left})


def _judged_drift(report: Report, policy: Monitoring) -> Verdict:
    moved = report.moved
    if moved:
        told = "; ".join(f"{_name(column)}: {column.reason}" for column in moved[:TOLD])
        more = f"; and {len(moved) - TOLD} more" if len(moved) > TOLD else ""
        return Verdict(name="drift", status="alarm", reason=told + more)
    if report.effective_rows < policy.minimum_rows:
        return Verdict(name="drift", status="too_few_rows", reason=_few(report, policy))
    tested = [c for c in report.columns if c.outcome == "same"]
    reason = f"{len(tested)} columns are as in the snapshot, over {report.effective_rows} rows"
    left = [c.column for c in report.columns if c.outcome in ("not_captured", "empty_in_training")]
    if not tested:
        return Verdict(name="drift", status="unknown", reason="no column could be compared")
    if left:
        reason += f"; not compared: {', '.join(left)}"
    return Verdict(name="drift", status="ok", reason=reason)


def _few(report: Report, policy: Monitoring) -> str:
    reason = f"{report.rows} rows"
    if report.repeated:
        reason += f", {report.repeated} of which repeat another"
    if report.effective_rows < report.rows - report.repeated:
        reason += f", in {report.effective_rows} requests"
    reason += f"; monitoring.minimum_rows is {policy.minimum_rows}"
    if report.effective_rows < report.rows - report.repeated:
        reason += " (monitoring.rows: independent counts each row)"
    return reason


def _name(column: ColumnReport) -> str:
    return "the prediction" if column.column == PREDICTION else column.column


def _performance(report: Report, policy: Monitoring) -> Verdict:
    found, least = report.performance, policy.performance.minimum_rows
    if found is None:
        return Verdict(name="performance", status="unknown", reason="no labelled row has arrived")
    if found.problem:
        return Verdict(name="performance", status="unknown", reason=found.problem)
    if found.joined < least:
        reason = f"{found.joined} labelled rows whose prediction was captured, of {found.labelled}"
        reason += f"; monitoring.performance.minimum_rows is {least}{_unfit(found)}"
        return Verdict(name="performance", status="too_few_rows", reason=reason)
    primary = primary_of(found)
    if primary is None or primary.release is None:
        reason = f"{found.primary} is not defined for these rows, or was not at release"
        return Verdict(name="performance", status="unknown", reason=reason)
    slices = worse_slices(found)
    reason = f"{_beside(primary)} over {found.joined} labelled rows"
    if slices:
        told = [
            f"{one.column} {one.value}: {_beside(one.metric)} over {one.rows} rows"
            for one in slices[:TOLD]
            if one.metric is not None
        ]
        reason += f"; worse where {'; '.join(told)}"
    status = "alarm" if primary.worse or slices else "ok"
    return Verdict(name="performance", status=status, reason=reason + _unfit(found))


def _unfit(found: Performance) -> str:
    return (
        f"; {found.unfit} labels left out, which model.yaml does not allow" if found.unfit else ""
    )


def _beside(metric: LiveMetric) -> str:
    live = metric.live
    shown = f"{metric.metric} {live.value:.4g} ({live.lower:.4g} to {live.upper:.4g})"
    return shown if metric.release is None else f"{shown}, {metric.release.value:.4g} at release"


def _freshness(policy: Monitoring, fresh: Fresh) -> Verdict:
    late: list[str] = []
    told: list[str] = []
    moments = [("last request {} hours ago", fresh.request), ("last data {} hours ago", fresh.data)]
    if fresh.request is None:
        moments[0] = ("no request in the {} hours since it serves", fresh.serves)
    for sentence, moment in moments:
        if moment is None:
            continue
        hours = max(0.0, (fresh.now - moment).total_seconds() / 3600)
        says = sentence.format(f"{hours:.1f}")
        told.append(says)
        if hours > policy.freshness_hours:
            late.append(f"{says}, monitoring.freshness_hours is {policy.freshness_hours:g}")
    if late:
        return Verdict(name="freshness", status="alarm", reason="; ".join(late))
    if not told:
        return Verdict(name="freshness", status="unknown", reason="no request was captured yet")
    return Verdict(name="freshness", status="ok", reason="; ".join(told))
