"""What a look at one window found; written as JSON, read back by whoever asks for a revision."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import Field

from mlops_assets.evidence import Interval, Record

Status = Literal["ok", "alarm", "too_few_rows", "unknown"]
#: What a column's values are: numbers on a scale, names, or times, which move by themselves.
Kind = Literal["number", "category", "time"]
Outcome = Literal[
    "same",
    "moved",
    "time",
    "ignored",
    "not_captured",
    "empty_in_training",
    "free_text",
    "too_few_rows",
    "unknown",
]


class Verdict(Record):
    """One question, its answer, and one sentence that names columns and numbers."""

    name: Literal["drift", "performance", "freshness"]
    status: Status
    reason: str


class Service(Record):
    """How the endpoint answered in the window."""

    requests: int
    rows: int
    #: Requests answered with 5xx, and with 4xx.
    failed: int
    refused: int
    #: Share of failed requests; None without a request.
    error_rate: float | None
    #: Milliseconds of a whole request.
    p50_ms: float | None
    p95_ms: float | None
    first: dt.datetime | None
    last: dt.datetime | None


class Change(Record):
    """One test of one column."""

    what: Literal["distribution", "missing", "new_values", "contract"]
    #: Chance of as much or more where nothing moved, corrected for all tests of the window.
    p: float
    #: Whether it is both beyond chance and large enough to matter.
    alarm: bool
    words: str


class NewValue(Record):
    """A value that the reference never has."""

    value: str
    rows: int


class Bar(Record):
    """One bin of a distribution: its name and its share of the rows, then and now."""

    name: str
    then: float
    now: float


class ColumnReport(Record):
    """One column of the window beside the reference."""

    column: str
    kind: Kind
    outcome: Outcome
    #: What moved, or why there is no answer.
    reason: str = ""
    #: Rows in the window that count as independent ones, and rows of the reference.
    effective_rows: int = 0
    reference_rows: int = 0
    psi: float | None = None
    #: The greatest index that chance explains at these numbers of rows.
    psi_noise: float | None = None
    #: Difference of the means in standard deviations of the reference.
    shift: float | None = None
    mean_then: float | None = None
    mean_now: float | None = None
    missing_then: float | None = None
    missing_now: float | None = None
    new_values: list[NewValue] = Field(default_factory=list[NewValue])
    #: Rows outside of model.yaml's minimum, maximum, categories or type.
    violations: int = 0
    changes: list[Change] = Field(default_factory=list[Change])
    bars: list[Bar] = Field(default_factory=list[Bar])

    @property
    def moved(self) -> bool:
        """Whether this column alarms."""
        return self.outcome == "moved"


class LiveMetric(Record):
    """A metric of the live predictions beside its value at release, in the metric's unit."""

    metric: str
    live: Interval
    release: Interval | None
    #: live - release, at the confidence that the policy's false alarm rate asks for.
    difference: Interval | None
    worse: bool


class LiveSlice(Record):
    """The primary metric where one column has one value."""

    column: str
    value: Any
    rows: int
    status: Status
    metric: LiveMetric | None = None


class Performance(Record):
    """Labelled rows beside what the version predicted for them."""

    #: The metric that decides.
    primary: str
    tolerance: float
    labelled: int
    #: Labelled rows whose prediction was captured.
    joined: int
    #: Labels that are not as the contract wants them, and were left out.
    unfit: int = 0
    metrics: list[LiveMetric] = Field(default_factory=list[LiveMetric])
    slices: list[LiveSlice] = Field(default_factory=list[LiveSlice])
    #: Why there is no figure; empty if there is.
    problem: str = ""


class Report(Record):
    """All that one look at a window found."""

    format: int = 1
    model: str
    version: int | None
    time: dt.datetime
    #: First and last request of the window.
    service: Service
    #: Rows judged, how many of them repeat another, and how many count as independent.
    rows: int
    repeated: int
    effective_rows: int
    reference_rows: int
    #: Files that could not be read.
    unreadable: list[str] = Field(default_factory=list[str])
    columns: list[ColumnReport]
    prediction: ColumnReport
    target: ColumnReport | None = None
    performance: Performance | None = None
    verdicts: list[Verdict]
    #: Name of a verdict -> since when its alarm goes on; carried over from report to report, so
    #: that it stays however many there are. Reports of earlier releases have none.
    since: dict[str, dt.datetime] = Field(default_factory=dict[str, dt.datetime])

    @property
    def moved(self) -> list[ColumnReport]:
        """Whatever alarms: columns, the prediction, the target; the surest first."""
        all_columns = [*self.columns, self.prediction, *([self.target] if self.target else [])]
        found = [column for column in all_columns if column.moved]
        return sorted(found, key=lambda c: min((h.p for h in c.changes), default=1.0))

    def verdict(self, name: str) -> Verdict:
        """The verdict on drift, performance or freshness."""
        return next(verdict for verdict in self.verdicts if verdict.name == name)
