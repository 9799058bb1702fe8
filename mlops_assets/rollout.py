"""The one deployment algorithm, for every target, and the samples it judges by.

stage the version beside the live one -> ask it the environment's samples -> move the traffic in
steps, asking again after each -> discard the old one. On any failure the new one is discarded:
the old one never stopped serving. A run may be killed between any two lines; the next one finds
out from the target what is left, and cleans up.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn

from mlops_assets.samples import Sample, SampleResult, load_samples, run_sample, run_samples
from resources.endpoints.base import Deployment, EndpointError, Request, Target, VersionRef

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


class RolloutError(Exception):
    """A version was not rolled out; the endpoint serves what it served before."""


class SampleError(RolloutError):
    """A sample was not answered as expected; names the sample, the answer, the expectation."""


def roll_out(
    target: Target,
    version: VersionRef,
    samples: Sequence[Sample],
    *,
    steps: Sequence[int] = (100,),
    log: Log = lambda _: None,
) -> Rollout:
    """Make a version the one that serves.

    Args:
        target: the endpoint, held by the caller.
        version: what shall serve.
        samples: requests that it must answer as they expect, before and after it has traffic.
        steps: percent of the traffic, rising, the last one 100.
        log: told every step.

    Raises:
        RolloutError: the version was discarded and the previous one serves as before.
    """
    if list(steps) != sorted(set(steps)) or not steps or steps[-1] != 100 or steps[0] < 1:
        raise ValueError(f"steps must rise from at least 1 to 100, found {list(steps)}")
    started = _now()
    live = _serving(target)
    if len(live) == 1 and _is(live[0], version):
        return _confirm(target, version, samples, live[0], started, log)
    previous = _settle(target, version, log)
    before = None if previous is None else previous.version
    try:
        results = _advance(target, version, samples, steps, log)
    except BaseException as error:
        _undo(target, version, previous, error, log)
        _raise(version, previous, error)
    _clean_up(target, version, log)
    return Rollout("deployed", version.version, before, results, started, _now())


def _ask(
    target: Target, deployment: str | None, samples: Sequence[Sample]
) -> tuple[SampleResult, ...]:
    """Ask every sample; raises SampleError with those that are not answered as expected."""
    results = run_samples(lambda payload: target.score(deployment, Request.of(payload)), samples)
    failed = [str(result) for result in results if result.problems]
    if failed:
        raise SampleError("\n".join(failed))
    return results


def _advance(
    target: Target, version: VersionRef, samples: Sequence[Sample], steps: Sequence[int], log: Log
) -> tuple[SampleResult, ...]:
    staged = target.stage(version)
    log(f"{staged.name} is loaded; asking it {len(samples)} samples")
    results = _ask(target, staged.name, samples)
    for percent in steps:
        target.promote(staged.name, percent)
        log(f"{staged.name} has {percent} % of the traffic; watching")
        # At 100 % as a client asks: without naming the deployment.
        results = _ask(target, None if percent == 100 else staged.name, samples)
    return results


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


def _raise(version: VersionRef, previous: Deployment | None, error: BaseException) -> NoReturn:
    if not isinstance(error, Exception):
        raise error  # an interrupted run stays one
    state = (
        "nothing serves"
        if previous is None
        else f"version {previous.version} serves as before"
    )  # fmt: skip
    if isinstance(error, (SampleError, EndpointError)):
        reason = str(error)
    else:
        reason = f"{type(error).__name__}: {error}"
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    message = f"version {version.version} was discarded, {state}: {reason}{notes}"
    raise RolloutError(message) from error


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
