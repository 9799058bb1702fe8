"""Endpoints on this machine: a server process each, bound to 127.0.0.1, that outlives its run.

``<root>/<environment>/<model>/`` holds ``generation.json`` (the wanted state, and the truth),
``state.json`` (the running server), ``keys``, ``acks/``, ``lock`` and ``server.log``.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import filelock
import httpx

from mlops_assets.scoring.generation import Entry, Generation, GenerationError, GenerationFile
from mlops_assets.scoring.keys import KEYS, KeyFileError, Role, rotate
from mlops_assets.scoring.supervisor import HOST, Settings, read_state
from resources.endpoints.base import (
    Answer,
    Deployment,
    EndpointError,
    Endpoints,
    EndpointStatus,
    Observation,
    Request,
    Target,
    VersionRef,
)
from resources.endpoints.entries import deployments, most_traffic, promoted, staged, without
from resources.endpoints.lock import held
from resources.endpoints.observation import observations
from resources.endpoints.process import ServerProcess, read_key

#: Seconds that ``stop`` waits for a deployer to end.
STOP_WAIT_SECONDS = 10.0
#: Seconds for one answer.
SCORE_SECONDS = 60.0
DEPLOYMENT = "azureml-model-deployment"
LocalSettings = Settings
logger = logging.getLogger(__name__)


class LocalEndpoints(Endpoints[Settings]):
    """All endpoints below one folder."""

    def __init__(
        self,
        root: Path,
        *,
        timeout: float = 120.0,
        log: Callable[[str], None] = logger.info,
    ) -> None:
        """All endpoints below ``root``.

        Args:
            root: the folder.
            timeout: seconds that workers may take to load a version.
            log: told who is waited for.
        """
        self._root = root.absolute()
        self._timeout = timeout
        self._log = log

    def known(self) -> list[tuple[str, str]]:
        """Every endpoint that was ever opened; see the base class."""
        folders = sorted(path.parent for path in self._root.glob("*/*/settings.json"))
        return [(folder.name, folder.parent.name) for folder in folders]

    @contextmanager
    def open(self, model: str, environment: str, settings: Settings) -> Generator[Target]:
        """Hold an endpoint; see the base class."""
        server = self._server(model, environment)
        with held(server.folder / "lock", f"endpoint {server.name}", log=self._log):
            started = server.ensure(settings)
            target = LocalTarget(server)
            if target.live() and started:
                self._wait(target)
            yield target

    def status(self, model: str, environment: str) -> EndpointStatus:
        """How an endpoint is; see the base class."""
        server = self._server(model, environment)
        last, running = read_state(server.folder), server.running()
        try:
            live = self.serving(model, environment)
        except EndpointError:
            live = None
        return EndpointStatus(
            model=model,
            environment=environment,
            version=live.version if live else None,
            url=None if last is None else url_of(last.port),
            healthy=running is not None and server.healthy(running),
            key_command=f"head -1 {shlex.quote(str(server.folder / KEYS))}",
            key_file=server.folder / KEYS,
        )

    def serving(self, model: str, environment: str) -> Deployment | None:
        """The deployment with the most traffic; see the base class."""
        return most_traffic(LocalTarget(self._server(model, environment)).live())

    def ask(self, model: str, environment: str, request: Request) -> Answer:
        """Ask whatever serves; see the base class."""
        return LocalTarget(self._server(model, environment)).score(None, request)

    def rotate_key(self, model: str, environment: str, role: Role) -> str:
        """Make a new key; see the base class."""
        path = self._server(model, environment).folder / KEYS
        if not path.is_file():
            raise EndpointError(f"{path}: no key; deploy to this endpoint first")
        try:
            # Not the deployers' lock: a key that leaked is not to wait for a rollout.
            with filelock.FileLock(path.with_name("keys.lock")):
                rotate(path, role)
        except KeyFileError as error:
            raise EndpointError(f"{model}/{environment}: {error}") from None
        return f"line {1 if role == 'primary' else 2} of {path}"

    def stop(self, model: str, environment: str) -> bool:
        """End an endpoint's server; False if none ran. Its deployments come back with it."""
        server = self._server(model, environment)
        if not server.folder.is_dir():
            return False
        # A rollout that hangs must not keep a server alive that somebody wants to end.
        lock, wait = server.folder / "lock", STOP_WAIT_SECONDS
        with held(lock, f"endpoint {server.name}", timeout=wait, log=self._log):
            return server.stop()

    def _wait(self, target: LocalTarget) -> None:
        """Wait until a server that was brought back serves what it served before."""
        try:
            target.follow()
        except EndpointError as error:  # a version that a killed rollout left may be the reason
            self._log(str(error))

    def _server(self, model: str, environment: str) -> ServerProcess:
        folder = self._root / environment / model
        return ServerProcess(folder, f"{model}/{environment}", self._timeout)


class LocalTarget:
    """One endpoint on this machine; every verb returns when all workers have followed."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._file = GenerationFile(server.folder)

    @property
    def url(self) -> str:
        """The scoring URL; raises EndpointError if no server runs."""
        state = self._server.running()
        if state is None:
            raise EndpointError(
                f"{self._server.name}: no server runs; deploy to this endpoint to start it"
            )
        return url_of(state.port)

    def follow(self) -> None:
        """Wait until all workers serve the wanted state; raises EndpointError."""
        self._server.wait_for(self._read())

    def live(self) -> dict[str, Deployment]:
        """All deployments by name, the oldest first."""
        return deployments(self._read().deployments)

    def stage(self, version: VersionRef, mirror: int = 0) -> Deployment:
        """Load a version beside the others; see the protocol."""
        before, bundle = self._read().deployments, str(version.bundle)
        name, entries = staged(before, version, bundle, version.signed, mirror)
        try:
            errors = self._write(entries)
            if name in errors:
                raise EndpointError(errors[name])
        except EndpointError as error:
            if not entries[name].traffic:  # one that serves in some worker stays
                self._file.write(self._read().next(without(entries, name)))
            raise EndpointError(
                f"{self._server.name}: version {version.version} cannot be loaded: {error}"
            ) from None
        return self.live()[name]

    def score(self, deployment: str | None, request: Request) -> Answer:
        """Ask one deployment, or whichever the traffic's shares choose; raises EndpointError."""
        headers = {"content-type": "application/json", **request.headers}
        if deployment is not None:
            headers[DEPLOYMENT] = deployment
        if request.authorized:
            headers["authorization"] = f"Bearer {read_key(self._server.folder)}"
        return self._ask("POST", self.url, headers, request.body)

    def promote(self, deployment: str, percent: int, sticky_header: str | None = None) -> None:
        """Give a deployment a share of the traffic; see the protocol."""
        before = self._read().deployments
        self._write(promoted(before, deployment, percent, self._server.name), sticky_header)

    def discard(self, deployment: str) -> None:
        """Remove a deployment; see the protocol."""
        entries = self._read().deployments
        if deployment in entries:
            self._write(without(entries, deployment))

    def observe(self) -> dict[str, Observation]:
        """What each deployment has done so far; see the protocol."""
        url = f"{self.url.removesuffix('score')}metrics"
        answer = self._ask("GET", url, {"authorization": f"Bearer {read_key(self._server.folder)}"})
        if answer.status != 200:
            raise EndpointError(f"{self._server.name}: {url} answers {answer.status}")
        return observations(answer.body.decode(), next(iter(self.live()), ""))

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None = None
    ) -> Answer:
        # No proxy stands between a machine and itself, and no certificates: plain HTTP.
        with httpx.Client(trust_env=False, verify=False, timeout=SCORE_SECONDS) as client:  # noqa: S501
            started = time.perf_counter()
            try:
                answer = client.request(method, url, content=body, headers=headers)
            except httpx.HTTPError as error:
                raise EndpointError(
                    f"{self._server.name}: {url} does not answer: {error}{self._server.log_tail()}"
                ) from None
            seconds = time.perf_counter() - started
        return Answer(answer.status_code, answer.content, dict(answer.headers), seconds)

    def _read(self) -> Generation:
        try:
            return self._file.read()
        except GenerationError as error:
            raise EndpointError(str(error)) from None

    def _write(self, entries: dict[str, Entry], sticky_header: str | None = None) -> dict[str, str]:
        generation = self._read()
        if (entries, sticky_header) != (generation.deployments, generation.sticky_header):
            generation = generation.next(entries, sticky_header)
            self._file.write(generation)
        return self._server.wait_for(generation)


def url_of(port: int) -> str:
    """The scoring URL of a local port."""
    return f"http://{HOST}:{port}/score"
