"""Whether Azure is as the platform needs it, before anything is begun there.

Each look says what it found; one that cannot be taken says why. What the rest stands on comes
first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlops_assets.errors import UserError
from resources.azure import preflight_documents, preflight_resources
from resources.azure.arm import ACI, ML, SERVER, STORAGE, ResourceManager
from resources.azure.clients import AzureClients, AzureError, azure_errors
from resources.azure.infrastructure_documents import Wanted, examine
from resources.azure.settings import FILE
from resources.environment import Environment, Profile
from resources.findings import Finding

#: Statuses that say nothing about how Azure is set up: it is busy, or ill.
_PASSING = (408, 429, 500, 502, 503, 504)


class Ground:
    """What is looked at, and what was found on the way."""

    def __init__(
        self,
        profile: Profile,
        clients: AzureClients,
        environments: Sequence[Environment] | None = None,
        models: Sequence[str] = (),
    ) -> None:
        self.profile, self.clients, self.models = profile, clients, models
        self.environments = profile.environments if environments is None else tuple(environments)

    @cached_property
    def manager(self) -> ResourceManager:
        """Azure Resource Manager."""
        return ResourceManager(self.clients)

    @property
    def targets(self) -> set[str]:
        """Kinds of endpoints in these environments."""
        return {environment.target for environment in self.environments}

    @cached_property
    def documents(self) -> list[Wanted]:
        """Those of the infrastructure that can be read."""
        return examine(self.profile, os.environ)[0]

    @cached_property
    def computes(self) -> dict[str, Any]:
        """The workspace's computes by name."""
        with azure_errors(f"computes of workspace {self.clients.settings.workspace}"):
            return {str(c.name): c for c in self.clients.workspace.compute.list()}


@dataclass(frozen=True, slots=True)
class Check:
    """One look."""

    name: str
    look: Callable[[Ground], Iterator[Finding]]
    #: Without it the looks that follow make no sense.
    needed: bool = False


def preflight(ground: Ground, checks: Sequence[Check]) -> list[Finding]:
    """Take the looks in their order; after a needed one that failed, the rest is not taken."""
    found: list[Finding] = []
    for number, check in enumerate(checks):
        new = _taken(check, ground)
        found += new
        if check.needed and any(finding.severity != "warning" for finding in new):
            rest = ", ".join(later.name for later in checks[number + 1 :])
            if rest:
                found.append(Finding("unknown", rest, f"not checked: {check.name} comes first"))
            break
    return found


def _taken(check: Check, ground: Ground) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check.look(ground))
    except AzureError as error:
        passing = error.status in _PASSING
        mend = error.mend or ""
        found.append(Finding("unknown" if passing else "error", check.name, error.said, mend))
    except UserError as error:
        found.append(Finding("error", check.name, str(error)))
    return found


def variables(ground: Ground) -> Iterator[Finding]:
    """What ``profile.json`` and signing name in the environment."""
    settings = ground.profile.azure
    assert settings is not None
    place = f"environments/{ground.profile.name}/{FILE}"
    for name in settings.missing():
        yield Finding("error", place, f"environment variable {name} is not set", f"export {name}=…")


def keys(ground: Ground) -> Iterator[Finding]:
    """The public keys that versions must be signed with."""
    from resources.environment import public_key

    for environment in ground.environments:
        try:
            public_key(environment)
        except UserError as error:
            place, _, cause = str(error).partition(f"environment variable {_named(environment)}: ")
            yield Finding("error", place.rstrip(": "), f"{_named(environment)} {cause}")


def _named(environment: Environment) -> str:
    return environment.signing.public_key if environment.signing else ""


def token(ground: Ground) -> Iterator[Finding]:
    """Whether the identity that runs this gets a token."""
    with azure_errors("identity"):
        ground.clients.credential.get_token(f"{SERVER}/.default")
    yield from ()


def providers(ground: Ground) -> Iterator[Finding]:
    """The subscription, and the services that it must use."""
    wanted = [ML, STORAGE, *([ACI] if "aci" in ground.targets else [])]
    subscription = ground.clients.settings.subscription_id
    for name in wanted:
        with azure_errors(f"subscription {subscription}"):
            state = _allowed(lambda name=name: ground.manager.get(f"providers/{name}"))
        if state is None:
            yield Finding("unknown", name, "not checked: the role Reader on the subscription lacks")
        elif state["registrationState"] != "Registered":
            yield Finding(
                "error",
                f"subscription {subscription}",
                f"{name} is {state['registrationState']}",
                f"az provider register --namespace {name}",
            )


def _allowed(ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The answer, or None where the identity may not ask: not to know is no fault."""
    from azure.core.exceptions import HttpResponseError

    try:
        return ask()
    except HttpResponseError as error:
        if error.status_code == 403:
            return None
        raise


def resource_group(ground: Ground) -> Iterator[Finding]:
    """The group that holds everything."""
    settings = ground.clients.settings
    try:
        with azure_errors(f"resource group {settings.resource_group}"):
            ground.manager.get(f"resourcegroups/{settings.resource_group}")
    except AzureError as error:
        if error.status != 404:
            raise
        yield Finding(
            "error",
            "resource group",
            error.said,
            f"az group create --name {settings.resource_group} --location {settings.location}",
        )


def workspace(ground: Ground) -> Iterator[Finding]:
    """The Azure ML workspace, and whether it is where the profile says."""
    settings = ground.clients.settings
    try:
        with azure_errors(f"workspace {settings.workspace}"):
            found: Any = ground.clients.workspace.workspaces.get(settings.workspace)
    except AzureError as error:
        if error.status != 404:
            raise
        documents = [w.environment for w in ground.documents if w.kind == "workspace"]
        mend = f"mlops plan {documents[0]} --apply" if documents else "az ml workspace create"
        yield Finding("error", "workspace", error.said, mend)
        return
    if found.location.lower() != settings.location.replace(" ", "").lower():
        yield Finding(
            "error",
            f"environments/{ground.profile.name}/{FILE}",
            f"location: '{settings.location}', but workspace {settings.workspace} is in "
            f"{found.location}",
            "make them agree",
        )


def storage_is_read(ground: Ground) -> Iterator[Finding]:
    """Whether the platform's container can be listed."""
    clients = ground.clients
    with clients.storage_errors(_container(ground)):
        next(iter(clients.container.list_blobs(name_starts_with="preflight/")), None)
    yield from ()


def storage_is_written(ground: Ground) -> Iterator[Finding]:
    """Whether it can be written, and what was written can be removed."""
    clients = ground.clients
    blob = clients.container.get_blob_client(f"preflight/{os.urandom(8).hex()}")
    with clients.storage_errors(_container(ground)):
        blob.upload_blob(b"mlops doctor")
        blob.delete_blob()
    yield from ()


def _container(ground: Ground) -> str:
    storage = ground.clients.settings.storage
    return f"storage account {storage.account}, container {storage.container}"


#: What a run needs whatever it does, in a second or two; and what it needs to train.
QUICK = (
    Check("variables", variables, needed=True),
    Check("token", token, needed=True),
    Check("workspace", workspace, needed=True),
    Check("storage", storage_is_read),
)
TRAINING = Check("training's compute", preflight_resources.training_compute)
#: All there is to look at.
EVERYTHING = (
    Check("infrastructure documents", preflight_documents.infrastructure),
    Check("endpoint documents", preflight_documents.endpoints),
    Check("public keys", keys),
    Check("variables", variables, needed=True),
    Check("token", token, needed=True),
    Check("subscription", providers, needed=True),
    Check("resource group", resource_group, needed=True),
    Check("storage", storage_is_written),
    Check("container quota", preflight_resources.container_quota),
    Check("images", preflight_resources.images_are_there),
    Check("workspace", workspace, needed=True),
    Check("computes", preflight_resources.computes),
    Check("quota", preflight_resources.quota),
    Check("names", preflight_resources.endpoint_names),
)
