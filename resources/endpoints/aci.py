"""Endpoints that are container groups of Azure Container Instances.

What one serves is a document in blob storage that its server follows (``aci_state``). The group
itself is what ``container-group.json`` says (``aci_documents``), and seldom changes
(``aci_update``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import httpx

from mlops_assets.scoring.keys import Role
from resources.azure.clients import AzureClients
from resources.azure.leases import held
from resources.endpoints.aci_documents import group_of, name_of
from resources.endpoints.aci_groups import Groups, instance_of, url_of
from resources.endpoints.aci_state import EndpointBlobs, endpoint_errors
from resources.endpoints.aci_target import Asked, GroupTarget
from resources.endpoints.aci_update import Update
from resources.endpoints.base import (
    Answer,
    Deployment,
    EndpointError,
    Endpoints,
    EndpointStatus,
    Request,
    Target,
)
from resources.endpoints.entries import deployments, most_traffic
from resources.environment import Environment, Profile

#: Seconds for a server to say that it lives.
LIVE_SECONDS = 5.0
#: Seconds that a new key is waited for.
KEY_SECONDS = 30.0
logger = logging.getLogger(__name__)


class ContainerGroups(Endpoints[Environment]):
    """All endpoints of a profile's environments whose target is ``aci``."""

    def __init__(
        self,
        profile: Profile,
        clients: AzureClients,
        log: Callable[[str], None] = logger.info,
    ) -> None:
        """Nothing is asked yet.

        Args:
            profile: with the documents.
            clients: Azure's.
            log: told what happens to groups, and who is waited for.
        """
        self._profile, self._clients, self._log = profile, clients, log
        self._groups = Groups(clients)
        self._asked: dict[tuple[str, str], Asked] = {}

    @contextmanager
    def open(self, model: str, environment: str, settings: Environment) -> Generator[Target]:
        """Hold an endpoint; see the base class."""
        wanted = group_of(self._profile, self._clients, settings, model)
        blobs = self._blobs(model, environment)
        name = f"endpoints-{environment}-{model}"
        with (
            endpoint_errors(),
            held(self._clients, name, f"endpoint {model}/{environment}", self._log) as lease,
        ):
            blobs.ensure_keys()
            seconds = settings.deploy_seconds
            update = Update(self._groups, blobs, _is_alive, seconds, self._log, lease.check)
            group = update.ensure(wanted)
            instance = instance_of(group)
            blobs.forget(but=instance)
            asked = Asked(blobs, lambda: url_of(group))
            try:
                yield GroupTarget(self._groups, blobs, wanted.name, instance, asked, lease, seconds)
            finally:
                asked.close()

    def status(self, model: str, environment: str) -> EndpointStatus:
        """How an endpoint is; see the base class."""
        blobs = self._blobs(model, environment)
        live = self.serving(model, environment)
        try:
            url = self._url(model, environment)
        except EndpointError:
            url = None
        return EndpointStatus(
            model=model,
            environment=environment,
            version=live.version if live else None,
            url=url,
            healthy=url is not None and _is_alive(url),
            key_command=blobs.key_command(),
        )

    def serving(self, model: str, environment: str) -> Deployment | None:
        """The deployment with the most traffic; see the base class."""
        return most_traffic(deployments(self._blobs(model, environment).read().deployments))

    def ask(self, model: str, environment: str, request: Request) -> Answer:
        """Ask whatever serves; see the base class."""
        place = (model, environment)
        if place not in self._asked:
            blobs = self._blobs(model, environment)
            self._asked[place] = Asked(blobs, lambda: self._url(model, environment))
        try:
            return self._asked[place].score(None, request)
        except EndpointError:
            del self._asked[place]  # it may have moved
            raise

    def known(self) -> list[tuple[str, str]]:
        """Every endpoint that has a group; see the base class."""
        return self._groups.known()

    def rotate_key(self, model: str, environment: str, role: Role) -> str:
        """Make a new key; see the base class."""
        blobs = self._blobs(model, environment)
        # Not the deployers' lock: a key that leaked is not to wait for a rollout.
        mark = blobs.rotate(role)
        words = f"`{blobs.key_command(role)}`"
        group = self._groups.find(name_of(self._profile, environment, model))
        instance = instance_of(group) if group else ""
        deadline = time.monotonic() + KEY_SECONDS
        while instance and time.monotonic() < deadline:
            ack = blobs.ack(instance)
            if ack is not None and ack.keys == mark:
                return words
            time.sleep(0.2)
        return f"{words}; no server has taken it over yet, one that runs does so within seconds"

    def _url(self, model: str, environment: str) -> str:
        name = name_of(self._profile, environment, model)
        group = self._groups.find(name)
        if group is None:
            raise EndpointError(
                f"{model}/{environment}: there is no container group {name}; deploy to this "
                "endpoint to make it"
            )
        return url_of(group)

    def _blobs(self, model: str, environment: str) -> EndpointBlobs:
        return EndpointBlobs(self._clients, model, environment)


def _is_alive(url: str) -> bool:
    """Whether a server answers where a scoring URL leads."""
    try:
        live = f"{url.removesuffix('score')}v2/health/live"
        return httpx.get(live, timeout=LIVE_SECONDS).status_code == 200
    except httpx.HTTPError:
        return False
