"""Registries: models that several workspaces share.

The client asks a registry by the address that discovery names, here the region's own host; the
paths are those of Resource Manager.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlsplit

from tests.azure.arm import operations
from tests.azure.arm.assets import (
    KINDS,
    answer,
    list_versions,
    not_found,
    page,
    pending_upload,
    put_version,
    remove_version,
    storage_id,
)
from tests.azure.arm.base import ML, REGISTRY, Call, Cloud, Resource, error, routes, system_data
from tests.azure.messages import Response

_CONTAINERS = f"{REGISTRY}/{KINDS}"


def make(cloud: Cloud, name: str) -> Resource:
    """Make a registry."""
    root = f"/subscriptions/{cloud.subscription}/resourceGroups/{cloud.group}/providers/{ML}"
    region = {
        "location": cloud.location,
        "acrDetails": [],
        "storageAccountDetails": [],
    }
    properties = {
        "publicNetworkAccess": "Enabled",
        "discoveryUrl": (
            f"https://{cloud.location}.api.azureml.ms/registrymanagement/v1.0/registries/{name}"
            "/discovery"
        ),
        "regionDetails": [region],
    }
    identity = {
        "type": "SystemAssigned",
        "principalId": str(uuid.uuid4()),
        "tenantId": cloud.login.tenant,
    }
    body = {
        "location": cloud.location, "tags": {}, "properties": properties, "identity": identity,
    }  # fmt: skip
    found, _ = cloud.put(f"{root}/registries/{name}", body)
    return found


def _missing(call: Call) -> Response | None:
    if call.cloud.find(call.parent):
        return None
    text = f"The Resource '{ML}/registries/{call.names['registry']}' was not found."
    return error(404, "ResourceNotFound", text)


@routes.on("GET", REGISTRY)
def get(call: Call) -> Response:
    """A registry."""
    found = call.cloud.find(call.id)
    if found is None:
        return _missing(call) or Response(404)
    names: dict[str, Any] = {"id": found.id, "name": found.name, "type": found.type}
    return Response.of(200, {**names, **found.body, "systemData": system_data(found)})


@routes.on("PUT", REGISTRY)
def create(call: Call) -> Response:
    """Make a registry or change it, which takes its time."""
    cloud, asked = call.cloud, call.json()
    before = cloud.find(call.id)
    found = before or make(cloud, call.names["registry"])
    found.body["tags"] = asked.get("tags") or {}
    given = asked["properties"]
    found.properties["publicNetworkAccess"] = given.get("publicNetworkAccess") or "Enabled"
    found.properties["regionDetails"] = [
        {"location": region["location"], "acrDetails": [], "storageAccountDetails": []}
        for region in given.get("regionDetails") or []
    ]
    operation = operations.begin(call, "mfeOperationsStatus", "reg:", lambda: None)
    names: dict[str, Any] = {"id": found.id, "name": found.name, "type": found.type}
    body = {**names, **found.body, "systemData": system_data(found)}
    return Response.of(200 if before else 201, body, operations.headers(call, operation))


@routes.on("GET", _CONTAINERS)
def containers(call: Call) -> Response:
    """All containers of a kind."""
    return _missing(call) or page(call, list(call.cloud.below(call.parent, call.names["kind"])))


@routes.on("GET", f"{_CONTAINERS}/{{name}}")
def container(call: Call) -> Response:
    """A container."""
    found = call.cloud.find(call.id)
    if found is None:
        return _missing(call) or not_found(call, call.names["kind"].lower(), call.names["name"])
    return Response.of(200, answer(call, found))


@routes.on("GET", f"{_CONTAINERS}/{{name}}/versions")
def versions(call: Call) -> Response:
    """The versions in a container."""
    return _missing(call) or list_versions(call)


@routes.on("GET", f"{_CONTAINERS}/{{name}}/versions/{{version}}")
def version(call: Call) -> Response:
    """A version."""
    found = call.cloud.find(call.id)
    if found is None:
        kind, name = call.names["kind"].lower(), call.names["name"]
        return _missing(call) or not_found(call, kind, name, call.names["version"])
    return Response.of(200, answer(call, found))


@routes.on("PUT", f"{_CONTAINERS}/{{name}}/versions/{{version}}")
def put(call: Call) -> Response:
    """Make a version, which takes its time; the address of its files becomes the registry's."""
    problem = _missing(call)
    if problem:
        return problem
    resource, new, problem = put_version(call)
    if problem:
        return problem
    operation = operations.begin(call, "mfeOperationsStatus", "reg:", lambda: None)
    return Response.of(
        201 if new else 200, answer(call, resource), operations.headers(call, operation)
    )


@routes.on("DELETE", f"{_CONTAINERS}/{{name}}/versions/{{version}}")
def delete(call: Call) -> Response:
    """Remove a version."""
    return remove_version(call)


@routes.on("POST", f"{_CONTAINERS}/{{name}}/versions/{{version}}/startPendingUpload")
def start_pending_upload(call: Call) -> Response:
    """Where the files of a version are to be put."""
    return _missing(call) or pending_upload(call)


@routes.on("PUT", f"{REGISTRY}/tempdatarefs/{{name}}/versions/{{version}}")
def temporary_reference(call: Call) -> Response:
    """The same, as azure-ai-ml asks for it, whatever kind of asset it makes."""
    problem = _missing(call)
    if problem:
        return problem
    kind = call.json()["assetId"].rpartition("/versions/")[0].split("/")[-2]
    made = f"{call.parent}/{kind}/{call.names['name']}/versions/{call.names['version']}"
    if call.cloud.find(made):
        # What the client expects to hear, and takes for: there is nothing to upload.
        return error(409, "Conflict", "Asset already exists.")
    return pending_upload(call)


@routes.on("POST", f"{REGISTRY}/datarefs/{{name}}/versions/{{version}}")
def data_reference(call: Call) -> Response:
    """A token that opens the files of a version."""
    problem = _missing(call)
    if problem:
        return problem
    blob, uri = call.cloud.blob, str(call.json()["blobUri"])
    address = urlsplit(uri)
    container = address.path.split("/")[1]
    token = blob.container_sas(container, expired=call.cloud.faults.sas_is_expired())
    signed = f"{address.scheme}://{address.netloc}/{container}?{token}"
    reference = {
        "blobUri": uri,
        "storageAccountArmId": storage_id(call.cloud),
        "credential": {"credentialType": "SAS", "sasUri": signed},
    }
    return Response.of(200, {"blobReferenceForConsumption": reference})
