"""Computes: clusters of machines that Azure keeps, and attached Kubernetes."""

from __future__ import annotations

from typing import Any

from tests.azure.arm import operations
from tests.azure.arm.base import WORKSPACE, Call, Resource, error, now, routes
from tests.azure.arm.operations import OperationError
from tests.azure.messages import Response

COMPUTE = f"{WORKSPACE}/computes/{{compute}}"
STATUS = "computeOperationsStatus"
KINDS = {"AmlCompute", "Kubernetes"}
_NODES = ("preparing", "running", "idle", "unusable", "leaving", "preempted")


def answer(resource: Resource) -> dict[str, Any]:
    """A compute."""
    properties = {"createdOn": resource.created, "modifiedOn": resource.modified}
    return {
        "id": resource.id,
        "name": resource.name,
        "type": resource.type,
        **resource.body,
        "properties": properties | resource.properties,
    }


def _not_found(call: Call) -> Response:
    text = f"Compute with name {call.names['compute']} was not found."
    return error(404, "ResourceNotFound", text)


@routes.on("GET", COMPUTE.rpartition("/")[0])
def list_all(call: Call) -> Response:
    """All computes."""
    found = call.cloud.below(call.parent, "computes")
    return Response.of(200, {"value": [answer(resource) for resource in found]})


@routes.on("GET", COMPUTE)
def get(call: Call) -> Response:
    """A compute."""
    found = call.cloud.find(call.id)
    return Response.of(200, answer(found)) if found else _not_found(call)


@routes.on("PUT", COMPUTE)
def put(call: Call) -> Response:
    """Make a compute or change it."""
    cloud, asked = call.cloud, call.json()
    kind = asked["properties"]["computeType"]
    if kind not in KINDS:
        return error(400, "BadRequest", f"{kind} is not among {sorted(KINDS)}")
    before, body = cloud.find(call.id), _body(asked)
    if before:
        body["properties"] = before.properties | body["properties"]
        body["tags"] = body["tags"] or before.body["tags"]
    resource, _ = cloud.put(call.id, body)
    properties = resource.properties

    def work() -> None:
        with cloud.lock:
            resource.body["tags"] = resource.body["tags"] or {}
            properties["computeLocation"] = asked["location"]
            properties["provisioningState"] = "Succeeded"
            if kind == "AmlCompute":
                properties["properties"] |= _steady(asked["properties"]["properties"])
            resource.modified = now()

    def failed(problem: OperationError) -> None:
        properties["provisioningState"] = "Failed"
        text = {"code": problem.code, "message": problem.message}
        properties["provisioningErrors"] = [{"error": text}]

    operation = operations.begin(call, STATUS, "", work, failed)
    headers = operations.headers(call, operation)
    # So say the recordings, also of a cluster that was there.
    return Response.of(201, answer(resource), headers)


@routes.on("DELETE", COMPUTE)
def delete(call: Call) -> Response:
    """Remove a compute."""
    cloud, found = call.cloud, call.cloud.find(call.id)
    if found is None:
        return Response(204)

    def work() -> None:
        with cloud.lock:
            cloud.remove(found.id)

    operation = operations.begin(call, STATUS, "", work)
    return Response(202, operations.headers(call, operation))


def _body(asked: dict[str, Any]) -> dict[str, Any]:
    given = asked["properties"]
    kubernetes = given["computeType"] == "Kubernetes"
    details = dict(given.get("properties") or {})
    if not kubernetes:
        account = details.pop("userAccountCredentials", None)
        details = _CLUSTER | details
        details["vmSize"] = details["vmSize"].upper()
        del account  # shown again only once the cluster is there
    properties: dict[str, Any] = {
        "disableLocalAuth": given.get("disableLocalAuth", False),
        "description": given.get("description"),
        "resourceId": given.get("resourceId"),
        "computeType": given["computeType"],
        "provisioningState": "Creating",
        "provisioningErrors": None,
        "isAttachedCompute": kubernetes,
        "properties": details,
    }
    body = {"location": asked["location"], "tags": asked.get("tags"), "properties": properties}
    return body | ({"identity": asked["identity"]} if asked.get("identity") else {})


_CLUSTER: dict[str, Any] = {
    "vmPriority": "Dedicated",
    "subnet": None,
    "currentNodeCount": None,
    "targetNodeCount": None,
    "nodeStateCounts": None,
    "allocationState": None,
    "errors": None,
    "remoteLoginPortPublicAccess": "NotSpecified",
    "osType": "Linux",
    "virtualMachineImage": None,
    "isolatedNetwork": False,
    "enableNodePublicIp": True,
}


def _steady(asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "currentNodeCount": 0,
        "targetNodeCount": 0,
        "nodeStateCounts": {f"{name}NodeCount": 0 for name in _NODES},
        "allocationState": "Steady",
        "allocationStateTransitionTime": now(),
        "propertyBag": {},
    }
    if asked.get("userAccountCredentials"):
        found["userAccountCredentials"] = {
            **asked["userAccountCredentials"],
            "adminUserPassword": None,
        }
    return found
