"""The one deployment algorithm, for every target, and the samples it judges by.

stage the version beside the live one -> ask it the environment's samples -> copy requests to it,
where the environment says so -> move the traffic in steps, asking again after each, and judging
it beside the live one for as long as the step lasts -> discard the old one. On any failure the new
one is discarded: the old one never stopped serving. A run may be killed between any two lines; the
next one finds out from the target what is left, and cleans up.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from mlops_assets.samples import Sample, SampleResult, load_samples, run_sample, run_samples
from mlops_assets.trial import CanaryError, StepJudgement, Trial
from resources.endpoints.base import Deployment, EndpointError, Request, Target, VersionRef
from resources.traffic import Traffic

__all__ = [
    "Rollout",
    "RolloutError",
    "Sample",
    "SampleError",
    "SampleResult",
    "load_samples",
    "roll_out",
    "run_sample",
]

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a rollout did."""

    outcome: Literal["deployed", "unchanged"]
    version: int
    #: The version that served before; None at an endpoint's first deployment.
    previous: int | None
    #: The new version's own answers, of the last time that each sample was asked.
    samples: tuple[SampleResult, ...]
    #: ISO 8601, UTC.
    started: str
    ended: str
    #: How it did beside the previous version, for each step that was watched.
    judgements: tuple[StepJudgement, ...] = ()


class RolloutError(Exception):
    """A version was not rolled out; the endpoint serves what it served before."""

    def __init__(self, message: str, judgements: tuple[StepJudgement, ...] = ()) -> None:
        super().__init__(message)
        #: How it did until then beside the version that serves.
        self.judgements = judgements


class SampleError(RolloutError):
    """A sample was not answered as expected; names the sample, the answer, the expectation."""


#: All the traffic at once.
AT_ONCE = Traffic()


def roll_out(
    target: Target,
    version: VersionRef,
    samples: Sequence[Sample],
    *,
    traffic: Traffic = AT_ONCE,
    log: Log = lambda _: None,
) -> Rollout:
    """Make a version the one that serves.

    Args:
        target: the endpoint, held by the caller.
        version: what shall serve.
        samples: requests that it must answer as they expect, before and after it has traffic.
        traffic: how traffic comes to it, where another version has it now.
        log: told every step.

    Raises:
        RolloutError: the version was discarded and the previous one serves as before.
    """
    started = _now()
    live = _serving(target)
    if len(live) == 1 and _is(live[0], version):
        return _confirm(target, version, samples, live[0], started, log)
    previous = _settle(target, version, log)
    before = None if previous is None else previous.version
    trial = None if previous is None else Trial(target, previous.name, traffic.limits, log)
    try:
        staged = target.stage(version)
        log(f"{staged.name} is loaded; asking it {len(samples)} samples")
        results = _ask(target, staged.name, samples)
        if trial is None:  # there is nothing to compare with
            results = _promote(target, staged.name, 100, None, samples, log)
        else:
            results = _advance(target, version, staged.name, samples, traffic, trial, log)
    except BaseException as error:
        _undo(target, version, previous, error, log)
        _raise(version, previous, error, trial)
    _clean_up(target, version, log)
    watched = tuple(trial.judgements) if trial else ()
    return Rollout("deployed", version.version, before, results, started, _now(), watched)


def _ask(
    target: Target, deployment: str | None, samples: Sequence[Sample]
) -> tuple[SampleResult, ...]:
    """Ask every sample; raises SampleError with those that are not answered as expected."""
    results = run_samples(
        lambda payload: target.score(deployment, Request.sample(payload)), samples
    )
    failed = [str(result) for result in results if result.problems]
    if failed:
        raise SampleError("\n".join(failed))
    return results


def _advance(
    target: Target,
    version: VersionRef,
    staged: str,
    samples: Sequence[Sample],
    traffic: Traffic,
    trial: Trial,
    log: Log,
) -> tuple[SampleResult, ...]:
    if traffic.mirror_percent:
        target.stage(version, traffic.mirror_percent)
        log(f"{traffic.mirror_percent} % of the requests are copied to {staged}; watching")
        trial.watch_mirrored(staged, traffic.mirror_percent, traffic.mirror_seconds)
    results: tuple[SampleResult, ...] = ()
    for step in traffic.steps:
        results = _promote(target, staged, step.percent, traffic.sticky_header, samples, log)
        if step.seconds:
            trial.watch(staged, step.percent, step.seconds)
    return results


def _promote(
    target: Target,
    staged: str,
    percent: int,
    sticky_header: str | None,
    samples: Sequence[Sample],
    log: Log,
) -> tuple[SampleResult, ...]:
    target.promote(staged, percent, sticky_header)
    log(f"{staged} has {percent} % of the traffic; watching")
    # At 100 % as a client asks: without naming the deployment.
    return _ask(target, None if percent == 100 else staged, samples)


def _confirm(
    target: Target,
    version: VersionRef,
    samples: Sequence[Sample],
    serving: Deployment,
    started: str,
    log: Log,
) -> Rollout:
    """This version serves already: say so, if it still answers as expected."""
    try:
        results = _ask(target, serving.name, samples)
    except SampleError as error:
        raise RolloutError(
            f"version {version.version} serves already, and is left serving, but {error}"
        ) from error
    _clean_up(target, version, log)
    log(f"version {version.version} serves already; nothing to do")
    return Rollout(
        "unchanged", version.version, version.version, results, started, _now()
    )  # fmt: skip


def _settle(target: Target, version: VersionRef, log: Log) -> Deployment | None:
    """Undo what a killed run left: one deployment serves, or none, and there is no other."""
    serving = _serving(target)
    if not serving:
        keep = None
    else:
        # Of two that share the traffic the one to be rolled out is the one that is on trial.
        keep = max(serving, key=lambda d: (not _is(d, version), d.traffic))
        if len(serving) > 1:
            log(f"an earlier rollout did not end; {keep.name} gets all the traffic back")
            target.promote(keep.name, 100)
    for name in target.live():
        if keep is None or name != keep.name:
            log(f"discarding {name}, left by a rollout that did not end")
            target.discard(name)
    return keep


def _undo(
    target: Target,
    version: VersionRef,
    previous: Deployment | None,
    error: BaseException,
    log: Log,
) -> None:
    try:
        live = target.live()
        if previous is not None and live[previous.name].traffic != 100:
            target.promote(previous.name, 100)
        for deployment in live.values():
            if _is(deployment, version) and deployment != previous:
                target.discard(deployment.name)
                log(f"{deployment.name} is discarded")
    except Exception as second:  # what happened first is what people must read
        error.add_note(f"and cleaning up failed, the next rollout does it: {second}")


def _raise(
    version: VersionRef, previous: Deployment | None, error: BaseException, trial: Trial | None
) -> NoReturn:
    if not isinstance(error, Exception):
        raise error  # an interrupted run stays one
    state = (
        "nothing serves"
        if previous is None
        else f"version {previous.version} serves as before"
    )  # fmt: skip
    if isinstance(error, (SampleError, EndpointError, CanaryError)):
        reason = str(error)
    else:
        reason = f"{type(error).__name__}: {error}"
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    message = f"version {version.version} was discarded, {state}: {reason}{notes}"
    raise RolloutError(message, tuple(trial.judgements) if trial else ()) from error


def _clean_up(target: Target, version: VersionRef, log: Log) -> None:
    """Discard what has no traffic any more; what stays, the next rollout discards."""
    try:
        for name, deployment in target.live().items():
            if not _is(deployment, version) and deployment.traffic == 0:
                target.discard(name)
                log(f"{name} is discarded")
    except EndpointError as error:
        log(f"the version serves; discarding the old one is left to the next rollout: {error}")


def _serving(target: Target) -> list[Deployment]:
    return [d for d in target.live().values() if d.traffic > 0]


def _is(deployment: Deployment, version: VersionRef) -> bool:
    return deployment.version == version.version and deployment.digest == version.digest


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
