"""Datastores of a workspace."""

from __future__ import annotations

from typing import Any

from tests.azure.arm.base import (
    SERVER,
    WORKSPACE,
    ArmError,
    Call,
    Cloud,
    Resource,
    routes,
    service_error,
    system_data,
)
from tests.azure.messages import Response

DEFAULT = "workspaceblobstore"
ARTIFACTS = "workspaceartifactstore"


def make_default(cloud: Cloud, workspace: Resource) -> None:
    """Make the two stores that every workspace has, and their containers."""
    identity = workspace.properties["workspaceId"]
    for name, container in ((DEFAULT, f"azureml-blobstore-{identity}"), (ARTIFACTS, "azureml")):
        client = cloud.blob.client().get_container_client(container)
        if not client.exists():
            client.create_container()
        properties = _properties(cloud, cloud.blob.account, container)
        properties |= {
            "isDefault": name == DEFAULT,
            "serviceDataAccessAuthIdentity": (
                "WorkspaceSystemAssignedIdentity" if name == DEFAULT else "None"
            ),
        }
        cloud.put(f"{workspace.id}/datastores/{name}", {"properties": properties})


def require(cloud: Cloud, workspace: str, name: str) -> Resource:
    """A datastore by its name; raises ArmError."""
    found = cloud.find(f"{workspace}/datastores/{name}")
    if found is None:
        text = f"Could not find datastore: {name}."
        raise ArmError(service_error(404, text, inner="NotFoundError", location=cloud.location))
    return found


def answer(call: Call, resource: Resource) -> dict[str, Any]:
    """A datastore, as that version of the interface has it."""
    properties = dict(resource.properties)
    if call.version >= "2024":
        properties |= {
            "subscriptionId": call.cloud.subscription,
            "resourceGroup": call.cloud.group,
        }
    return {
        "id": resource.id,
        "name": resource.name,
        "type": resource.type,
        "properties": properties,
        "systemData": system_data(resource),
    }


def _properties(cloud: Cloud, account: str, container: str) -> dict[str, Any]:
    return {
        "description": None,
        "tags": None,
        "properties": None,
        "isDefault": False,
        "credentials": {"credentialsType": "AccountKey"},
        "datastoreType": "AzureBlob",
        "accountName": account,
        "containerName": container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "serviceDataAccessAuthIdentity": "None",
    }


@routes.on("GET", f"{WORKSPACE}/datastores")
def list_all(call: Call) -> Response:
    """The datastores of a workspace."""
    found = call.cloud.below(call.parent, "datastores")
    only_default = call.request.query.get("isdefault", "").lower() == "true"
    chosen = [r for r in found if r.properties["isDefault"] or not only_default]
    return Response.of(200, {"value": [answer(call, resource) for resource in chosen]})


@routes.on("GET", f"{WORKSPACE}/datastores/{{name}}")
def get(call: Call) -> Response:
    """A datastore, without its secrets."""
    return Response.of(200, answer(call, require(call.cloud, call.parent, call.names["name"])))


@routes.on("PUT", f"{WORKSPACE}/datastores/{{name}}")
def put(call: Call) -> Response:
    """Make a datastore or change it."""
    asked = call.json()["properties"]
    properties = _properties(call.cloud, asked["accountName"], asked["containerName"])
    given = ("description", "tags", "endpoint", "protocol")
    properties |= {name: asked[name] for name in given if name in asked}
    credentials = dict(asked.get("credentials", {}))
    secrets = credentials.pop("secrets", {})
    properties["credentials"] = credentials
    resource, new = call.cloud.put(call.id, {"properties": properties})
    resource.hidden["secrets"] = secrets
    headers = {"Location": f"{SERVER}{call.request.target}"} if new else {}
    return Response.of(201 if new else 200, answer(call, resource), headers)


@routes.on("DELETE", f"{WORKSPACE}/datastores/{{name}}")
def delete(call: Call) -> Response:
    """Remove a datastore; the data stay."""
    found = call.cloud.find(call.id)
    call.cloud.remove(call.id)
    return Response(200 if found else 204)


@routes.on("POST", f"{WORKSPACE}/datastores/{{name}}/listSecrets")
def list_secrets(call: Call) -> Response:
    """The key of the account to old clients, a token for an hour to those of today."""
    cloud, resource = call.cloud, require(call.cloud, call.parent, call.names["name"])
    own = resource.properties["accountName"] == cloud.blob.account
    if not own:
        return Response.of(200, resource.hidden["secrets"])
    if call.version < "2024":
        return Response.of(200, {"secretsType": "AccountKey", "key": cloud.blob.key})
    token = cloud.blob.account_sas(expired=cloud.faults.sas_is_expired())
    return Response.of(200, {"secretsType": "Sas", "sasToken": f"?{token}"})
