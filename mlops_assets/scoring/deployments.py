"""The versions inside a running server: loaded beside one another, swapped in one assignment."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.generation import (
    NOTHING_YET,
    Entry,
    Generation,
    GenerationError,
    GenerationFile,
)
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.mirror import Mirror
from mlops_assets.scoring.predictor import SAMPLE, Predictor, checked_bytes, read_manifest
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.signature import require_signature

#: Seconds between two looks at the wanted state: one system call each.
POLL_SECONDS = 0.05
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """One version, loaded."""

    name: str
    entry: Entry
    predictor: Predictor
    #: While it is on trial the schema of the deployment that it is compared with: its predictions
    #: are counted by that one's buckets too.
    reference: Schema | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What a server serves at one moment; never changed, only replaced as a whole.

    A request keeps the one it began with, so a version lives until its last request is answered.
    """

    number: int = NOTHING_YET
    deployments: dict[str, Deployment] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    #: Name of the header whose values decide who goes where, in lower case; None where there is
    #: nothing to decide.
    sticky: bytes | None = None
    #: What takes copies of requests.
    mirror: Mirror | None = None
    #: The one deployment that has traffic; None where none has, or several.
    only: Deployment | None = field(init=False)
    _live: tuple[Deployment, ...] = field(init=False, repr=False)
    _shares: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out once what every request asks."""
        live = tuple(d for d in self.deployments.values() if d.entry.traffic > 0)
        shares = tuple(accumulate(d.entry.traffic for d in live))
        only = live[0] if len(live) == 1 else None
        found = {"only": only, "_live": live, "_shares": shares}
        for name, value in found.items() if len(live) > 1 else [*found.items(), ("sticky", None)]:
            object.__setattr__(self, name, value)

    def pick(self, name: str | None, sticky_value: bytes | None = None) -> Deployment:
        """The deployment that a request goes to.

        Args:
            name: the one that it asks for.
            sticky_value: what it has in the header ``sticky``; requests with the same value go
                the same way, in every process.

        Raises:
            RequestError: there is none of that name, or none has traffic.
        """
        if name is not None:
            return self._named(name)
        if self.only is not None:
            return self.only
        if not self._live:
            raise RequestError("no deployment has traffic here", 503, "no_deployment")
        if sticky_value is not None:
            # Exponential clocks, each as quick as its share is great: the first one to ring wins.
            # A share that grows only makes its own clock quicker, so whoever is there stays.
            return min(self._live, key=lambda d: _clock(d.name, sticky_value) / d.entry.traffic)
        return random.choices(self._live, cum_weights=self._shares)[0]  # noqa: S311

    def _named(self, name: str) -> Deployment:
        found = self.deployments.get(name)
        if found is not None:
            return found
        if name in self.errors:
            message = f"deployment {name!a} could not be loaded"
            raise RequestError(message, 503, "no_deployment")
        known = ", ".join(self.deployments) or "none"
        message = f"no deployment {ascii(name)[:60]}; there are: {known}"
        raise RequestError(message, 404, "no_deployment")


def _clock(name: str, value: bytes) -> float:
    """A number from the exponential distribution, the same for the same arguments."""
    digest = blake2b(name.encode() + b"\0" + value, digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 1) / 2**64)


class Deployments:
    """Follows a generation file: loads what is new in a thread, then swaps."""

    def __init__(
        self,
        file: GenerationFile,
        acknowledge: Callable[[Serving], None] = lambda _: None,
        metrics: Metrics | None = None,
    ) -> None:
        """Nothing is served before the first ``update``.

        Args:
            file: the wanted state.
            acknowledge: told what is served, after every change.
            metrics: counts what is mirrored.
        """
        self.serving = Serving()
        self._file = file
        self._acknowledge = acknowledge
        self._metrics = metrics or Metrics()
        # One thread of its own: a load never waits for the scoring of large batches.
        self._thread = ThreadPoolExecutor(1, "deployments")

    async def follow(self) -> None:
        """Keep up with the file until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._file.changed():
                await self.update()

    async def update(self) -> None:
        """Read the wanted state, load what is new, swap, acknowledge."""
        loop = asyncio.get_running_loop()
        before = self.serving
        try:
            self.serving = await loop.run_in_executor(self._thread, self._next)
            if before.mirror is not None and before.mirror is not self.serving.mirror:
                before.mirror.close()
            await loop.run_in_executor(self._thread, self._acknowledge, self.serving)
        except GenerationError as error:
            logger.error("%s; generation %d goes on serving", error, self.serving.number)
        except Exception:
            logger.exception("generation %d goes on serving", self.serving.number)

    def _next(self) -> Serving:
        generation = self._file.read()
        loaded, errors = self._load(generation)
        shares = {name: d.entry.traffic for name, d in loaded.items()}
        logger.info("generation %d: traffic %s, errors %s", generation.number, shares, errors)
        header = generation.sticky_header
        sticky = header.encode() if header else None
        return Serving(generation.number, loaded, errors, sticky, self._mirror(loaded))

    def _load(self, generation: Generation) -> tuple[dict[str, Deployment], dict[str, str]]:
        loaded: dict[str, Deployment] = {}
        errors: dict[str, str] = {}
        oldest: Schema | None = None
        for name, entry in generation.deployments.items():
            try:
                predictor = self._predictor(entry)
                schema = predictor.schema
                reference = oldest if oldest and oldest.task == schema.task else None
                if entry.compared is not None:
                    reference = replace(schema, edges=entry.compared)
                loaded[name] = Deployment(name, entry, predictor, reference)
                oldest = oldest or schema
            except (Exception, SystemExit) as error:  # unpickling may run anything
                logger.exception("deployment %s cannot be loaded", name)
                errors[name] = f"{type(error).__name__}: {error}"
        return loaded, errors

    def _mirror(self, loaded: dict[str, Deployment]) -> Mirror | None:
        wanted = next((d for d in loaded.values() if d.entry.mirror and not d.entry.traffic), None)
        if wanted is None:
            return None
        running = self.serving.mirror
        if running is not None and running.deployment.entry == wanted.entry:
            return running
        return Mirror(wanted, self._metrics.mirror(wanted.name))

    def _predictor(self, entry: Entry) -> Predictor:
        for deployment in self.serving.deployments.values():
            loaded = deployment.entry
            if (loaded.digest, loaded.signed) == (entry.digest, entry.signed):
                return deployment.predictor
        bundle = Path(entry.bundle)
        if entry.signed is not None:
            require_signature(bundle, entry.digest, entry.signed)
        predictor = Predictor.load(bundle, entry.digest)
        _warm_up(predictor, bundle)
        return predictor


def _warm_up(predictor: Predictor, bundle: Path) -> None:
    """Answer the version's own sample: the first request is quick, and a model that cannot fails.

    Raises:
        IntegrityError: the sample is not the one that was registered.
    """
    manifest, _ = read_manifest(bundle, predictor.digest)
    if SAMPLE in manifest["files"]:
        predictor.predict(json.loads(checked_bytes(bundle, SAMPLE, manifest))["input"])
