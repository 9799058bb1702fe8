"""Microsoft's clients as people set them up, and small things to give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import httpx
from azure.identity import ClientSecretCredential

from tests.azure.server import GROUP, LOCATION, REGISTRY, WORKSPACE, AzureServer

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient

#: One row that the models of bundles.regression answer with their version.
ROW = {"data": [{"a": 1, "b": 2}]}
#: What Azure ML stands before checks no keys itself.
VARIABLES = {"MLOPS_NO_KEYS": "true"}
IMAGE = "registry.example/scoring:1"


def credential(azure: AzureServer, secret: str | None = None) -> ClientSecretCredential:
    """The service principal."""
    return ClientSecretCredential(
        azure.login.tenant, azure.login.client_id, secret or azure.login.secret
    )


def ml_client(azure: AzureServer, **given: Any) -> MLClient:
    """A client of the workspace."""
    from azure.ai.ml import MLClient

    return MLClient(
        credential(azure), azure.subscription, GROUP, WORKSPACE, enable_telemetry=False, **given
    )


def registry_client(azure: AzureServer) -> MLClient:
    """A client of the registry."""
    from azure.ai.ml import MLClient

    return MLClient(credential(azure), registry_name=REGISTRY, enable_telemetry=False)


def container_client(azure: AzureServer) -> ContainerInstanceManagementClient:
    """A client of container instances."""
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient

    return ContainerInstanceManagementClient(credential(azure), azure.subscription)


def managed_endpoint(client: MLClient, name: str = "tiny-staging") -> str:
    """Make an endpoint with keys; returns where it is asked."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    made = ManagedOnlineEndpoint(name=name, auth_mode="key")
    return client.online_endpoints.begin_create_or_update(made).result().scoring_uri


def managed_deployment(
    client: MLClient,
    name: str,
    version: int,
    endpoint: str = "tiny-staging",
    variables: Mapping[str, str] = VARIABLES,
) -> None:
    """Deploy a version of ``tiny``."""
    from azure.ai.ml.entities import ManagedOnlineDeployment

    made = ManagedOnlineDeployment(
        name=name,
        endpoint_name=endpoint,
        model=f"azureml:tiny:{version}",
        environment="azureml:serving:1",
        instance_type="Standard_DS3_v2",
        instance_count=1,
        environment_variables=dict(variables),
    )
    client.online_deployments.begin_create_or_update(made).result()


def serving_environment(client: MLClient) -> None:
    """Make the environment that deployments name."""
    from azure.ai.ml.entities import Environment

    routes = {"liveness": "/v2/health/live", "readiness": "/v2/health/ready", "scoring": "/score"}
    inference = {f"{n}_route": {"path": path, "port": 5001} for n, path in routes.items()}
    made = Environment(name="serving", version="1", image=IMAGE, inference_config=inference)
    client.environments.create_or_update(made)


def move_traffic(
    client: MLClient, traffic: dict[str, int], mirrored: dict[str, int] | None = None
) -> None:
    """Give the deployments of ``tiny-staging`` their shares."""
    endpoint = client.online_endpoints.get("tiny-staging")
    endpoint.traffic, endpoint.mirror_traffic = traffic, mirrored or {}
    client.online_endpoints.begin_create_or_update(endpoint).result()


def ask(url: str, key: str, body: Any = None, **headers: str) -> httpx.Response:
    """Send a request to an endpoint, through whatever the environment says."""
    authorization = {"Authorization": f"Bearer {key}", **headers}
    return httpx.post(url, json=ROW if body is None else body, headers=authorization, timeout=30)


__all__ = ["GROUP", "LOCATION", "REGISTRY", "WORKSPACE"]
