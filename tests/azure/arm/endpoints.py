"""Online endpoints: traffic, mirrored traffic, keys and tokens."""

from __future__ import annotations

import secrets
import time
from typing import Any

from tests.azure.arm import operations
from tests.azure.arm.base import (
    ML,
    SERVER,
    WORKSPACE,
    Call,
    Resource,
    now,
    routes,
    service_error,
    system_data,
)
from tests.azure.arm.operations import OperationError
from tests.azure.messages import Response

ENDPOINT = f"{WORKSPACE}/onlineEndpoints/{{endpoint}}"
STATUS = "mfeOperationsStatus"
MOST_MIRRORED = 50
_BUSY = {"Creating", "Updating", "Deleting"}


def answer(resource: Resource) -> dict[str, Any]:
    """An endpoint, or a deployment."""
    return {
        "id": resource.id,
        "name": resource.name,
        "type": resource.type,
        "properties": resource.properties,
        "systemData": system_data(resource, types=False),
        **{name: value for name, value in resource.body.items() if name != "properties"},
    }


def not_found(call: Call, what: str) -> Response:
    """The error of an unknown endpoint or deployment."""
    detail = ("NotFound", f"{what} not found.")
    text = "The specified resource was not found."
    return service_error(404, text, detail=detail, location=call.cloud.location)


def refused(call: Call, message: str) -> Response:
    """The error of a request that cannot be carried out."""
    return service_error(400, message, code="BadRequest", location=call.cloud.location)


def busy(call: Call, resource: Resource) -> Response | None:
    """The error while something else changes a resource; None if nothing does."""
    state = resource.properties["provisioningState"]
    if state not in _BUSY:
        return None
    text = f"{resource.name} is in state {state}; wait until that is done."
    return service_error(409, text, code="Conflict", location=call.cloud.location)


def accepted(
    call: Call, operation: operations.Operation, resource: Resource, *, new: bool
) -> Response:
    """The answer of a PUT that has begun."""
    resource.properties["properties"]["AzureAsyncOperationUri"] = operations.address(
        call, operation
    )
    headers = operations.headers(call, operation)
    headers["Location"] = f"{SERVER}{call.request.target}"
    return Response.of(201 if new else 200, answer(resource), headers)


def deleted(call: Call, resource: Resource, prefix: str) -> Response:
    """Begin to remove a resource."""
    cloud = call.cloud
    before, resource.properties["provisioningState"] = (
        resource.properties["provisioningState"],
        "Deleting",
    )

    def work() -> None:
        with cloud.lock:
            ending = [r for r in cloud.every("/deployments") if r.id.startswith(resource.id)]
            cloud.remove(resource.id)
        for found in ending:
            if "container" in found.hidden:
                found.hidden["container"].end()

    def failed(_: OperationError) -> None:
        resource.properties["provisioningState"] = before

    operation = operations.begin(call, STATUS, prefix, work, failed)
    headers = operations.headers(call, operation)
    headers["Location"] = headers["Azure-AsyncOperation"].replace(STATUS, "mfeOperationResults")
    return Response(202, headers | {"Content-Type": "application/json; charset=utf-8"}, b"null")


@routes.on("GET", f"{ENDPOINT.rpartition('/')[0]}")
def list_all(call: Call) -> Response:
    """All endpoints."""
    found = call.cloud.below(call.parent, "onlineEndpoints")
    return Response.of(200, {"value": [answer(resource) for resource in found]})


@routes.on("GET", ENDPOINT)
def get(call: Call) -> Response:
    """An endpoint."""
    found = call.cloud.find(call.id)
    if found is None:
        return not_found(call, f"Online Endpoint {call.names['endpoint']}")
    return Response.of(200, answer(found))


@routes.on("PUT", ENDPOINT)
def put(call: Call) -> Response:
    """Make an endpoint, or change its traffic."""
    cloud, asked, before = call.cloud, call.json(), call.cloud.find(call.id)
    problem = (before and busy(call, before)) or _problem(call, asked["properties"])
    if problem:
        return problem
    resource, new = cloud.put(call.id, _body(call, asked, before))
    properties = resource.properties
    properties["provisioningState"] = "Creating" if new else "Updating"
    name = resource.name
    if new:
        resource.hidden["keys"] = [secrets.token_urlsafe(24), secrets.token_urlsafe(24)]
        resource.hidden["tokens"] = {}
    # Traffic moves when the operation is carried out, not when it is accepted.
    wanted = {key: properties[key] for key in ("traffic", "mirrorTraffic")}
    if before:
        properties |= before.hidden["traffic"]

    def work() -> None:
        with cloud.lock:
            domain = f"https://{name}.{cloud.location}.inference.ml.azure.com"
            properties.update(
                {
                    "scoringUri": f"{domain}/score",
                    "swaggerUri": f"{domain}/swagger.json",
                    "provisioningState": "Succeeded",
                    **wanted,
                }
            )
            resource.hidden["traffic"] = wanted
            resource.modified = now()

    def failed(_: OperationError) -> None:
        properties["provisioningState"] = "Failed"

    resource.hidden.setdefault("traffic", {"traffic": {}, "mirrorTraffic": {}})
    workspace = cloud.find(call.parent)
    assert workspace
    prefix = f"oe:{workspace.properties['workspaceId']}:"
    operation = operations.begin(call, STATUS, prefix, work, failed)
    return accepted(call, operation, resource, new=new)


@routes.on("DELETE", ENDPOINT)
def delete(call: Call) -> Response:
    """Remove an endpoint with its deployments."""
    found = call.cloud.find(call.id)
    if found is None:
        return Response(204)
    workspace = call.cloud.find(call.parent)
    assert workspace
    return busy(call, found) or deleted(call, found, f"oe:{workspace.properties['workspaceId']}:")


@routes.on("POST", f"{ENDPOINT}/listKeys")
def list_keys(call: Call) -> Response:
    """The two keys."""
    found = call.cloud.find(call.id.rpartition("/")[0])
    if found is None:
        return not_found(call, f"Online Endpoint {call.names['endpoint']}")
    if found.properties["authMode"] != "Key":
        return refused(call, f"{found.name} has no keys: its auth mode is another one.")
    primary, secondary = found.hidden["keys"]
    return Response.of(200, {"primaryKey": primary, "secondaryKey": secondary})


@routes.on("POST", f"{ENDPOINT}/regenerateKeys")
def regenerate_keys(call: Call) -> Response:
    """Another key; the other one stays."""
    found, asked = call.cloud.find(call.id.rpartition("/")[0]), call.json()
    if found is None:
        return not_found(call, f"Online Endpoint {call.names['endpoint']}")
    position = ("primary", "secondary").index(asked["keyType"].lower())
    key = asked.get("keyValue")
    # azure-ai-ml sends the key that is to be replaced, and people get another one.
    if not key or key == found.hidden["keys"][position]:
        key = secrets.token_urlsafe(24)

    def work() -> None:
        with call.cloud.lock:
            found.hidden["keys"][position] = key

    operation = operations.begin(call, STATUS, "oe:", work)
    headers = operations.headers(call, operation)
    headers["Location"] = headers["Azure-AsyncOperation"].replace(STATUS, "mfeOperationResults")
    return Response(202, headers)


@routes.on("POST", f"{ENDPOINT}/token")
def token(call: Call) -> Response:
    """A token for an hour, for endpoints that want one of Azure ML's own."""
    found = call.cloud.find(call.id.rpartition("/")[0])
    if found is None:
        return not_found(call, f"Online Endpoint {call.names['endpoint']}")
    if found.properties["authMode"] != "AMLToken":
        return refused(call, f"{found.name} has no tokens: its auth mode is another one.")
    text, expires = secrets.token_urlsafe(32), int(time.time()) + 3600
    found.hidden["tokens"][text] = expires
    body = {
        "accessToken": text,
        "expiryTimeUtc": expires,
        "refreshAfterTimeUtc": expires - 600,
        "tokenType": "Bearer",
    }
    return Response.of(200, body)


@routes.on("GET", f"{operations.LOCATION.format(provider=ML)}/mfeOperationResults/{{name}}")
def result(call: Call) -> Response:
    """Whether an operation without a result is done."""
    found = call.cloud.operations.get(call.names["name"])
    if found is None:
        return Response(404)
    done = found.fault is None and found.future.done()
    return Response(200 if done else 202, {} if done else operations.SOON)


def _body(call: Call, asked: dict[str, Any], before: Resource | None) -> dict[str, Any]:
    given, cloud = asked["properties"], call.cloud
    compute = given.get("compute")
    properties = {
        "description": given.get("description"),
        "properties": {
            **given.get("properties", {}),
            "azureml.onlineendpointid": call.id.lower(),
        },
        "scoringUri": before.properties["scoringUri"] if before else None,
        "swaggerUri": before.properties["swaggerUri"] if before else None,
        "authMode": given["authMode"],
        "compute": compute,
        "traffic": given.get("traffic") or {},
        "mirrorTraffic": given.get("mirrorTraffic") or {},
        "publicNetworkAccess": given.get("publicNetworkAccess", "Enabled"),
    }
    identity = {
        "type": (asked.get("identity") or {}).get("type", "SystemAssigned"),
        "principalId": cloud.login.client_id,
        "tenantId": cloud.login.tenant,
    }
    return {
        "properties": properties,
        "tags": asked.get("tags") or {},
        "location": asked["location"],
        "kind": "K8S" if compute else "Managed",
        "identity": identity,
    }


def _problem(call: Call, asked: dict[str, Any]) -> Response | None:
    """What is wrong with the traffic that was asked for."""
    known = {r.name for r in call.cloud.below(call.id, "deployments")}
    traffic, mirrored = asked.get("traffic") or {}, asked.get("mirrorTraffic") or {}
    for name in [*traffic, *mirrored]:
        if name not in known:
            return refused(call, f"The deployment {name} in the traffic does not exist.")
    if sum(traffic.values()) not in (0, 100):
        return refused(call, "The traffic of all deployments has to add up to 0 or 100 percent.")
    if len(mirrored) > 1 or any(not 0 <= share <= MOST_MIRRORED for share in mirrored.values()):
        return refused(call, f"One deployment can get at most {MOST_MIRRORED} percent mirrored.")
    if mirrored and asked.get("compute"):
        return refused(call, "Traffic is not mirrored on Kubernetes.")
    if any(traffic.get(name) for name in mirrored):
        return refused(call, "A deployment gets live or mirrored traffic, not both.")
    compute = asked.get("compute")
    if compute and call.cloud.find(compute) is None:
        return refused(call, f"The compute {compute} does not exist.")
    return None
