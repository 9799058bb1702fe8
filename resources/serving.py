"""Which kind of target serves each environment, and what serves there now."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.keys import Role
from resources.azure.clients import AzureClients
from resources.captured import CAPTURED
from resources.endpoints.base import (
    Answer,
    Deployment,
    Endpoints,
    EndpointStatus,
    Request,
    Target,
)
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.environment import PRODUCTION, Environment, Profile
from resources.registry import Registry, RegistryError, Version


class Serving:
    """The endpoints of a profile's environments."""

    def __init__(self, profile: Profile, clients: AzureClients | None = None) -> None:
        self._profile = profile
        if clients is None and profile.azure is not None:
            clients = AzureClients(profile.azure)
        self._clients = clients
        self._local = LocalEndpoints(profile.home / "endpoints")
        self._captured = profile.home / CAPTURED

    @contextmanager
    def open(self, model: str, environment: Environment) -> Generator[Target]:
        """Hold one endpoint; nobody else deploys there meanwhile."""
        endpoints = self._endpoints(environment.name)
        settings: Any = environment
        if isinstance(endpoints, LocalEndpoints):
            settings = LocalSettings(
                port=environment.local.ports.get(model),
                workers=environment.local.workers_of(model),
                cors_origins=tuple(environment.server.cors_origins),
                access_log=environment.server.access_log,
                capture=self._capture(model, environment),
            )
        with endpoints.open(model, environment.name, settings) as target:
            yield target

    def _capture(self, model: str, environment: Environment) -> CaptureSettings | None:
        if environment.capture is None:
            return None
        folder = self._captured / environment.name / model
        policy = environment.capture.model_dump()
        return CaptureSettings.from_dict({"folder": str(folder), **policy})

    def serving(self, model: str, environment: str) -> Deployment | None:
        """What serves in an environment, as its target says; None before the first deployment."""
        return self._endpoints(environment).serving(model, environment)

    def champion(self, model: str, registry: Registry) -> Version | None:
        """The version that serves production, if one does and the registry has it."""
        if PRODUCTION not in {environment.name for environment in self._profile.environments}:
            return None
        live = self.serving(model, PRODUCTION)
        if live is None:
            return None
        try:
            version = registry.version(model, live.version)
        except RegistryError:
            return None  # served from a registry that was removed since
        return version if version.digest == live.digest else None

    def ask(self, model: str, environment: str, request: Request) -> Answer:
        """Ask what serves in an environment; EndpointError if nothing answers."""
        return self._endpoints(environment).ask(model, environment, request)

    def known(self) -> list[tuple[str, str]]:
        """(model, environment) of every endpoint there is, environments in their order."""
        order = [environment.name for environment in self._profile.environments]
        kinds = {id(kind): kind for kind in map(self._endpoints, order)}
        found = {pair for kind in kinds.values() for pair in kind.known() if pair[1] in order}
        return sorted(found, key=lambda pair: (pair[0], order.index(pair[1])))

    def status(self, model: str, environment: str) -> EndpointStatus:
        """How one endpoint is."""
        return self._endpoints(environment).status(model, environment)

    def rotate_key(self, model: str, environment: str, role: Role) -> str:
        """Make a new primary or secondary key of an endpoint; returns where to read it."""
        return self._endpoints(environment).rotate_key(model, environment, role)

    def stop(self) -> list[str]:
        """End the server of every local endpoint; returns the names of those that ran."""
        return [
            f"{model}/{environment}"
            for model, environment in self._local.known()
            if self._local.stop(model, environment)
        ]

    def _endpoints(self, environment: str) -> Endpoints[Any]:
        """Those of an environment's target; UnknownEnvironmentError names the known ones."""
        target = self._profile.environment(environment).target
        if target == "local":
            return self._local
        return self._container_groups if target == "aci" else self._online_endpoints

    @cached_property
    def _container_groups(self) -> Endpoints[Environment]:
        from resources.endpoints.aci import ContainerGroups

        assert self._clients is not None
        return ContainerGroups(self._profile, self._clients)

    @cached_property
    def _online_endpoints(self) -> Endpoints[Environment]:
        from resources.endpoints.azureml import OnlineEndpoints

        assert self._clients is not None
        return OnlineEndpoints(self._profile, self._clients)
