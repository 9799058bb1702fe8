"""What the instances of online deployments count: each is asked through the scoring route.

Nobody can ask one instance: whichever is free answers. So each deployment is asked until nothing
new turns up, and what an instance has last said is kept, also when it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlops_assets.scoring.questions import METRICS
from resources.endpoints.base import (
    Answer,
    Counts,
    EndpointError,
    Observation,
    Request,
    summed,
)
from resources.endpoints.observation import observations

#: A round ends after so many answers in a row by instances that it has heard, and two more for
#: each of them: one in a hundred rounds misses one of two instances, and the next hears it.
QUIET = 3
#: Questions of one round at most, to one deployment.
MOST = 64

Ask = Callable[[str, Request], Answer]


@dataclass(frozen=True, slots=True)
class Told:
    """What one instance says."""

    instance: str
    #: Edges of the intervals by which it counts what it predicts; empty for a classifier.
    edges: tuple[float, ...]
    #: Its deployment's name inside of it.
    deployment: str
    metrics: str


@dataclass
class Instances:
    """The instances of one endpoint's deployments."""

    ask: Ask
    #: Deployment -> instance -> what it has said last.
    _heard: dict[str, dict[str, Told]] = field(default_factory=dict)
    #: Deployment -> instances that a whole round has not heard of.
    _gone: dict[str, set[str]] = field(default_factory=dict)

    def one(self, deployment: str) -> Told:
        """What some instance of a deployment says; raises EndpointError."""
        answer = self.ask(deployment, Request(METRICS))
        if answer.status != 200:
            raise EndpointError(
                f"{deployment} does not say what it has counted: it answers {answer.status}; "
                "its image must be of this platform's version"
            )
        return _told(deployment, answer)

    def counts(self, deployment: str, *, oldest: bool) -> Counts:
        """The sum over all instances.

        Args:
            deployment: which.
            oldest: whether others are compared with it, instead of it with another one.

        Raises:
            EndpointError: none answers.
        """
        told = self._round(deployment)
        return summed(_served(one, oldest=oldest) for one in told.values())

    def _round(self, deployment: str) -> dict[str, Told]:
        heard = self._heard.setdefault(deployment, {})
        gone = self._gone.setdefault(deployment, set())
        seen, quiet = set[str](), 0
        for _ in range(MOST):
            told = self.one(deployment)
            quiet = quiet + 1 if told.instance in seen else 0
            seen.add(told.instance)
            heard[told.instance] = told
            if quiet >= QUIET + 2 * len(seen) and heard.keys() <= seen | gone:
                break
        self._gone[deployment] = heard.keys() - seen
        return heard


def _served(told: Told, *, oldest: bool) -> Counts:
    found = observations(told.metrics, told.deployment if oldest else "")
    return found.get(told.deployment, Observation()).served


def _told(deployment: str, answer: Answer) -> Told:
    try:
        value: dict[str, Any] = answer.json()
        edges = tuple(float(edge) for edge in value["edges"])
        return Told(str(value["instance"]), edges, str(value["deployment"]), str(value["metrics"]))
    except (ValueError, KeyError, TypeError) as error:
        text = f"{type(error).__name__}: {error}"
        raise EndpointError(f"{deployment}: no answer to {json.loads(METRICS)}: {text}") from None
