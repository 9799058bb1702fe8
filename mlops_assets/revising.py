"""Revision requests that monitoring makes, keeps up to date, and closes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlops_assets.decision import OF_LOSS, unresolved
from mlops_assets.evidence import Interval
from mlops_assets.files import digest_json
from mlops_assets.gates import Verdict
from mlops_assets.monitoring.report import ColumnReport, LiveMetric, Report
from mlops_assets.revision import (
    Cause,
    ClosedGate,
    Measured,
    Moved,
    Performance,
    Revision,
    SliceChange,
    closing,
    request_of,
    resolves,
)
from mlops_assets.scoring.capture.settings import PREDICTION
from mlops_assets.watch import Sight
from resources.alerts import Alert
from resources.registry import Registry
from resources.tracker import OpenRequest, Tracker

#: Kind of the registry's records: what was asked for.
REVISIONS = "revisions"
#: Rows that a request shows.
ROWS = 10


@dataclass(frozen=True)
class Finding:
    """Why a revision is asked for."""

    seen: Sight
    report: Report
    earlier: Sequence[Report]
    cause: Cause
    #: Fingerprint of the raw data.
    data: str
    #: Gates that the retrained version did not pass.
    closed: Sequence[Verdict] = ()
    sample: Sequence[Mapping[str, Any]] = ()
    pictures: Mapping[str, bytes] | None = None
    page: str | None = None


def ask(tracker: Tracker, registry: Registry, finding: Finding) -> OpenRequest | None:
    """Have one request open about a loss; None where people have closed it.

    A loss that ended, or that other data are about, is another one.
    It is written anew only when something else is found, not for other digits of the same.

    Raises:
        TrackerError: it is not there, or nobody knows; the same again does no harm.
    """
    version = finding.seen.version
    model = version.model
    found = [r for r in tracker.open_requests() if r.model == model and r.cause in OF_LOSS]
    records = [
        r for r in registry.records(model, REVISIONS) if r["digest"] == version.digest
    ]  # fmt: skip
    cause = cast("Cause", found[0].cause) if found else finding.cause
    signature = _signature(finding, cause)
    since = _since(finding).isoformat()
    if not found and any(
        (r["data"], r.get("since", since)) == (finding.data, since) for r in records
    ):
        return None
    current = records and records[-1]["signature"] == signature
    if found and current and found[0].version == version.version:
        return found[0]
    opened = tracker.open(request_of(revision_of(finding, cause)))
    registry.record(
        model,
        REVISIONS,
        {
            "version": version.version,
            "digest": version.digest,
            "environment": finding.seen.environment.name,
            "cause": cause,
            "data": finding.data,
            "since": since,
            "signature": signature,
            "request": opened.name,
        },
    )
    return opened


def _since(finding: Finding) -> dt.datetime:
    return finding.report.since.get("performance", finding.report.time)


def _signature(finding: Finding, cause: Cause) -> str:
    """Differs when a request is worth being read again."""
    performance = finding.report.performance
    slices = performance.slices if performance else []
    return digest_json(
        {
            "cause": cause,
            "columns": sorted(column.column for column in finding.report.moved),
            "slices": sorted(f"{s.column}={s.value}" for s in slices if s.status == "alarm"),
            "gates": sorted(verdict.gate for verdict in finding.closed),
            "data": finding.data,
        }
    )


def opening(request: OpenRequest) -> Alert:
    """What people are told of a request that was opened; the same request is the same message."""
    title = f"{request.model} version {request.version}: a revision is asked for"
    return Alert(f"revision/{request.url}/{request.version}", title, f"Cause: {request.cause}.",
                 request.url if request.url.startswith("http") else None)  # fmt: skip


def revision_of(finding: Finding, cause: Cause) -> Revision:
    """All that a request says, of columns that the policy lets be seen."""
    seen, report, allowed = finding.seen, finding.report, finding.seen.allowed
    version = seen.version
    moved = [m for c in report.moved if c.column in allowed for m in _moved(c)]
    return Revision(
        model=version.model,
        version=version.version,
        commit=version.manifest.source.commit,
        environment=seen.environment.name,
        cause=cause,
        since=_since(finding),
        rows=report.performance.joined if report.performance else report.rows,
        allowed=allowed,
        columns=moved,
        slices=[s for s in _slices(report) if s.column in allowed],
        performance=performance_of(None, report),
        gates=[ClosedGate(v.gate, _reason(v, seen)) for v in finding.closed],
        sample=finding.sample,
        page=finding.page,
        pictures=finding.pictures or {},
    )


def _reason(verdict: Verdict, seen: Sight) -> str:
    """A gate's reason; that on slices names values."""
    if verdict.gate == "slices" and not set(seen.spec.slices) <= seen.allowed:
        return "a part of the rows is below its limit; see the check"
    return verdict.reason


def _moved(column: ColumnReport) -> Iterator[Moved]:
    then, now = [b.then for b in column.bars], [b.now for b in column.bars]
    for change in column.changes:
        if not change.alarm:
            continue
        if change.what == "distribution":
            numeric = column.kind == "number"
            yield Moved(
                column.column,
                "mean, PSI" if numeric else "PSI",
                column.mean_then if numeric else None,
                column.mean_now if numeric else None,
                column.psi,
                column.psi_noise,
                then,
                now,
            )
        elif change.what == "missing":
            yield Moved(
                column.column, "share missing", column.missing_then, column.missing_now,
                None, None, then, now,
            )  # fmt: skip
        else:
            said = "new values" if change.what == "new_values" else "out of contract"
            yield Moved(column.column, said, None, None, None, None, then, now)


def _slices(report: Report) -> Iterator[SliceChange]:
    for one in report.performance.slices if report.performance else []:
        metric = one.metric
        if one.status == "alarm" and metric is not None:
            yield SliceChange(
                one.column, one.value, one.rows, metric.metric,
                _measured(metric.release), _measured(metric.live),
            )  # fmt: skip


def _measured(interval: Interval | None) -> Measured | None:
    if interval is None:
        return None
    return Measured(float(interval.value), float(interval.lower), float(interval.upper))


def performance_of(before: Report | None, report: Report) -> list[Performance]:
    """Live metrics beside those at release, or beside the live ones of an earlier report."""

    def metrics(found: Report | None) -> list[LiveMetric]:
        return list(found.performance.metrics) if found and found.performance else []

    then = {m.metric: m.live for m in metrics(before)}
    return [
        Performance(
            m.metric, _measured(m.release if before is None else then.get(m.metric)),
            _measured(m.live),
        )
        for m in metrics(report)
    ]  # fmt: skip


def close(
    tracker: Tracker, seen: Sight, report: Report, earlier: Sequence[Report], gates_open: bool
) -> list[OpenRequest]:
    """Close the requests that what serves now resolves, with its numbers; returns them.

    Raises:
        TrackerError: one is not closed, or nobody knows; the same again does no harm.
    """
    version, alarms = seen.version, unresolved(report)
    closed: list[OpenRequest] = []
    for request in tracker.open_requests():
        if request.model != version.model or not resolves(
            request.version, request.cause, version.version, gates_open, alarms
        ):
            continue
        before = [r for r in earlier if r.version == request.version and r.performance]
        numbers = performance_of(before[-1] if before else None, report)
        commit = version.manifest.source.commit
        tracker.close(request, closing(version.model, version.version, commit, numbers))
        closed.append(request)
    return closed


def sample_rows(
    paths: Sequence[Path], seen: Sight, since: dt.datetime, until: dt.datetime, scratch: Path
) -> list[dict[str, Any]]:
    """The window's last rows, of columns that may be shown; oldest first."""
    from mlops_assets.monitoring.window import open_window, quoted

    version = seen.version.version
    with open_window(paths, scratch, version, since=since, until=until) as window:
        shown = [*(n for n in seen.spec.data.columns if n in seen.allowed), PREDICTION]
        names = [n for n in shown if n in seen.allowed and window.holding(n)]
        if not names:
            return []
        rows = window.arrow(
            f"SELECT {', '.join(map(quoted, names))} FROM {window.source(window.files)} "
            f"ORDER BY mlops_time DESC, mlops_row DESC LIMIT {ROWS}"
        )
    return rows.to_pylist()[::-1]
