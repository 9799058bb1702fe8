"""What is asked of the data science team when a model in production is no longer what it was.

Pure: from what was found to Markdown, and from what serves now to whether that is resolved.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mlops_assets.markdown import bars, block, code, number, table
from resources.tracker import Request

#: Why a revision is asked for.
Cause = Literal["drift", "performance", "slice", "gates"]
TITLES: dict[Cause, str] = {
    "drift": "its data has moved",
    "performance": "its performance has fallen",
    "slice": "its performance has fallen for a part of the rows",
    "gates": "retrained on new data it does not pass its gates",
}
#: So much of each is shown; what matters most comes first.
COLUMNS, SLICES, ROWS, ROW_COLUMNS, GATES = 15, 15, 10, 12, 10
#: Characters of a name, and of a gate's reason.
NAME, REASON = 40, 150
#: GitHub takes 65,536 characters.
LONGEST_BODY = 60_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class Moved:
    """One column that moved."""

    column: str
    #: What is compared, such as ``mean`` or ``share of new categories``; PSI, p and the like.
    statistic: str
    then: float | None
    now: float | None
    #: How much, in the statistic's own unit, and from where on that is no noise.
    distance: float | None = None
    limit: float | None = None
    #: Shares of the rows in the same buckets; drawn as bars.
    shares_then: Sequence[float] = ()
    shares_now: Sequence[float] = ()


@dataclass(frozen=True)
class Measured:
    """A metric with its 95 % interval, None where there is none."""

    value: float
    lower: float | None = None
    upper: float | None = None

    def __str__(self) -> str:
        if self.lower is None or self.upper is None:
            return number(self.value)
        return f"{number(self.value)} ({number(self.lower)} to {number(self.upper)})"


@dataclass(frozen=True)
class Performance:
    """One metric at release and now."""

    metric: str
    then: Measured | None
    now: Measured | None


@dataclass(frozen=True)
class SliceChange:
    """One metric of the rows where a column has one value, at release and now."""

    column: str
    value: Any
    rows: int
    metric: str
    then: Measured | None
    now: Measured | None


@dataclass(frozen=True)
class ClosedGate:
    """A gate that the retrained version did not pass."""

    gate: str
    reason: str


@dataclass(frozen=True)
class Revision:
    """All that a revision request says."""

    model: str
    version: int
    commit: str
    environment: str
    cause: Cause
    #: When it was first seen; aware.
    since: dt.datetime
    #: Rows that it was seen in.
    rows: int
    #: Names of columns whose values may be shown; None for all of them. Of any other column no
    #: value appears, whatever was found about it.
    allowed: Collection[str] | None = None
    columns: Sequence[Moved] = ()
    slices: Sequence[SliceChange] = ()
    performance: Sequence[Performance] = ()
    gates: Sequence[ClosedGate] = ()
    #: Some of the rows.
    sample: Sequence[Mapping[str, Any]] = ()
    #: Where the monitoring is to be seen.
    page: str | None = None
    #: Name -> PNG, of allowed columns; shown by trackers that keep files.
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would be part of a command that people copy.

        Raises:
            ValueError: a name or commit that is none; a time without zone.
        """
        if not (_NAME.fullmatch(self.model) and _NAME.fullmatch(self.environment)):
            raise ValueError(f"no name of a model and an environment: {self.model!r}")
        if not _COMMIT.fullmatch(self.commit):
            raise ValueError(f"no commit: {self.commit!r}")
        if self.since.tzinfo is None:
            raise ValueError("a time has a zone")

    @property
    def branch(self) -> str:
        """The branch that is proposed for the work."""
        return branch_of(self.model, self.version)

    def shows(self, column: str) -> bool:
        """Whether values of a column may be shown."""
        return self.allowed is None or column in self.allowed


def request_of(revision: Revision) -> Request:
    """What a tracker is given."""
    return Request(
        model=revision.model,
        cause=revision.cause,
        version=revision.version,
        title=title(revision),
        body=body(revision),
        pictures=revision.pictures,
    )


def branch_of(model: str, version: int) -> str:
    """The branch on which a version is revised."""
    return f"revise/{model}-{version}"


def title(revision: Revision) -> str:
    """One line."""
    return f"Revise {revision.model} version {revision.version}: {TITLES[revision.cause]}"


def body(revision: Revision) -> str:
    """The request as Markdown: the same findings, in whatever order, give the same text."""
    parts = [
        _summary(revision),
        _performance(revision),
        _columns(revision),
        _slices(revision),
        _gates(revision),
        _sample(revision),
        _work(revision),
    ]
    text = "\n\n".join(part for part in parts if part)
    if len(text) > LONGEST_BODY:  # the sample is what can be missed
        text = "\n\n".join(part for part in (*parts[:5], parts[6]) if part)
    assert len(text) <= LONGEST_BODY, "every part is bounded"
    return text


def _summary(revision: Revision) -> str:
    since = revision.since.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"Version **{revision.version}** of **{revision.model}**, which serves "
        f"**{revision.environment}**, needs a revision: {TITLES[revision.cause]}.",
        "",
        f"- since {since}, last seen in {revision.rows} rows",
        f"- serves commit `{revision.commit}`",
    ]
    if revision.page:
        lines.append(f"- monitoring: <{_address(revision.page)}>")
    return "\n".join(lines)


def _address(url: str) -> str:
    return re.sub(r"[^A-Za-z0-9:/?#=&%._~@,+-]", lambda found: f"%{ord(found[0]):02X}", url)


def _performance(revision: Revision) -> str:
    if not revision.performance:
        return ""
    rows = [
        [code(p.metric), str(p.then or "–"), str(p.now or "–")]
        for p in sorted(revision.performance, key=lambda p: p.metric)
    ]
    header = ["metric", "at release", "now"]
    return f"## Performance\n\n{table(header, rows)}"


def _columns(revision: Revision) -> str:
    if not revision.columns:
        return ""
    found = sorted(revision.columns, key=lambda c: (-_excess(c), c.column, c.statistic))
    rows: list[list[str]] = []
    for moved in found[:COLUMNS]:
        shown = revision.shows(moved.column)
        then, now = (moved.then, moved.now) if shown else (None, None)
        rows.append(
            [
                code(moved.column, NAME),
                code(moved.statistic, NAME),
                number(then),
                number(now),
                number(moved.distance),
                number(moved.limit),
                bars(moved.shares_then) if shown else "",
                bars(moved.shares_now) if shown else "",
            ]
        )
    header = ["column", "statistic", "then", "now", "distance", "noise", "then", "now"]
    return f"## Columns that moved\n\n{table(header, rows)}{_more(found, COLUMNS)}"


def _excess(moved: Moved) -> float:
    if moved.distance is None:
        return 0.0
    return moved.distance / moved.limit if moved.limit else moved.distance


def _slices(revision: Revision) -> str:
    if not revision.slices:
        return ""
    found = sorted(revision.slices, key=lambda s: (_change(s), s.column, str(s.value), s.metric))
    rows = [
        [
            code(s.column, NAME),
            code(s.value) if revision.shows(s.column) else "not shown",
            str(s.rows),
            code(s.metric, NAME),
            str(s.then or "–"),
            str(s.now or "–"),
        ]
        for s in found[:SLICES]
    ]
    header = ["column", "value", "rows", "metric", "at release", "now"]
    return f"## Parts of the rows\n\n{table(header, rows)}{_more(found, SLICES)}"


def _change(found: SliceChange) -> float:
    """The more a slice changed the earlier it comes, whichever way is the worse one."""
    if found.then is None or found.now is None:
        return 0.0
    return -abs(found.now.value - found.then.value)


def _gates(revision: Revision) -> str:
    if not revision.gates:
        return ""
    found = sorted(revision.gates, key=lambda g: g.gate)
    rows = [[code(g.gate, NAME), code(g.reason, REASON)] for g in found[:GATES]]
    return f"## Closed gates of the retrained version\n\n{table(['gate', 'reason'], rows)}"


def _sample(revision: Revision) -> str:
    names = list(dict.fromkeys(n for row in revision.sample for n in row if revision.shows(n)))
    if not names:
        return ""
    shown = names[:ROW_COLUMNS]
    rows = [[code(row.get(name), 40) for name in shown] for row in revision.sample[:ROWS]]
    left = f"\n\n{len(names) - ROW_COLUMNS} more columns" if len(names) > ROW_COLUMNS else ""
    return f"## Some of the rows\n\n{table([code(name, NAME) for name in shown], rows)}{left}"


def _work(revision: Revision) -> str:
    commands = "\n".join(
        [
            f"mlops experiment {revision.model} --branch {revision.branch}",
            f"git push --set-upstream origin {revision.branch}",
        ]
    )
    return (
        "## Work on it\n\n"
        f"The branch `{revision.branch}` begins at the head of the source branch. The first "
        "command makes it where there is none, trains on the newest data, and compares with what "
        "serves on the same rows; nothing is registered.\n\n"
        f"{block(commands)}\n\n"
        "This request closes when a newer version serves, with its gates open and without this "
        "alarm."
    )


def _more(found: Sequence[object], most: int) -> str:
    return f"\n\n{len(found) - most} more" if len(found) > most else ""


def resolves(
    asked: int, cause: str, serving: int | None, gates_open: bool, alarms: Collection[str]
) -> bool:
    """Whether a request is resolved by what serves now.

    Args:
        asked: the version whose revision was asked for.
        cause: of the request.
        serving: the version that serves production, if one does.
        gates_open: whether all gates of it are open there.
        alarms: the causes that the last monitoring of *that* version gives.
    """
    return serving is not None and serving > asked and gates_open and cause not in alarms


def closing(model: str, version: int, commit: str, performance: Sequence[Performance]) -> str:
    """The comment that a request is closed with: the version that resolves it, and its numbers.

    Args:
        model: the model's name.
        version: that resolves it.
        commit: of that version.
        performance: as it was, and of that version.
    """
    text = f"Version **{version}** of **{model}** resolves it, commit {code(commit)}."
    if not performance:
        return text
    rows = [
        [code(p.metric), str(p.then or "–"), str(p.now or "–")]
        for p in sorted(performance, key=lambda p: p.metric)
    ]
    return f"{text}\n\n{table(['metric', 'before', f'version {version}'], rows)}"
