"""A new version on trial: what it and the live one do is observed, and judged while it lasts."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlops_assets.canary import ALPHA, EARLY_ALPHA, Judgement, judge
from resources.endpoints.base import Counts, Observation, Target
from resources.traffic import Limits

#: Seconds between two looks.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StepJudgement:
    """How a new version did at one share of the traffic."""

    #: ``20 % mirrored`` or ``10 %``.
    step: str
    #: Whether users got its answers.
    served: bool
    #: ISO 8601, UTC.
    started: str
    #: How long it was observed.
    seconds: float
    judgement: Judgement

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        return {**found, **found.pop("judgement")}

    def __str__(self) -> str:
        """The verdict and why."""
        reasons = "; ".join(self.judgement.reasons)
        found = f"{self.judgement.verdict} at {self.step} after {self.seconds:.0f} s"
        return f"{found}: {reasons}" if reasons else found


class CanaryError(Exception):
    """A new version does worse than the live one; says in what, with the figures."""


class Trial:
    """The comparison of a new deployment with the live one, step by step."""

    def __init__(
        self, target: Target, live: str, limits: Limits, log: Callable[[str], None]
    ) -> None:
        """A comparison that has not begun.

        Args:
            target: the endpoint.
            live: name of the deployment to compare with.
            limits: how much worse the new one may do.
            log: told the verdicts.
        """
        self._target = target
        self._live = live
        self._limits = limits
        self._log = log
        #: What the live one did in the last step in which it had traffic.
        self._baseline = Counts()
        self.judgements: list[StepJudgement] = []

    def watch(self, new: str, percent: int, seconds: float) -> None:
        """Observe both for a while; a version that is plainly worse is not waited for.

        Args:
            new: name of the deployment on trial.
            percent: its share of the traffic; at 100 the live one's last figures count.
            seconds: how long.

        Raises:
            CanaryError: it must not go on.
            EndpointError: they cannot be observed.
        """
        self._watch(new, f"{percent} %", seconds, mirrored=False, shared=percent < 100)

    def watch_mirrored(self, new: str, percent: int, seconds: float) -> None:
        """The same for copies of requests: what the new one does with them is judged."""
        self._watch(new, f"{percent} % mirrored", seconds, mirrored=True, shared=True)

    def _watch(self, new: str, step: str, seconds: float, *, mirrored: bool, shared: bool) -> None:
        before = self._target.observe()
        began, started = dt.datetime.now(dt.UTC).isoformat(), time.monotonic()
        while True:
            left = started + seconds - time.monotonic()
            time.sleep(max(0.0, min(LOOK_SECONDS, left)))
            now = self._target.observe()
            if shared:
                self._baseline = _of(now, self._live).served.since(_of(before, self._live).served)
            live = self._baseline
            window = _of(now, new).served.since(_of(before, new).served)
            if mirrored:  # only what was answered is copied
                live = replace(live, refused=0, failed=0)
                window = _of(now, new).mirrored.since(_of(before, new).mirrored)
            last = left <= LOOK_SECONDS
            found = judge(live, window, self._limits, ALPHA if last else EARLY_ALPHA)
            if last or found.verdict == "worse":
                break
        passed = round(time.monotonic() - started, 1)
        judged = StepJudgement(step, not mirrored, began, passed, found)
        self.judgements.append(judged)
        self._log(str(judged))
        too_few = found.verdict == "too few requests" and self._limits.too_few == "discard"
        if found.verdict == "worse" or too_few:
            raise CanaryError(str(judged))


def _of(observed: dict[str, Observation], name: str) -> Observation:
    """One that nobody has asked yet is not among the observed."""
    return observed.get(name, Observation())


def table(judgements: Sequence[StepJudgement]) -> str:
    """The judgements as Markdown."""
    lines = [
        "| step | verdict | requests | failed | refused | p95 in ms | stability index | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for judged in judgements:
        figures = judged.judgement.figures
        pairs = [
            _pair(figures, "requests", "{:.0f}"),
            _pair(figures, "failed", "{:.2%}"),
            _pair(figures, "refused", "{:.2%}"),
            _pair(figures, "p95", "{:.3g}"),
        ]
        index = f"{figures['psi']:.3g}" if "psi" in figures else "-"
        step = f"{judged.step}, {judged.seconds:.0f} s"
        why = "; ".join(judged.judgement.reasons) or "-"
        lines.append(f"| {' | '.join([step, judged.judgement.verdict, *pairs, index, why])} |")
    return "\n".join([*lines, "", "Each figure: the new version's, then the live one's."])


def _pair(figures: dict[str, float], what: str, form: str) -> str:
    if f"{what}_new" not in figures:
        return "-"
    return f"{form.format(figures[f'{what}_new'])}, {form.format(figures[f'{what}_live'])}"
