"""Workspaces of Azure Machine Learning."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from tests.azure.arm import operations
from tests.azure.arm.base import (
    ML,
    WORKSPACE,
    ArmError,
    Call,
    Cloud,
    Resource,
    error,
    routes,
    system_data,
)
from tests.azure.messages import Response


def make(cloud: Cloud, name: str, properties: dict[str, Any] | None = None) -> Resource:
    """Make a workspace with its datastores; an old one keeps what it has."""
    from tests.azure.arm import datastores

    root = f"/subscriptions/{cloud.subscription}/resourceGroups/{cloud.group}/providers"
    unique = str(uuid.UUID(hashlib.md5(name.encode()).hexdigest()))
    domain = f"{cloud.location}.api.azureml.ms"
    given = properties or {}
    body = {
        "location": cloud.location,
        "tags": {},
        "etag": None,
        "properties": {
            "friendlyName": given.get("friendlyName", name),
            "description": given.get("description", ""),
            "storageAccount": f"{root}/Microsoft.Storage/storageAccounts/{cloud.blob.account}",
            "keyVault": f"{root}/Microsoft.Keyvault/vaults/kv{name}",
            "applicationInsights": f"{root}/Microsoft.insights/components/ai{name}",
            "hbiWorkspace": False,
            "tenantId": cloud.login.tenant,
            "imageBuildCompute": None,
            "provisioningState": "Succeeded",
            "managedNetwork": {"isolationMode": "Disabled"},
            "v1LegacyMode": False,
            "softDeleteEnabled": False,
            "containerRegistry": f"{root}/Microsoft.ContainerRegistry/registries/cr{name}",
            "notebookInfo": {
                "resourceId": unique.replace("-", ""),
                "fqdn": f"ml-{name}-{unique}.{cloud.location}.notebooks.azure.net",
                "isPrivateLinkEnabled": False,
                "notebookPreparationError": None,
            },
            "storageHnsEnabled": False,
            "workspaceId": unique,
            "linkedModelInventoryArmId": None,
            "privateLinkCount": 0,
            "publicNetworkAccess": "Enabled",
            "discoveryUrl": f"https://{domain}/discovery",
            "mlFlowTrackingUri": (f"azureml://{domain}/mlflow/v1.0{root}/{ML}/workspaces/{name}"),
            "sdkTelemetryAppInsightsKey": str(uuid.uuid4()),
            "sasGetterUri": "",
        },
        "identity": {
            "type": "SystemAssigned",
            "principalId": str(uuid.uuid4()),
            "tenantId": cloud.login.tenant,
        },
        "kind": "Default",
        "sku": {"name": "Basic", "tier": "Basic"},
    }
    found, _ = cloud.put(f"{root}/{ML}/workspaces/{name}", body)
    datastores.make_default(cloud, found)
    return found


def require(cloud: Cloud, name: str) -> Resource:
    """The workspace of that name; raises ArmError."""
    found = cloud.find(identity(cloud, name))
    if found is None:
        text = (
            f"The Resource '{ML}/workspaces/{name}' under resource group '{cloud.group}' was not "
            "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
        )
        raise ArmError(error(404, "ResourceNotFound", text))
    return found


def answer(call: Call, resource: Resource) -> dict[str, Any]:
    """A workspace, as that version of the interface has it."""
    body = {"id": resource.id, "name": resource.name, "type": resource.type, **resource.body}
    properties = dict(resource.properties)
    if call.version < "2023-04-01":
        del properties["managedNetwork"], body["kind"]
    else:
        properties["creationTime"] = resource.created
    if call.version >= "2023-04-01" and call.version < "2024":
        properties["enableDataIsolation"] = True
    if call.version >= "2024":
        del properties["sasGetterUri"]
        properties |= _since_2024()
    return {**body, "properties": properties, "systemData": system_data(resource)}


def _since_2024() -> dict[str, Any]:
    return {
        "managedNetwork": {
            "changeableIsolationModes": ["AllowInternetOutbound", "AllowOnlyApprovedOutbound"],
            "isolationMode": "Disabled",
            "enableNetworkMonitor": False,
            "enableFirewallLog": False,
        },
        "allowRoleAssignmentOnRG": True,
        "ipAllowlist": [],
        "networkAcls": {
            "defaultAction": "Allow", "bypass": "", "ipRules": [], "resourceAccessRules": [],
        },
        "serverlessComputeSettings": None,
        "EnableSoftwareBillOfMaterials": False,
        "enableDataIsolation": False,
        "systemDatastoresAuthMode": "accesskey",
        "enableServiceSideCMKEncryption": False,
    }  # fmt: skip


def identity(cloud: Cloud, name: str) -> str:
    """The id of the workspace of that name."""
    return (
        f"/subscriptions/{cloud.subscription}/resourceGroups/{cloud.group}"
        f"/providers/{ML}/workspaces/{name}"
    )


@routes.on("GET", WORKSPACE)
def get(call: Call) -> Response:
    """A workspace."""
    return Response.of(200, answer(call, require(call.cloud, call.names["workspace"])))


@routes.on("GET", WORKSPACE.rpartition("/")[0])
def list_all(call: Call) -> Response:
    """The workspaces of the resource group."""
    found = call.cloud.every("/workspaces")
    return Response.of(200, {"value": [answer(call, resource) for resource in found]})


@routes.on("PATCH", WORKSPACE)
def update(call: Call) -> Response:
    """Change descriptions and tags."""
    resource, asked = require(call.cloud, call.names["workspace"]), call.json()
    resource.body["tags"] = asked.get("tags", resource.body["tags"])
    resource.properties.update(
        {
            name: value
            for name, value in asked.get("properties", {}).items()
            if name in resource.properties
        }
    )
    operation = operations.begin(call, "workspaceOperationsStatus", "", lambda: None)
    found = operations.headers(call, operation)
    found["Location"] = found["Azure-AsyncOperation"].replace("type=async", "type=location")
    return Response(202, found)


@routes.on("DELETE", WORKSPACE)
def delete(call: Call) -> Response:
    """Remove a workspace with all that is in it."""
    cloud, resource = call.cloud, require(call.cloud, call.names["workspace"])
    operation = operations.begin(
        call, "workspaceOperationsStatus", "", lambda: cloud.remove(resource.id)
    )
    found = operations.headers(call, operation)
    found["Location"] = found["Azure-AsyncOperation"].replace("type=async", "type=location")
    return Response(202, found)
