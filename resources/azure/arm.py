"""Questions to Azure Resource Manager that none of the other clients asks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from resources.azure.clients import AzureClients
from resources.azure.retries import RETRIES

SERVER = "https://management.azure.com"
#: Services of Azure.
ML = "Microsoft.MachineLearningServices"
ACI = "Microsoft.ContainerInstance"
STORAGE = "Microsoft.Storage"
#: Versions of interfaces: of Resource Manager itself, and of Azure ML.
RESOURCES, MACHINE_LEARNING = "2021-04-01", "2023-04-01"


class ResourceManager:
    """Reads what is below the profile's subscription."""

    def __init__(self, clients: AzureClients) -> None:
        self._clients = clients

    def get(self, path: str, version: str = RESOURCES) -> dict[str, Any]:
        """The answer's body.

        Args:
            path: below the subscription.
            version: of the interface that is spoken.

        Raises:
            HttpResponseError: any other status than 200.
        """
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest
        from azure.mgmt.core.exceptions import ARMErrorFormat

        address = f"{SERVER}/subscriptions/{self._clients.settings.subscription_id}/{path}"
        request = HttpRequest("GET", address, params={"api-version": version})
        response = self._client.send_request(request)
        if response.status_code != 200:
            raise HttpResponseError(response=response, error_format=ARMErrorFormat)
        found: dict[str, Any] = response.json()
        return found

    @cached_property
    def _client(self) -> Any:
        from azure.core import PipelineClient
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy

        token = BearerTokenCredentialPolicy(self._clients.credential, f"{SERVER}/.default")
        return PipelineClient(SERVER, policies=[RetryPolicy(retry_total=RETRIES), token])
