"""Gates: pure functions of what is known about a version and what a policy asks.

Evaluated three times from here: as blocking checks (what people see), in the automation
condition (what waits), and inside the endpoint asset (what refuses). They need no Dagster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlops_assets.evidence import Comparison, Evidence, Integrity, Interval, Manifest
from mlops_assets.spec import (
    METRICS,
    ChampionGate,
    Gates,
    ParityGate,
    ParityLimits,
    SliceGate,
    Threshold,
)

#: Gates of a model, in the order in which people read them, and what each asks.
GATES = {
    "contract": "The data met the contract that the released model.yaml declares.",
    "quality": "Every metric that model.yaml names keeps its limit on the rows held out.",
    "champion": "Not worse than the version that serves production, on the same rows.",
    "slices": "The worst slice that model.yaml names keeps its limit on the rows held out.",
    "provenance": "From a clean commit on the source branch, with its packages on record.",
    "parity": "Where ONNX serves, it answers as the pickle does, on the holdout and at its edges.",
    "integrity": "Every file is what was registered; a fresh process predicts as in training.",
}

#: Gates that hold in development environments too: a version without them answers wrongly.
ALWAYS = ("contract", "parity", "integrity")

Status = Literal["open", "closed", "not_applicable"]


@dataclass(frozen=True)
class Verdict:
    """What one gate says about one version."""

    gate: str
    status: Status
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the gate lets the version through."""
        return self.status != "closed"


@dataclass(frozen=True)
class Facts:
    """All that gates look at."""

    manifest: Manifest
    evidence: Evidence
    integrity: Integrity
    #: Digest of the version itself, and of the one that serves production, if any does.
    digest: str
    champion: str | None
    #: The record of this version against that champion; None where there is none to compare.
    comparison: Comparison | None = None
    #: Set for a return to a version that has served the environment before.
    rollback: bool = False


@dataclass(frozen=True)
class Policy:
    """What is asked for: the model's own gates, tightened by an environment."""

    quality: dict[str, tuple[Threshold, ...]]
    champion: tuple[ChampionGate, ...]
    parity: ParityGate
    slices: tuple[SliceGate, ...] = ()
    #: Takes uncommitted work; only what no version may lack holds: ALWAYS.
    development: bool = False


def policy_of(
    model: Gates,
    quality: dict[str, Threshold] | None = None,
    champion: ChampionGate | None = None,
    parity: ParityLimits | None = None,
    slices: SliceGate | None = None,
    development: bool = False,
) -> Policy:
    """The model's own policy with an environment's limits on top.

    Both must hold, so an environment can never loosen a model's gate.
    """
    limits: dict[str, tuple[Threshold, ...]] = {n: (t,) for n, t in model.quality.items()}
    for name, threshold in (quality or {}).items():
        limits[name] = (*limits.get(name, ()), threshold)
    champions = (model.champion,) if champion is None else (model.champion, champion)
    of_slices = tuple(gate for gate in (model.slices, slices) if gate is not None)
    return Policy(limits, champions, _tightened(model.parity, parity), of_slices, development)


def _tightened(model: ParityGate, extra: ParityLimits | None) -> ParityGate:
    given = {} if extra is None else extra.model_dump(exclude_none=True)
    least = {name: min(value, getattr(model, name)) for name, value in given.items()}
    return model.model_copy(update=least)


def verdicts(facts: Facts, policy: Policy) -> list[Verdict]:
    """What every gate says, in the order of GATES."""
    judged = [
        _contract(facts),
        _quality(facts, policy),
        _champion(facts, policy),
        _slices(facts, policy),
        _provenance(facts),
        _parity(facts, policy.parity),
        _integrity(facts),
    ]
    if not policy.development:
        return judged
    return [v if v.gate in ALWAYS else _waived(v) for v in judged]


class GatesClosedError(Exception):
    """A version may not serve; holds the verdicts."""

    def __init__(self, what: str, judged: Sequence[Verdict]) -> None:
        self.verdicts = list(judged)
        closed = "; ".join(f"{v.gate}: {v.reason}" for v in judged if not v.passed)
        super().__init__(f"{what} is refused, closed gates: {closed}")


def require_open(what: str, judged: Sequence[Verdict]) -> None:
    """Raise GatesClosedError unless every verdict passes; ``what`` names version and place."""
    if not all(verdict.passed for verdict in judged):
        raise GatesClosedError(what, judged)


def table(judged: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table."""
    rows = "\n".join(f"| {v.gate} | {v.status} | {v.reason} |" for v in judged)
    return f"| gate | status | reason |\n|---|---|---|\n{rows}"


def _waived(verdict: Verdict) -> Verdict:
    if verdict.passed:
        return verdict
    reason = f"not required in a development environment ({verdict.reason})"
    return Verdict(verdict.gate, "not_applicable", reason)


def _contract(facts: Facts) -> Verdict:
    met, declared = facts.manifest.snapshot.contract, facts.manifest.contract
    if met != declared:
        return Verdict(
            "contract",
            "closed",
            f"the snapshot met contract {met[:10]}, the released model.yaml declares "
            f"{declared[:10]}; materialize dataset and trained_model again",
        )
    snapshot = facts.manifest.snapshot
    return Verdict("contract", "open", f"{snapshot.rows} rows met the contract")


def _quality(facts: Facts, policy: Policy) -> Verdict:
    closed: list[str] = []
    met: list[str] = []
    greater = METRICS[facts.manifest.task]  # type: ignore[index]
    for name, limits in policy.quality.items():
        interval = facts.evidence.metrics.get(name)
        if interval is None:
            closed.append(f"{name} was not measured")
            continue
        for limit in limits:
            found = _end(interval, limit.on, greater[name])
            bound = limit.minimum if greater[name] else limit.maximum
            assert bound is not None, "the parser wants a bound for each metric"
            passed = found >= bound if greater[name] else found <= bound
            sign = "minimum" if greater[name] else "maximum"
            text = f"{name} {found:.4g} ({limit.on}), {sign} {bound:g}"
            (met if passed else closed).append(text)
    return _joined("quality", closed, met)


def _champion(facts: Facts, policy: Policy) -> Verdict:
    if facts.champion is None:
        return Verdict("champion", "not_applicable", "no version serves production yet")
    if facts.champion == facts.digest:
        return Verdict("champion", "not_applicable", "this version serves production")
    if facts.rollback:
        reason = "a rollback: this version has served the environment before"
        return Verdict("champion", "not_applicable", reason)
    comparison = facts.comparison
    if comparison is None or comparison.champion != facts.champion:
        reason = f"not compared with the version that serves production ({facts.champion[:10]})"
        return Verdict("champion", "closed", reason)
    if comparison.status == "incomparable":
        reason = f"version {comparison.version} cannot be compared: {comparison.reason}"
        return Verdict("champion", "closed", reason)
    closed: list[str] = []
    met: list[str] = []
    for gate in policy.champion:
        metric = comparison.metrics.get(gate.metric)
        if metric is None:
            closed.append(f"{gate.metric} was not compared")
            continue
        greater = METRICS[facts.manifest.task][gate.metric]  # type: ignore[index]
        found = _end(metric.difference, gate.on, greater)
        loss = -found if greater else found
        text = (
            f"{gate.metric} {metric.candidate:.4g} against {metric.champion:.4g} of version "
            f"{comparison.version}: difference {found:+.4g} ({gate.on}), "
            f"tolerance {gate.tolerance:g}"
        )
        (met if loss <= gate.tolerance else closed).append(text)
    return _joined("champion", closed, met)


def _slices(facts: Facts, policy: Policy) -> Verdict:
    if not policy.slices:
        return Verdict("slices", "not_applicable", "model.yaml has no gates.slices")
    closed: list[str] = []
    met: list[str] = []
    for gate in policy.slices:
        greater = METRICS[facts.manifest.task][gate.metric]  # type: ignore[index]
        judged = [
            (float(value), one)
            for one in facts.evidence.slices
            if one.rows >= gate.minimum_rows and (value := one.metrics.get(gate.metric)) is not None
        ]
        if not judged:
            continue
        worst, one = sorted(judged, key=lambda pair: pair[0] if greater else -pair[0])[0]
        text = f"{gate.metric} {worst:.4g} where {one.column} is {one.value} ({one.rows} rows)"
        problems = list(_slice_problems(worst, gate, greater, facts.evidence.metrics))
        (closed if problems else met).append("; ".join([text, *problems]))
    if not closed and not met:
        least = max(gate.minimum_rows for gate in policy.slices)
        return Verdict("slices", "not_applicable", f"no slice with {least} rows has the metric")
    return _joined("slices", closed, met)


def _slice_problems(
    worst: float, gate: SliceGate, greater: bool, whole: Mapping[str, Interval]
) -> Iterator[str]:
    """Which limits the worst slice does not keep."""
    if gate.minimum is not None and worst < gate.minimum:
        yield f"minimum {gate.minimum:g}"
    if gate.maximum is not None and worst > gate.maximum:
        yield f"maximum {gate.maximum:g}"
    if gate.tolerance is None:
        return
    if gate.metric not in whole:
        yield f"{gate.metric} was not measured over all rows"
        return
    value = whole[gate.metric].value
    loss = value - worst if greater else worst - value
    if loss > gate.tolerance:
        yield f"{value:.4g} over all rows, tolerance {gate.tolerance:g}"


def _provenance(facts: Facts) -> Verdict:
    source = facts.manifest.source
    closed: list[str] = []
    if source.experiment is not None:
        closed.append(f"an experiment on {source.experiment}; merge it into {source.branch}")
    if source.dirty:
        closed.append("trained from uncommitted files; commit and release them")
    if not source.on_branch and source.experiment is None:
        closed.append(f"commit {source.commit[:10]} is not on branch {source.branch}; merge it")
    if not facts.manifest.packages:
        closed.append("the installed packages were not recorded")
    met = [f"commit {source.commit[:10]} on {source.branch}"]
    return _joined("provenance", closed, met)


def _parity(facts: Facts, limits: ParityGate) -> Verdict:
    serving, parity = facts.manifest.serving, facts.evidence.parity
    if serving.format == "pickle":
        if parity is not None and parity.wanted == "onnx":
            reason = f"model.yaml says serving.format: onnx, and {parity.reason}"
            return Verdict("parity", "closed", reason)
        return Verdict("parity", "not_applicable", f"serves from the pickle: {serving.reason}")
    found = parity and parity.found
    if found is None:
        reason = "serves from ONNX, and nobody measured how far that agrees with the pickle"
        return Verdict("parity", "closed", reason)
    agrees = found.agrees(limits.tolerance, limits.labels)
    text = f"{found}; tolerance {limits.tolerance:g}, share of labels {limits.labels:g}"
    return Verdict("parity", "open" if agrees else "closed", text)


def _integrity(facts: Facts) -> Verdict:
    integrity = facts.integrity
    if integrity.mismatched:
        names = ", ".join(integrity.mismatched)
        reason = f"files differ from what was registered: {names}; release the model again"
        return Verdict("integrity", "closed", reason)
    if not integrity.loads:
        return Verdict("integrity", "closed", f"does not load: {integrity.error}")
    if integrity.error:
        return Verdict("integrity", "closed", integrity.error)
    return Verdict("integrity", "open", "digests agree; predicts its sample in a fresh process")


def _end(interval: Interval, on: str, greater_is_better: bool) -> float:
    if on == "value":
        return interval.value
    return interval.lower if greater_is_better else interval.upper


def _joined(gate: str, closed: list[str], met: list[str]) -> Verdict:
    if closed:
        return Verdict(gate, "closed", "; ".join(closed))
    return Verdict(gate, "open", "; ".join(met))
