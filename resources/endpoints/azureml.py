"""Online endpoints of Azure ML, on attached Kubernetes (target ``aks``) or managed.

Everything is read from Azure: deployments carry tags with their version. What a killed run has
begun Azure finishes without it; the next one waits for that, and goes on from there.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mlops_assets.scoring.keys import Role
from resources.azure.clients import AzureClients
from resources.azure.leases import held
from resources.endpoints.azureml_documents import OnlineDocuments
from resources.endpoints.azureml_operations import Operations, endpoint_errors, state_of
from resources.endpoints.azureml_scoring import Access, Scoring
from resources.endpoints.azureml_target import OnlineTarget, deployments_of
from resources.endpoints.base import (
    Answer,
    Deployment,
    EndpointError,
    Endpoints,
    EndpointStatus,
    Request,
    Target,
)
from resources.endpoints.entries import most_traffic
from resources.environment import Environment, Profile

if TYPE_CHECKING:
    from azure.ai.ml.entities import OnlineEndpoint

#: What else may not be found: a workspace that is not there is no endpoint that is missing.
_ELSEWHERE = re.compile(
    r"(?i)workspaces/[^/\s'\"]+['\"]|ResourceGroupNotFound|SubscriptionNotFound|WorkspaceNotFound"
)
logger = logging.getLogger(__name__)


class OnlineEndpoints(Endpoints[Environment]):
    """The online endpoints of a profile's workspace."""

    def __init__(
        self,
        profile: Profile,
        clients: AzureClients,
        *,
        log: Callable[[str], None] = logger.info,
    ) -> None:
        """Those that a profile's environments describe.

        Args:
            profile: whose documents.
            clients: of its Azure.
            log: told what is waited for.
        """
        self._profile = profile
        self._clients = clients
        self._log = log
        self._access: dict[str, Access] = {}

    @contextmanager
    def open(self, model: str, environment: str, settings: Environment) -> Generator[Target]:
        """Hold an endpoint; see the base class."""
        documents = self._documents(model, environment)
        documents.check()
        name = documents.endpoint_name
        what = f"endpoint {name}"
        lock = held(self._clients, f"endpoints-{environment}-{model}", what, self._log)
        with ExitStack() as stack:
            with endpoint_errors(what):
                lease = stack.enter_context(lock)
            operations = Operations(what, settings.deploy_seconds, self._log, lease.check)
            scoring = Scoring(self._made(documents, operations), self._access_of(name))
            stack.callback(scoring.close)
            yield OnlineTarget(documents, self._clients, operations, scoring)

    def status(self, model: str, environment: str) -> EndpointStatus:
        """How an endpoint is; see the base class."""
        name = self._documents(model, environment).endpoint_name
        found = self._found(name)
        live = self.serving(model, environment) if found else None
        return EndpointStatus(
            model=model,
            environment=environment,
            version=live.version if live else None,
            url=found.scoring_uri if found else None,
            healthy=live is not None and self._answers(model, environment),
            key_command=self._key_command(name),
        )

    def serving(self, model: str, environment: str) -> Deployment | None:
        """The deployment with the most traffic; see the base class."""
        documents = self._documents(model, environment)
        name = documents.endpoint_name
        found = self._found(name)
        if found is None:
            return None
        with endpoint_errors(f"endpoint {name}"):
            listed = list(self._clients.workspace.online_deployments.list(name))
        ours, _ = deployments_of(documents, found.traffic, listed)
        return most_traffic(ours)

    def ask(self, model: str, environment: str, request: Request) -> Answer:
        """Ask whatever serves; see the base class."""
        name = self._documents(model, environment).endpoint_name
        found = self._found(name)
        if found is None or not found.scoring_uri:
            raise EndpointError(f"endpoint {name}: there is none yet; deploy to {environment}")
        scoring = Scoring(found.scoring_uri, self._access_of(name))
        try:
            return scoring.score(None, request)
        finally:
            scoring.close()

    def known(self) -> list[tuple[str, str]]:
        """Every endpoint with the platform's tags; see the base class."""
        with endpoint_errors(f"workspace {self._clients.settings.workspace}"):
            listed = list(self._clients.workspace.online_endpoints.list())
        tags = [endpoint.tags or {} for endpoint in listed]
        pairs = [(t.get("mlops_model", ""), t.get("mlops_environment", "")) for t in tags]
        return sorted(pair for pair in pairs if all(pair))

    def rotate_key(self, model: str, environment: str, role: Role) -> str:
        """Make a new key; see the base class."""
        name = self._documents(model, environment).endpoint_name
        endpoints = self._clients.workspace.online_endpoints
        if self._found(name) is None:
            raise EndpointError(f"endpoint {name}: there is none yet; deploy to {environment}")
        with endpoint_errors(f"endpoint {name}: its {role} key"):
            endpoints.begin_regenerate_keys(name, key_type=role).result()
        self._access_of(name).forget()
        return f"`{self._key_command(name, role)}`"

    # -- the endpoint itself

    def _made(self, documents: OnlineDocuments, operations: Operations) -> str:
        """Make the endpoint, or bring it to what its document says; returns its scoring URL."""
        wanted: Any = documents.endpoint()
        name = documents.endpoint_name
        endpoints = self._clients.workspace.online_endpoints
        found: Any = operations.settled(name, lambda: self._found(name))
        if found is None:
            self._log(f"endpoint {name} is made")
            operations.run("make it", lambda: endpoints.begin_create_or_update(wanted))
        elif state_of(found) != "Succeeded" or _differs(found, wanted):
            _require_changeable(name, found, wanted)
            self._log(f"endpoint {name} in state {state_of(found)} is brought up to date")
            # The traffic stays as it is.
            wanted.traffic = dict(found.traffic)
            wanted.mirror_traffic = dict(found.mirror_traffic)
            operations.run("update it", lambda: endpoints.begin_create_or_update(wanted))
        found = self._found(name)
        if found is None or state_of(found) != "Succeeded" or not found.scoring_uri:
            state = state_of(found) if found else "gone"
            raise EndpointError(
                f"endpoint {name}: its state is {state}, also after it was brought up to date; "
                f"where nothing serves there, delete it and deploy again: "
                f"`az ml online-endpoint delete -n {name} {self._place()}`"
            )
        return found.scoring_uri

    def _found(self, name: str) -> OnlineEndpoint | None:
        from azure.core.exceptions import ResourceNotFoundError

        with endpoint_errors(f"endpoint {name}"):
            try:
                return self._clients.workspace.online_endpoints.get(name)
            except ResourceNotFoundError as error:
                if _ELSEWHERE.search(str(error)):
                    raise
                return None

    def _answers(self, model: str, environment: str) -> bool:
        """Whether some server there answers; a body that is no payload costs no score."""
        from mlops_assets.scoring.questions import METRICS

        try:
            return self.ask(model, environment, Request(METRICS)).status == 200
        except EndpointError:
            return False

    def _documents(self, model: str, environment: str) -> OnlineDocuments:
        return OnlineDocuments.of(self._profile, environment, model)

    def _access_of(self, name: str) -> Access:
        return self._access.setdefault(name, Access(lambda: self._clients.workspace, name))

    def _key_command(self, name: str, role: Role = "primary") -> str:
        words = f"az ml online-endpoint get-credentials -n {name} {self._place()}"
        return f"{words} --query {role}Key -o tsv"

    def _place(self) -> str:
        settings = self._clients.settings
        return (
            f"-g {shlex.quote(settings.resource_group)} -w {shlex.quote(settings.workspace)} "
            f"--subscription {shlex.quote(settings.subscription_id)}"
        )


def _differs(found: Any, wanted: Any) -> bool:
    """Whether an endpoint is another one than its document says."""
    access = getattr(wanted, "public_network_access", None)
    return (
        any((found.tags or {}).get(name) != value for name, value in wanted.tags.items())
        or (wanted.description or "") != (found.description or "")
        or (wanted.auth_mode or "key").lower() != (found.auth_mode or "").lower()
        or (access is not None and access.lower() != (found.public_network_access or "").lower())
        or _compute(found) != _compute(wanted)
    )


def _require_changeable(name: str, found: Any, wanted: Any) -> None:
    """Refuse what Azure does not change; raises EndpointError."""
    for what, before, now in (
        ("auth_mode", found.auth_mode, wanted.auth_mode or "key"),
        ("compute", _compute(found), _compute(wanted)),
    ):
        if (before or "").lower() != (now or "").lower():
            raise EndpointError(
                f"endpoint {name}: endpoint.json: {what}: the endpoint was made with '{before}', "
                f"and Azure changes that for none that exists; found '{now}'. Give the new one "
                "another name, and delete the old one once nobody asks it"
            )


def _compute(endpoint: Any) -> str:
    """The name of the attached cluster: a document says azureml:NAME, Azure its id."""
    text = getattr(endpoint, "compute", None) or ""
    return text.rpartition("/")[2].removeprefix("azureml:").lower()
