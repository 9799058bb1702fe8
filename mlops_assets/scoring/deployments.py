"""The versions inside a running server: loaded beside one another, swapped in one assignment."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.generation import (
    NOTHING_YET,
    Entry,
    Generation,
    GenerationError,
    GenerationFile,
)
from mlops_assets.scoring.predictor import SAMPLE, Predictor, checked_bytes, read_manifest
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


@dataclass(frozen=True, slots=True)
class Serving:
    """What a server serves at one moment; never changed, only replaced as a whole.

    A request keeps the one it began with, so a version lives until its last request is answered.
    """

    number: int = NOTHING_YET
    deployments: dict[str, Deployment] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def pick(self, name: str | None) -> Deployment:
        """The deployment of that name, or one by the shares of traffic; raises RequestError."""
        if name is not None:
            return self._named(name)
        live = [d for d in self.deployments.values() if d.entry.traffic > 0]
        if len(live) == 1:
            return live[0]
        if not live:
            raise RequestError("no deployment has traffic here", 503, "no_deployment")
        return random.choices(live, [d.entry.traffic for d in live])[0]  # noqa: S311

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


class Deployments:
    """Follows a generation file: loads what is new in a thread, then swaps."""

    def __init__(
        self, file: GenerationFile, acknowledge: Callable[[Serving], None] = lambda _: None
    ) -> None:
        self.serving = Serving()
        self._file = file
        self._acknowledge = acknowledge
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
        try:
            self.serving = await loop.run_in_executor(self._thread, self._next)
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
        return Serving(generation.number, loaded, errors)

    def _load(self, generation: Generation) -> tuple[dict[str, Deployment], dict[str, str]]:
        loaded: dict[str, Deployment] = {}
        errors: dict[str, str] = {}
        for name, entry in generation.deployments.items():
            try:
                loaded[name] = Deployment(name, entry, self._predictor(entry))
            except (Exception, SystemExit) as error:  # unpickling may run anything
                logger.exception("deployment %s cannot be loaded", name)
                errors[name] = f"{type(error).__name__}: {error}"
        return loaded, errors

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
