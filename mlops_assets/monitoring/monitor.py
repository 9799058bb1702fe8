"""One look at a window: captured rows, the reference, labels -> a report."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special

from mlops_assets.evidence import Evidence
from mlops_assets.monitoring import performance as live
from mlops_assets.monitoring.bins import Bins, name_of, of_predictions
from mlops_assets.monitoring.columns import Case, judge
from mlops_assets.monitoring.labels import TARGET, Joined, Labelled, join
from mlops_assets.monitoring.reference import bins_of, kind_of
from mlops_assets.monitoring.repeats import DISTINCT, count_repeated_once, repeats
from mlops_assets.monitoring.report import ColumnReport, NewValue, Outcome, Report
from mlops_assets.monitoring.requests import LEAST, Requests
from mlops_assets.monitoring.verdicts import Fresh, verdicts
from mlops_assets.monitoring.window import (
    NAMED,
    Counts,
    Window,
    count,
    open_window,
    requests,
    service,
    shortened,
)
from mlops_assets.scoring.capture.settings import PREDICTION
from mlops_assets.spec import Column, ModelSpec

Array = np.ndarray[Any, Any]

#: What is said of a column whose values may not be seen.
HIDDEN: tuple[Outcome, str] = ("not_captured", "not captured")
#: Chance with which fewer rows are equal than the snapshot lets expect.
SURE = 0.999
#: Share of different rows that may be lost where equal rows count once.
LOST = 0.2


@dataclass(frozen=True)
class Span:
    """What is looked at, and when."""

    #: Captured files of the window.
    files: Sequence[Path]
    now: dt.datetime
    #: The serving version, whose rows are judged; None judges all.
    version: int | None = None
    #: Where the window begins; it ends now. None takes all rows of the files.
    since: dt.datetime | None = None
    #: When that version began to serve.
    serves: dt.datetime | None = None
    #: When an application asked last before the window; called where none asked in it.
    asked_before: Callable[[], dt.datetime | None] = lambda: None
    #: When the newest data set arrived.
    last_data: dt.datetime | None = None


def monitor(
    span: Span,
    reference: Path,
    spec: ModelSpec,
    release: Evidence | None,
    labelled: Labelled | None = None,
    scratch: Path | None = None,
    *,
    predictions: bool = True,
) -> Report:
    """Judge a window of captured rows.

    Args:
        span: the window's files, the time, the serving version.
        reference: ``data.parquet`` of the snapshot that the version was trained on.
        spec: the released ``model.yaml``: contract, slices and the policy.
        release: the version's evidence; without it neither predictions nor performance are judged.
        labelled: labelled rows that arrived, with the captured files that hold their predictions.
        scratch: where DuckDB may spill; default: a temporary folder.
        predictions: whether what was predicted may be looked at.
    """
    with TemporaryDirectory(dir=scratch) as folder:
        joined, target = _labelled(labelled, spec, span, Path(folder))
        until = None if span.since is None else span.now
        with open_window(
            span.files, Path(folder), span.version, since=span.since, until=until
        ) as window:
            answered = service(window)
            rows = window.rows
            found = _predicted(release, spec) if predictions else _prediction(*HIDDEN, spec)
            cases, others = _cases(window, reference, spec, found, Path(folder))
            drifting = _Drift.of(window, spec, rows, cases)
            if target is not None:
                cases = [*cases, _target_case(target, reference, spec)]
            reports = {r.column: r for r in others + drifting.judge(cases, spec)}
            unreadable = [*window.unreadable, *(joined.unreadable if joined else ())]
    kept = [n for n in spec.data.columns if n in reports and n != spec.data.target]
    performance = None
    if joined is not None and release is not None:
        performance = live.judge(joined, spec, release)
    report = Report(
        model=spec.name,
        version=span.version,
        time=span.now,
        service=answered,
        rows=rows,
        repeated=drifting.repeated,
        effective_rows=drifting.effective,
        reference_rows=pq.read_metadata(reference).num_rows,
        unreadable=unreadable,
        columns=[reports[name] for name in kept],
        prediction=reports[PREDICTION],
        target=reports.get(spec.data.target),
        performance=performance,
        verdicts=[],
    )
    asked = answered.last or span.asked_before()
    fresh = Fresh(span.now, asked, span.last_data, span.serves)
    return report.model_copy(update={"verdicts": verdicts(report, spec.monitoring, fresh)})


def compare_snapshots(
    reference: Path, current: Path, spec: ModelSpec, scratch: Path | None = None
) -> list[ColumnReport]:
    """Whether features and target of one snapshot are distributed as in another.

    Args:
        reference: Parquet that things should be as in.
        current: Parquet that is judged; a column missing in either is passed over.
        spec: the contract, and what counts as a move.
        scratch: where DuckDB may spill; default: a temporary folder.
    """
    shared = set(pq.read_schema(reference).names) & set(pq.read_schema(current).names)
    names = [n for n in [*spec.features, spec.data.target] if n in shared]
    columns = {n: spec.data.columns[n] for n in names if n not in spec.monitoring.ignore}
    bins = {n: bins_of(reference, n, c) for n, c in columns.items() if kind_of(c) != "time"}
    usable = {n: b for n, b in bins.items() if b.present and not b.free_text}
    with (
        TemporaryDirectory(dir=scratch) as folder,
        open_window([current], Path(folder), captured=False) as window,
    ):
        counts = count(window, usable, columns)
    cases = [Case(n, kind_of(columns[n]), usable[n], counts[n]) for n in usable]
    cases = [case for case in cases if case.counts.rows]
    return judge(cases, spec.monitoring.false_alarm_rate, spec.monitoring.effect)


# -- which columns can be judged


def _cases(
    window: Window,
    reference: Path,
    spec: ModelSpec,
    predicted: Bins | ColumnReport,
    scratch: Path,
) -> tuple[list[Case], list[ColumnReport]]:
    """Columns to judge, and what is said of those that cannot be."""
    bins: dict[str, Bins] = {}
    others: list[ColumnReport] = []
    known = set(pq.read_schema(reference).names)
    for name, column in spec.data.columns.items():
        if name in spec.data.key or name == spec.data.target:
            continue  # entities are new by nature; the target comes with labels
        reason = _untested(name, column, window, spec, known)
        if reason is not None:
            others.append(_without(name, column, *reason))
            continue
        found = bins_of(reference, name, column)
        if not found.present:
            says = "empty in every row it was trained on, so that there is nothing to compare with"
            others.append(_without(name, column, "empty_in_training", says))
        elif found.free_text:
            says = "free text: too many different values to be compared"
            others.append(_without(name, column, "free_text", says))
        else:
            bins[name] = found
    if window.rows and bins:
        _count_repeated_once(window, reference, list(bins), scratch)
    if isinstance(predicted, ColumnReport):
        others.append(predicted)
    else:
        bins[PREDICTION] = predicted
    counts = count(window, bins, spec.data.columns)
    cases = [
        Case(n, _kind(n, spec), b, counts[n])
        for n, b in bins.items()
        if n in counts and counts[n].rows
    ]
    for name in bins.keys() - {case.name for case in cases}:
        says = "no row in the window"
        if name == PREDICTION:
            others.append(_prediction("too_few_rows", says, spec))
        else:
            others.append(_without(name, spec.data.columns[name], "too_few_rows", says))
    return cases, others


def _untested(
    name: str, column: Column, window: Window, spec: ModelSpec, known: set[str]
) -> tuple[Outcome, str] | None:
    if window.files and not window.holding(name):
        return HIDDEN
    if name in spec.monitoring.ignore:
        return "ignored", "moves by itself, says monitoring.ignore"
    if not column.feature:
        return "ignored", "not a feature"
    if kind_of(column) == "time":
        return "time", "a time, which moves by itself"
    if name not in known:
        return "unknown", "not in the snapshot that the version was trained on"
    return None


def _without(name: str, column: Column, outcome: Outcome, reason: str) -> ColumnReport:
    return ColumnReport(column=name, kind=kind_of(column), outcome=outcome, reason=reason)


def _kind(name: str, spec: ModelSpec) -> Any:
    if name == PREDICTION:
        return "number" if spec.task == "regression" else "category"
    return kind_of(spec.data.columns[name])


def _predicted(release: Evidence | None, spec: ModelSpec) -> Bins | ColumnReport:
    """The predictions at release, or why they cannot be judged."""
    if release is None or release.predictions is None:
        says = "released before the distribution of predictions was kept"
        return _prediction("unknown", says, spec)
    return of_predictions(release.predictions)


def _prediction(outcome: Outcome, reason: str, spec: ModelSpec) -> ColumnReport:
    kind = _kind(PREDICTION, spec)
    return ColumnReport(column=PREDICTION, kind=kind, outcome=outcome, reason=reason)


def _count_repeated_once(window: Window, reference: Path, names: list[str], scratch: Path) -> None:
    """Equal rows count once, where there are more of them than come about by chance."""
    names = [n for n in names if len(window.holding(n)) == len(window.files)]
    found = repeats(window, names) if names else None
    if found is None or found.distinct >= DISTINCT:
        return
    with open_window([reference], scratch, captured=False) as snapshot:
        natural = repeats(snapshot, names)
    # Chance that two rows are equal; at most, for few equal ones in the snapshot are no sure count.
    chance = float(special.gammaincinv(natural.equal + 1, SURE)) / max(natural.pairs, 1.0)
    # Of the different rows, how many would be equal by chance and yet count once.
    lost = chance * found.rows * found.distinct / 2
    if found.equal > chance * found.pairs and lost <= LOST:
        count_repeated_once(window, names)


# -- rows that count


@dataclass(frozen=True)
class _Drift:
    """How many rows count, and the requests they came in."""

    repeated: int
    effective: int
    requests: Requests | None
    codes: dict[str, Array]

    @classmethod
    def of(cls, window: Window, spec: ModelSpec, rows: int, cases: list[Case]) -> _Drift:
        judged = window.rows
        found = None
        if rows and spec.monitoring.rows == "by_request":
            found = requests(window, {case.name: case.bins for case in cases})
        share = 1.0 if window.table is None else judged / rows
        if found is None:
            return cls(round(rows * (1 - share)), judged, None, {})
        of, codes = found
        effective = judged if of.total >= LEAST else of.total
        return cls(round(rows * (1 - share)), effective, of, codes)

    def judge(self, cases: list[Case], spec: ModelSpec) -> list[ColumnReport]:
        """Judge all columns together; too few rows are judged by nobody."""
        policy = spec.monitoring
        if self.effective < policy.minimum_rows:
            least = f"monitoring.minimum_rows is {policy.minimum_rows}"
            few = f"{self.effective} independent rows, {least}"
            return [
                ColumnReport(column=c.name, kind=c.kind, outcome="too_few_rows", reason=few)
                for c in cases
            ]
        with_requests = [
            Case(c.name, c.kind, c.bins, c.counts, self.requests, self.codes.get(c.name))
            for c in cases
        ]
        return judge(with_requests, policy.false_alarm_rate, policy.effect)


# -- labels


def _labelled(
    labelled: Labelled | None, spec: ModelSpec, span: Span, folder: Path
) -> tuple[Joined | None, pa.ChunkedArray | None]:
    if labelled is None or not labelled.files:
        return None, None
    with open_window(labelled.captured, folder, span.version, until=span.now) as window:
        joined = join(window, labelled, spec)
    enough = joined.table.num_rows >= spec.monitoring.performance.minimum_rows
    return joined, joined.table.column(TARGET) if enough else None


def _target_case(targets: pa.ChunkedArray, reference: Path, spec: ModelSpec) -> Case:
    """The target's rate, from labels; no rows of one request, since each key has one row."""
    name = spec.data.target
    column = spec.data.columns[name]
    bins = bins_of(reference, name, column)
    kind = kind_of(column)
    values = np.array(targets.to_pylist(), dtype=object)
    codes = bins.codes(values)
    known = codes[codes >= 0]
    counts = np.bincount(known, minlength=len(bins.counts)).astype(float)
    mean = float(np.mean(values.astype(float))) if kind == "number" and len(values) else None
    unseen = Counter(name_of(v) for v in values.tolist()) if kind == "category" else Counter[str]()
    new = Counter({v: n for v, n in unseen.items() if v not in {*bins.names, *bins.known}})
    found = Counts(
        rows=len(values),
        missing=int((codes < 0).sum()),
        bins=counts,
        mean=mean,
        new_values=tuple(NewValue(value=shortened(v), rows=n) for v, n in new.most_common(NAMED)),
        new_rows=new.total(),
    )
    return Case(name, kind, bins, found)
