"""What an endpoint is to those who deploy: five verbs and a question, whatever stands behind."""

from __future__ import annotations

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mlops_assets.errors import UserError
from mlops_assets.scoring.capture.settings import OWN_REQUEST
from mlops_assets.scoring.keys import Role
from mlops_assets.scoring.signature import Signed


class EndpointError(UserError):
    """An endpoint cannot do what was asked; the message names it and the mend."""


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A registered version, as a deployment needs it."""

    model: str
    version: int
    #: SHA-256 of the bundle's manifest.
    digest: str
    bundle: Path
    #: By whom it must be signed; None where the environment does not ask.
    signed: Signed | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version inside an endpoint."""

    name: str
    version: int
    digest: str
    #: Percent of the requests that name no deployment.
    traffic: int


@dataclass(frozen=True, slots=True)
class Request:
    """A scoring request; the target adds its address and its key."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    #: False leaves the key out: the answer must be 401.
    authorized: bool = True

    @classmethod
    def of(cls, payload: Any, *, authorized: bool = True) -> Request:
        """The request whose body is ``payload`` as JSON."""
        return cls(json.dumps(payload).encode(), authorized=authorized)

    @classmethod
    def sample(cls, payload: Any, *, authorized: bool = True) -> Request:
        """The same, by an id that says that no application asks; monitoring leaves it out."""
        own = {"x-request-id": f"{OWN_REQUEST}{secrets.token_hex(8)}"}
        return cls(json.dumps(payload).encode(), own, authorized)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    #: Names in lower case.
    headers: Mapping[str, str]
    #: From the first byte sent to the last one received.
    seconds: float

    def json(self) -> Any:
        """The body's JSON value; raises ValueError."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted about requests of one kind."""

    #: Requests that were answered with predictions.
    answered: int = 0
    #: With a status from 400 to 499.
    refused: int = 0
    #: With a status of 500 or more.
    failed: int = 0
    #: Upper bound in seconds -> requests that took longer than the bound before and not longer
    #: than this one; the last bound is infinite.
    seconds: Mapping[float, int] = field(default_factory=dict)
    #: Bucket -> predicted rows, in buckets that all deployments of the endpoint have in common.
    predictions: Mapping[str, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All of them."""
        return self.answered + self.refused + self.failed

    def since(self, earlier: Counts) -> Counts:
        """What came after an earlier moment."""
        return Counts(
            max(0, self.answered - earlier.answered),
            max(0, self.refused - earlier.refused),
            max(0, self.failed - earlier.failed),
            _since(self.seconds, earlier.seconds),
            _since(self.predictions, earlier.predictions),
        )


def summed(counts: Iterable[Counts]) -> Counts:
    """What several have counted together."""
    total = Counts()
    for one in counts:
        total = Counts(
            total.answered + one.answered,
            total.refused + one.refused,
            total.failed + one.failed,
            _sum(total.seconds, one.seconds),
            _sum(total.predictions, one.predictions),
        )
    return total


def _sum(first: Mapping[Any, int], second: Mapping[Any, int]) -> dict[Any, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}


def _since(now: Mapping[Any, int], earlier: Mapping[Any, int]) -> dict[Any, int]:
    # Several workers may say so a moment apart: a sum that one tells is not yet all of the next.
    return {name: max(0, count - earlier.get(name, 0)) for name, count in now.items()}


@dataclass(frozen=True, slots=True)
class Observation:
    """What one deployment has done since it began."""

    #: Requests that it answered.
    served: Counts = field(default_factory=Counts)
    #: Copies of requests that another one answered.
    mirrored: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """An endpoint as a table shows it."""

    model: str
    environment: str
    #: The version with the most traffic; None before the first deployment.
    version: int | None
    #: The scoring URL, ending in ``/score``; None if it never ran.
    url: str | None
    healthy: bool
    #: A command that prints a key, and nothing else.
    key_command: str
    #: The file that it reads, where the keys lie in one.
    key_file: Path | None = None


class Target(Protocol):
    """One endpoint, held by one deployer at a time."""

    @property
    def url(self) -> str:
        """The scoring URL, ending in ``/score``."""
        ...

    def live(self) -> dict[str, Deployment]:
        """All deployments by name, the oldest first."""
        ...

    def stage(self, version: VersionRef, mirror: int = 0) -> Deployment:
        """Load a version beside the others, without traffic; one that is loaded stays so.

        Args:
            version: what to load.
            mirror: percent of the requests that are copied to it once they are answered, until
                it has traffic.

        Raises:
            EndpointError: it cannot be loaded; the endpoint is as before.
        """
        ...

    def score(self, deployment: str | None, request: Request) -> Answer:
        """Ask one deployment, or with None whichever the traffic's shares choose."""
        ...

    def promote(self, deployment: str, percent: int, sticky_header: str | None = None) -> None:
        """Give a deployment that share of the traffic; the others keep theirs of the rest.

        Args:
            deployment: its name.
            percent: 0 to 100.
            sticky_header: while the traffic is shared, requests with the same value of this
                header go the same way, and none leaves a deployment whose share grows.
        """
        ...

    def discard(self, deployment: str) -> None:
        """Remove a deployment once its requests are answered; an unknown one is no error."""
        ...

    def observe(self) -> dict[str, Observation]:
        """What each deployment has done so far, by name; raises EndpointError."""
        ...


def split_traffic(shares: dict[str, int], chosen: str, percent: int) -> dict[str, int]:
    """Percentages when ``chosen`` gets ``percent``: the others share the rest as they did before.

    Where none of the others had any, nobody gets the rest.
    """
    others = {name: share for name, share in shares.items() if name != chosen}
    before, rest = sum(others.values()), 100 - percent
    result = {name: share * rest // before if before else 0 for name, share in others.items()}
    if before:  # what rounding left goes to the greatest
        result[max(others, key=lambda name: others[name])] += rest - sum(result.values())
    return {name: percent if name == chosen else result[name] for name in shares}


S = TypeVar("S")


class Endpoints(ABC, Generic[S]):
    """All endpoints of one kind; ``S`` is how one of them is served."""

    @abstractmethod
    def open(self, model: str, environment: str, settings: S) -> AbstractContextManager[Target]:
        """Hold an endpoint, made or brought back to life where need be.

        One holder at a time: the others wait. A holder that dies holds nothing.

        Raises:
            EndpointError: it cannot be served.
        """

    @abstractmethod
    def status(self, model: str, environment: str) -> EndpointStatus:
        """How an endpoint is; waits for nobody."""

    @abstractmethod
    def serving(self, model: str, environment: str) -> Deployment | None:
        """The deployment with the most traffic, if any has some; asks no server."""

    @abstractmethod
    def ask(self, model: str, environment: str, request: Request) -> Answer:
        """Ask whatever serves; waits for no deployer; raises EndpointError if nothing does."""

    @abstractmethod
    def known(self) -> list[tuple[str, str]]:
        """(model, environment) of every endpoint of this kind that there is."""

    @abstractmethod
    def rotate_key(self, model: str, environment: str, role: Role) -> str:
        """Make a new primary or secondary key; the other one stays valid, and no server restarts.

        Returns:
            Where to read the new one, in words.

        Raises:
            EndpointError: the endpoint has no keys yet.
        """
