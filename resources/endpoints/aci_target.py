"""One endpoint that is a container group: its verbs write what its server follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

import httpx

from mlops_assets.scoring.follow import InstanceAck
from mlops_assets.scoring.generation import Generation
from resources.azure.leases import Lease
from resources.endpoints.aci_groups import Groups
from resources.endpoints.aci_state import EndpointBlobs, endpoint_errors
from resources.endpoints.aci_update import wait_for_ack
from resources.endpoints.base import (
    Answer,
    Deployment,
    EndpointError,
    Observation,
    Request,
    VersionRef,
)
from resources.endpoints.entries import Entries, deployments, promoted, staged, without
from resources.endpoints.observation import observations

#: Seconds for one answer.
SCORE_SECONDS = 60.0
DEPLOYMENT = "azureml-model-deployment"
#: How a version is refused whose archive is not what its digest says.
_DAMAGED = "IntegrityError: endpoints/bundles/"


class Asked:
    """An endpoint as those see it who ask it."""

    def __init__(self, blobs: EndpointBlobs, url: Callable[[], str]) -> None:
        """Nothing is asked yet.

        Args:
            blobs: with its keys.
            url: finds its scoring URL.
        """
        self._blobs, self._find_url = blobs, url
        self._key: str | None = None

    @cached_property
    def url(self) -> str:
        """The scoring URL."""
        return self._find_url()

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=SCORE_SECONDS)

    def score(self, deployment: str | None, request: Request) -> Answer:
        """Ask one deployment, or whichever the traffic's shares choose; raises EndpointError."""
        headers = {"content-type": "application/json", **request.headers}
        if deployment is not None:
            headers[DEPLOYMENT] = deployment
        return self._ask("POST", self.url, headers, request.body, authorized=request.authorized)

    def metrics(self) -> str:
        """The server's counts, as a Prometheus text; raises EndpointError."""
        url = f"{self.url.removesuffix('score')}metrics"
        answer = self._ask("GET", url, {})
        if answer.status != 200:
            raise EndpointError(f"{self._blobs.name}: {url} answers {answer.status}")
        return answer.body.decode()

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _ask(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None = None,
        *,
        authorized: bool = True,
    ) -> Answer:
        if not authorized:
            return self._send(method, url, headers, body)
        known, key = self._key is not None, self._key or self._blobs.key()
        self._key = key
        answer = self._send(method, url, {**headers, "authorization": f"Bearer {key}"}, body)
        if answer.status == 401 and known:  # it was rotated meanwhile
            self._key = self._blobs.key()
            headers = {**headers, "authorization": f"Bearer {self._key}"}
            answer = self._send(method, url, headers, body)
        return answer

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        started = time.perf_counter()
        try:
            answer = self._client.request(method, url, content=body, headers=headers)
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise EndpointError(f"{self._blobs.name}: {url} does not answer: {said}") from None
        seconds = time.perf_counter() - started
        return Answer(answer.status_code, answer.content, dict(answer.headers), seconds)


class GroupTarget:
    """One container group; every verb returns when its server has followed."""

    def __init__(
        self,
        groups: Groups,
        blobs: EndpointBlobs,
        group: str,
        instance: str,
        asked: Asked,
        lease: Lease,
        seconds: float,
    ) -> None:
        """A target that is held.

        Args:
            groups: where the group lies.
            blobs: what it serves.
            group: its name.
            instance: its server's.
            asked: how it is asked.
            lease: what holds it.
            seconds: for its server to follow.
        """
        self._groups, self._blobs, self._asked = groups, blobs, asked
        self._group, self._instance = group, instance
        self._lease, self._seconds = lease, seconds

    @property
    def url(self) -> str:
        """The scoring URL."""
        return self._asked.url

    def live(self) -> dict[str, Deployment]:
        """All deployments by name, the oldest first."""
        return deployments(self._blobs.read().deployments)

    def stage(self, version: VersionRef, mirror: int = 0) -> Deployment:
        """Load a version beside the others; see the protocol."""
        try:
            name, ack = self._staged(version, mirror)
            if name in ack.errors:
                if ack.errors[name].startswith(_DAMAGED):  # the next attempt stores it anew
                    self._blobs.remove_archive(version)
                raise EndpointError(ack.errors[name])
        except EndpointError as error:
            self._take_back(version)
            raise EndpointError(
                f"{self._blobs.name}: version {version.version} cannot be loaded: {error}"
            ) from None
        return self.live()[name]

    def score(self, deployment: str | None, request: Request) -> Answer:
        """Ask one deployment, or whichever the traffic's shares choose; raises EndpointError."""
        return self._asked.score(deployment, request)

    def promote(self, deployment: str, percent: int, sticky_header: str | None = None) -> None:
        """Give a deployment a share of the traffic; see the protocol."""
        self._change(lambda e: promoted(e, deployment, percent, self._blobs.name), sticky_header)

    def discard(self, deployment: str) -> None:
        """Remove a deployment; see the protocol."""
        self._discard(deployment)

    def observe(self) -> dict[str, Observation]:
        """What each deployment has done so far; see the protocol."""
        return observations(self._asked.metrics(), next(iter(self.live()), ""))

    def follow(self) -> InstanceAck:
        """Wait until the server serves the wanted state; raises EndpointError."""
        number = self._blobs.read().number
        return wait_for_ack(
            self._groups, self._blobs, self._group, self._instance, number, self._seconds
        )

    def _staged(self, version: VersionRef, mirror: int) -> tuple[str, InstanceAck]:
        bundle, signed = self._blobs.stored(version)
        name = ""

        def added(entries: Entries) -> Entries:
            nonlocal name
            name, after = staged(entries, version, bundle, signed, mirror)
            return after

        ack = self._change(added)
        return name, ack

    def _discard(self, name: str) -> None:
        if name in self._blobs.read().deployments:
            self._change(lambda entries: without(entries, name))

    def _take_back(self, version: VersionRef) -> None:
        """Leave out a version that cannot be loaded, unless it has traffic; waits for nobody."""

        def rest(generation: Generation) -> Generation:
            kept = {
                name: entry
                for name, entry in generation.deployments.items()
                if entry.traffic
                or (entry.version, entry.digest) != (version.version, version.digest)
            }
            same = kept == generation.deployments
            return generation if same else generation.next(kept, generation.sticky_header)

        self._write(rest)

    def _change(
        self, change: Callable[[Entries], Entries], sticky_header: str | None = None
    ) -> InstanceAck:
        """Write what is wanted from now on, if it is something else, and wait for the server."""

        def changed(generation: Generation) -> Generation:
            entries = change(generation.deployments)
            same = (entries, sticky_header) == (generation.deployments, generation.sticky_header)
            return generation if same else generation.next(entries, sticky_header)

        self._write(changed)
        return self.follow()

    def _write(self, change: Callable[[Generation], Generation]) -> None:
        with endpoint_errors():
            self._lease.check()
        self._blobs.change(change)
