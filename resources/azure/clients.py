"""Microsoft's clients as the profile's settings say, made once each and late: imports take seconds.

Whatever they raise comes out as one ``AzureError`` that says what was asked, what Azure answered
and how to mend it; its text has no secret.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import UserError
from resources.azure.retries import RETRIES, storage_retries
from resources.azure.settings import AzureSettings, StorageSettings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient
    from azure.storage.blob import BlobServiceClient, ContainerClient


class AzureError(UserError):
    """Azure did not do what was asked; the message has its own words, and the mend."""

    def __init__(self, said: str, mend: str | None = None, status: int | None = None) -> None:
        super().__init__(f"{said}; {mend}" if mend else said)
        self.said, self.mend, self.status = said, mend, status
        self.transient = status is not None and (status in (408, 429) or status >= 500)


#: What people do about an answer that they see often.
_MENDS = {
    401: "sign in: `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    403: "the identity lacks a role here: see docs/azure.md for those that are needed",
    429: "Azure limits how often it is asked; try again later",
}


class AzureClients:
    """The clients of one profile; safe to keep, made when they are first asked for."""

    def __init__(self, settings: AzureSettings) -> None:
        self._given = settings

    @cached_property
    def settings(self) -> AzureSettings:
        """With the environment variables filled in; SpecError names those not set."""
        return self._given.resolved()

    @cached_property
    def credential(self) -> TokenCredential:
        """Whoever runs this, as azure-identity finds out: variables, managed identity, `az`."""
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential()

    @cached_property
    def storage(self) -> BlobServiceClient:
        """The storage account, as whoever wants other containers or the account itself asks it."""
        from azure.storage.blob import BlobServiceClient

        storage = self.settings.storage
        variable = storage.account_key or storage.sas
        credential: Any = os.environ[variable] if variable else self.credential
        return BlobServiceClient(storage.url, credential, retry_policy=storage_retries())

    @cached_property
    def container(self) -> ContainerClient:
        """The container that holds everything of the platform; made if it is not there."""
        from azure.core.exceptions import ResourceExistsError

        storage = self.settings.storage
        client = self.storage.get_container_client(storage.container)
        with self.storage_errors(
            f"storage account {storage.account}, container {storage.container}"
        ):
            if not client.exists():
                with suppress(ResourceExistsError):  # another run has just made it
                    client.create_container()
        return client

    def elsewhere(self, account: str, container: str) -> AzureClients:
        """The same with another container in the place of the platform's own."""
        own = self.settings.storage
        # What opens one account opens no other.
        opens = own.model_dump(include={"account_key", "sas"}) if account == own.account else {}
        storage = StorageSettings(account=account, container=container, **opens)
        return AzureClients(self.settings.model_copy(update={"storage": storage}))

    def storage_errors(self, what: str) -> AbstractContextManager[None]:
        """As ``azure_errors``, for whatever is asked of the storage account."""
        storage = self.settings.storage
        variable = storage.account_key or storage.sas
        mend = f"environment variable {variable} holds what opens it: put a valid one there"
        return azure_errors(what, mend if variable else None)

    @cached_property
    def workspace(self) -> MLClient:
        """Azure ML: the workspace."""
        from azure.ai.ml import MLClient

        _quiet()
        settings = self.settings
        return MLClient(
            self.credential,
            settings.subscription_id,
            settings.resource_group,
            settings.workspace,
            enable_telemetry=False,
            retry_total=RETRIES,
            show_progress=False,
        )

    @cached_property
    def registry(self) -> MLClient:
        """Azure ML where versions are registered: the shared registry, or the workspace."""
        from azure.ai.ml import MLClient

        if self.settings.registry is None:
            return self.workspace
        _quiet()
        return MLClient(
            self.credential,
            registry_name=self.settings.registry,
            enable_telemetry=False,
            show_progress=False,
        )

    @cached_property
    def container_instances(self) -> ContainerInstanceManagementClient:
        """Azure Container Instances of the subscription."""
        from azure.mgmt.containerinstance import ContainerInstanceManagementClient

        return ContainerInstanceManagementClient(self.credential, self.settings.subscription_id)


def _nothing(*_: object, **__: object) -> None:
    pass


def _quiet() -> None:
    """Keep azure-ai-ml from writing between our lines: what fails it raises, and we tell it.

    It prints a dot per look at an operation, and a colour after each upload; it logs an error for
    each resource that is not there yet, and a warning for each of its own newer classes.
    """
    from importlib import import_module

    for name in ("_utils._azureml_polling", "_artifacts._blob_storage_helper"):
        module = import_module(f"azure.ai.ml.{name}")
        module.print = _nothing  # pyright: ignore[reportAttributeAccessIssue]
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("azure.ai.ml"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("azure.ai.ml").setLevel(logging.CRITICAL)


#: Signatures of addresses, what follows the name of a secret, and tokens.
_SECRETS = re.compile(
    r"(?i)(\bsig=|Bearer\s+|(?:key|secret|password|token)[\"']?\s*[=:]\s*[\"']?)[^&\s\"',;]{6,}"
    r"|()\beyJ[\w-]{10,}\.[\w.-]+"
)


def without_secrets(text: str) -> str:
    """A message of Azure's, or of its clients, fit for logs."""
    return _SECRETS.sub(r"\1***", text)


@contextmanager
def azure_errors(what: str, denied: str | None = None) -> Generator[None]:
    """Raise what a client raises as AzureError.

    Args:
        what: what is asked, as the message's begin: `endpoint diabetes-staging`.
        denied: how to mend that who asks is not let in, where it is no matter of signing in.
    """
    from azure.core.exceptions import (
        AzureError as ClientError,
    )
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
    )

    try:
        yield
    except ClientAuthenticationError as error:
        mend = denied or _MENDS[401]
        raise AzureError(f"{what}: {_said(error)}", mend, error.status_code) from None
    except HttpResponseError as error:
        mend = denied if denied and error.status_code in (401, 403) else None
        mend = mend or _MENDS.get(error.status_code or 0)
        raise AzureError(f"{what}: {_said(error)}", mend, error.status_code) from None
    except _raised_by(ClientError) as error:
        raise AzureError(f"{what}: {_said(error)}") from None


def _raised_by(*kinds: type[Exception]) -> tuple[type[Exception], ...]:
    """These, and what azure-ai-ml raises: when it was not imported, it cannot have raised."""
    machine_learning = sys.modules.get("azure.ai.ml.exceptions")
    return (*kinds, machine_learning.MlException) if machine_learning else kinds


def _said(error: Exception) -> str:
    """The first lines of a message, in one line: clients add pages of advice."""
    status = getattr(error, "status_code", None)
    found = getattr(error, "error", None)
    text = f"{found.code}: {found.message}" if found and found.code else str(error)
    lines = [line.strip() for line in without_secrets(text).splitlines() if line.strip()]
    said = " ".join(lines[:4]) or type(error).__name__
    # An operation that failed is told with 200.
    return f"Azure answers {status}: {said}" if status and status >= 400 else said
