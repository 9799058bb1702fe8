"""What follows from a look at production: pure, from verdicts to one thing to do.

Data that has moved is no harm in itself, so it warns. A loss of performance is first answered with
what costs nobody anything, a retraining on newer data; people are asked where that cannot help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlops_assets.monitoring.report import Report
from mlops_assets.revision import Cause

#: What has become of a retraining on the data as it is now.
Retraining = Literal[
    #: Newer data than the serving version's, which nothing was trained on; nobody has asked.
    "possible",
    #: Asked for, and not over.
    "asked",
    #: The newest data is what the serving version was trained on, or it came to that very version.
    "nothing_new",
    #: Ended without a version: the data breaks its contract, or training fails.
    "failed",
    #: Ended with a version that does not pass its gates.
    "refused",
    #: Ended with a version that passes them, and waits for its deployment.
    "passes",
    #: The data cannot be read.
    "unknown",
]
#: Causes of one loss: a request that is open for one of them is the request for all.
OF_LOSS: tuple[Cause, ...] = ("performance", "slice", "gates")
#: Newer data has still to be trained on: what came of the retraining before it counts too.
UNDECIDED: tuple[Retraining, ...] = ("possible", "asked")
Action = Literal["none", "warn", "wait", "retrain", "revise"]

_WORDS: dict[Retraining, tuple[Action, str]] = {
    "possible": ("retrain", "there is newer data: a retraining is asked for"),
    "asked": ("wait", "a retraining on newer data was asked for"),
    "nothing_new": ("revise", "no newer data explains it: a revision is asked for"),
    "failed": ("revise", "the retraining on newer data has failed: a revision is asked for"),
    "refused": ("revise", "the retrained version does not pass its gates: a revision is asked for"),
    "passes": ("wait", "a retrained version passes its gates and waits for its deployment"),
    "unknown": ("wait", "whether there is newer data is not known"),
}


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why, in one sentence."""

    action: Action
    reason: str
    #: Of a revision request.
    cause: Cause | None = None
    #: Whether a retraining is asked for; a revision may be asked for beside it.
    retrains: bool = False


def alarmed(report: Report) -> list[Cause]:
    """The causes that a report gives, by name."""
    found: list[Cause] = []
    if report.verdict("drift").status == "alarm":
        found.append("drift")
    if report.verdict("performance").status == "alarm":
        found.append(_fallen(report))
    return found


def _fallen(report: Report) -> Cause:
    """Whether all rows are worse, or a part of them alone."""
    found = report.performance
    primary = [m for m in found.metrics if m.metric == found.primary] if found else []
    return "performance" if any(metric.worse for metric in primary) else "slice"


def decide(
    report: Report, retraining: Retraining, acts: bool, past: Retraining = "unknown"
) -> Decision:
    """What is to be done about a report.

    Args:
        report: of the version that serves.
        retraining: what has become of a retraining on the data as it is now; looked at only where
            the performance has fallen.
        acts: whether this environment asks for anything; the others warn.
        past: what the last retraining that is over came to, while there is newer data still: where
            it did not help, nobody waits for that one alone.
    """
    causes = alarmed(report)
    if not causes:
        return Decision("none", "nothing to do")
    if causes == ["drift"]:
        status = report.verdict("performance").status
        known = "the performance holds" if status == "ok" else f"performance is {_said(status)}"
        return Decision("warn", f"data has moved, {known}: a warning")
    if not acts:
        return Decision("warn", "performance has fallen; only production asks for anything")
    action, reason = _WORDS[retraining]
    retrains, told = action == "retrain", retraining
    if retraining in UNDECIDED and _WORDS[past][0] == "revise":
        (action, first), told = _WORDS[past], past
        reason = f"{first}; {reason}"
    cause: Cause | None = None
    if action == "revise":
        cause = "gates" if told == "refused" else causes[-1]
    return Decision(action, f"performance has fallen; {reason}", cause, retrains)


def _said(status: str) -> str:
    return "not known" if status == "unknown" else status.replace("_", " ").replace("too", "by too")


def unresolved(report: Report) -> list[Cause]:
    """The causes that a newer version has not yet been shown to be without.

    A performance that nobody could judge yet is no proof: the request stays open until it is.
    """
    found: list[Cause] = []
    if report.verdict("drift").status != "ok":
        found.append("drift")
    if report.verdict("performance").status != "ok":
        found += OF_LOSS
    return found
