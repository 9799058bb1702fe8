"""Deployments of online endpoints: each is a container that really runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.azure.arm import operations
from tests.azure.arm.base import Call, Cloud, Container, Resource, now, routes
from tests.azure.arm.endpoints import (
    ENDPOINT,
    STATUS,
    accepted,
    answer,
    busy,
    deleted,
    not_found,
    refused,
)
from tests.azure.arm.operations import OperationError
from tests.azure.arm.subscriptions import SIZES
from tests.azure.messages import Response

DEPLOYMENT = f"{ENDPOINT}/deployments/{{deployment}}"
_PROBE = {
    "failureThreshold": 30, "successThreshold": 1, "timeout": "PT2S", "period": "PT10S",
    "initialDelay": "PT10S",
}  # fmt: skip
#: The first version of the interface that has data collectors.
COLLECTS = "2023-04"
_URI = re.compile(
    r"azureml://.*?(?:workspaces/(?P<workspace>[^/]+)/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.+)"
)
_BLOB = re.compile(r"https://[^/]+/(?P<container>[^/]+)/?(?P<path>.*)")


@routes.on("GET", DEPLOYMENT.rpartition("/")[0])
def list_all(call: Call) -> Response:
    """The deployments of an endpoint."""
    endpoint = call.id.rpartition("/")[0]
    if call.cloud.find(endpoint) is None:
        return not_found(call, f"Online Endpoint {call.names['endpoint']}")
    found = call.cloud.below(endpoint, "deployments")
    return Response.of(200, {"value": [_answer(call, resource) for resource in found]})


@routes.on("GET", DEPLOYMENT)
def get(call: Call) -> Response:
    """A deployment."""
    found = call.cloud.find(call.id)
    if found is None:
        return not_found(call, f"Online Deployment {call.names['deployment']}")
    return Response.of(200, _answer(call, found))


@routes.on("PUT", DEPLOYMENT)
def put(call: Call) -> Response:
    """Deploy a version, or replace what a deployment runs."""
    cloud, asked = call.cloud, call.json()
    endpoint = cloud.find(call.id.rpartition("/deployments/")[0])
    if endpoint is None:
        return not_found(call, f"Online Endpoint {call.names['endpoint']}")
    before = cloud.find(call.id)
    problem = (before and busy(call, before)) or _problem(call, endpoint, asked)
    if problem:
        return problem
    resource, new = cloud.put(call.id, _body(asked))
    properties = resource.properties

    def work() -> None:
        started = _start(cloud, resource)
        with cloud.lock:
            old = resource.hidden.get("container")
            resource.hidden["container"] = started
            properties.update(_completed(properties) | {"provisioningState": "Succeeded"})
            resource.modified = now()
            gone = cloud.find(resource.id) is not resource
        for container in [old, started if gone else None]:
            if container:
                container.end()

    def failed(_: OperationError) -> None:
        properties["provisioningState"] = "Failed"

    workspace = cloud.find(call.parent)
    assert workspace
    prefix = f"od:{workspace.properties['workspaceId']}:"
    operation = operations.begin(call, STATUS, prefix, work, failed)
    return accepted(call, operation, resource, new=new)


@routes.on("DELETE", DEPLOYMENT)
def delete(call: Call) -> Response:
    """Remove a deployment that gets no traffic."""
    found = call.cloud.find(call.id)
    if found is None:
        return Response(204)
    endpoint = call.cloud.find(call.id.rpartition("/deployments/")[0])
    assert endpoint
    if endpoint.properties["traffic"].get(found.name):
        return refused(call, f"{found.name} gets traffic; set it to 0 percent first.")
    workspace = call.cloud.find(call.parent)
    assert workspace
    return busy(call, found) or deleted(call, found, f"od:{workspace.properties['workspaceId']}:")


@routes.on("POST", f"{DEPLOYMENT}/getLogs")
def logs(call: Call) -> Response:
    """The last lines that the container has printed."""
    found, asked = call.cloud.find(call.id.rpartition("/")[0]), call.json()
    if found is None:
        return not_found(call, f"Online Deployment {call.names['deployment']}")
    text = found.hidden.get("logs", "")
    if "container" in found.hidden:
        text = found.hidden["container"].logs()
    lines = text.splitlines(keepends=True)
    return Response.of(200, {"content": "".join(lines[-int(asked.get("tail") or 1000) :])})


def download(cloud: Cloud, workspace: str, uri: str, to: Path) -> Path:
    """Bring a file or a folder from blob storage.

    Args:
        cloud: whose storage.
        workspace: id of the workspace that a short address belongs to.
        uri: ``azureml://.../datastores/NAME/paths/PATH``, or of a blob or a container.
        to: the folder that it is to lie in, under its own name.

    Raises:
        OperationError: there is nothing.
    """
    container, path = place(cloud, workspace, uri)
    client = cloud.blob.client().get_container_client(container)
    root = to / (Path(path).name or container)
    names = [found.name for found in client.list_blobs(name_starts_with=path or None)]
    wanted = [n for n in names if n == path or not path or n.startswith(f"{path}/")]
    if not wanted:
        raise OperationError("ResourceNotFound", f"There is nothing at {uri}")
    for name in wanted:
        target = root / name[len(path) :].lstrip("/") if name != path else root
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            client.download_blob(name).readinto(file)
    return root


def place(cloud: Cloud, workspace: str, uri: str) -> tuple[str, str]:
    """Container and path of an address in blob storage; raises OperationError."""
    match = _URI.fullmatch(uri)
    if match:
        root, name = workspace.rpartition("/")[0], match["workspace"]
        store = cloud.find(f"{f'{root}/{name}' if name else workspace}/datastores/{match['store']}")
        if store:
            return store.properties["containerName"], match["path"].rstrip("/")
    match = _BLOB.fullmatch(uri)
    if match is None:
        raise OperationError("BadRequest", f"{uri} is not an address in blob storage")
    return match["container"], match["path"].rstrip("/")


def _answer(call: Call, resource: Resource) -> dict[str, Any]:
    """A deployment, as that version of the interface has it."""
    found = answer(resource)
    if call.version < COLLECTS:
        kept = {n: v for n, v in found["properties"].items() if n != "dataCollector"}
        return {**found, "properties": kept}
    return found


def _start(cloud: Cloud, resource: Resource) -> Container:
    """Start the container of a deployment, the model mounted; raises OperationError."""
    properties = resource.properties
    if properties["codeConfiguration"]:
        text = "This server runs the platform's own image; it has no scoring script."
        raise OperationError("BadRequest", text)
    model = cloud.find(properties["model"]) if properties["model"] else None
    folder = None
    if model:
        name, _, version = model.id.rpartition("/models/")[2].partition("/versions/")
        folder = cloud.folder / "models" / resource.name / resource.created / name / version
        workspace = resource.id.partition("/onlineEndpoints/")[0]
        download(cloud, workspace, model.properties["modelUri"], folder)
    name = f"{resource.id.split('/')[-3]}-{resource.name}"
    try:
        return cloud.cluster.start(name, properties["environmentVariables"], folder)
    except RuntimeError as problem:
        resource.hidden["logs"] = str(problem)
        text = "User container has crashed or terminated. Please see its logs."
        raise OperationError("ResourceNotReady", text) from None


def _problem(call: Call, endpoint: Resource, asked: dict[str, Any]) -> Response | None:
    given, cloud = asked["properties"], call.cloud
    kubernetes = endpoint.properties["compute"] is not None
    if (given["endpointComputeType"] == "Kubernetes") != kubernetes:
        kind = endpoint.body["kind"]
        return refused(call, f"The endpoint is {kind}, the deployment is another kind.")
    for kind in ("model", "environmentId"):
        if (found := given.get(kind)) and found.startswith("/") and cloud.find(found) is None:
            return not_found(call, found)
    if kubernetes:
        return None
    sizes = {name.lower() for name, *_ in SIZES}
    if (given.get("instanceType") or "").lower() not in sizes:
        return refused(call, f"The instance type {given.get('instanceType')} is not supported.")
    if (given.get("scaleSettings") or {}).get("scaleType") == "TargetUtilization":
        return refused(call, "Managed deployments are scaled by Azure Monitor's rules.")
    if (asked.get("sku") or {}).get("capacity", 1) < 1:
        return refused(call, "The number of instances is at least 1.")
    return None


def _body(asked: dict[str, Any]) -> dict[str, Any]:
    given = asked["properties"]
    kubernetes = given["endpointComputeType"] == "Kubernetes"
    requests = {
        "maxQueueWait": "PT0S", "requestTimeout": "PT0S", "maxConcurrentRequestsPerInstance": 1,
    }  # fmt: skip
    properties: dict[str, Any] = {
        "description": given.get("description"),
        "properties": dict(given.get("properties") or {}),
        "codeConfiguration": given.get("codeConfiguration"),
        "environmentId": given.get("environmentId"),
        "environmentVariables": given.get("environmentVariables") or {},
        "scaleSettings": given.get("scaleSettings") or {"scaleType": "Default"},
        "requestSettings": requests | (given.get("requestSettings") or {}),
        "modelMountPath": given.get("modelMountPath"),
        "appInsightsEnabled": given.get("appInsightsEnabled", False),
        "livenessProbe": given.get("livenessProbe"),
        "readinessProbe": given.get("readinessProbe"),
        "provisioningState": "Updating",
        "instanceType": given.get("instanceType"),
        "model": given.get("model"),
        "egressPublicNetworkAccess": given.get("egressPublicNetworkAccess", "Enabled"),
        "endpointComputeType": given["endpointComputeType"],
    }
    for name in ("privateNetworkConnection", "dataCollector", "containerResourceRequirements"):
        if name in given:
            properties[name] = given[name]
    if kubernetes and not properties.get("containerResourceRequirements"):
        least = {"cpu": "0.1", "gpu": None, "memory": "0.5Gi"}
        properties["containerResourceRequirements"] = {
            "containerResourceLimits": least, "containerResourceRequests": least,
        }  # fmt: skip
    sku = {"name": "Default", "tier": "Standard", "capacity": 1} | (asked.get("sku") or {})
    return {
        "properties": properties,
        "tags": asked.get("tags") or {},
        "location": asked["location"],
        "kind": "K8S" if kubernetes else "Managed",
        "sku": sku,
    }


def _completed(properties: dict[str, Any]) -> dict[str, Any]:
    """The defaults that a deployment shows once it runs."""
    requests = dict(properties["requestSettings"])
    if requests["requestTimeout"] == "PT0S":
        requests["requestTimeout"] = "PT5S"
    return {
        "requestSettings": requests,
        "livenessProbe": _PROBE | (properties["livenessProbe"] or {}),
        "readinessProbe": _PROBE | (properties["readinessProbe"] or {}),
    }
