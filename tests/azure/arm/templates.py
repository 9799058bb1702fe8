"""Deployments of templates; of what is in them, a workspace is made."""

from __future__ import annotations

import re
import secrets
import uuid
from typing import Any

from tests.azure.arm import operations, workspaces
from tests.azure.arm.base import SERVER, Call, Resource, error, now, routes
from tests.azure.arm.operations import OperationError
from tests.azure.messages import Response

_GROUP = "/subscriptions/{subscription}/resourcegroups/{group}"
DEPLOYMENT = f"{_GROUP}/providers/Microsoft.Resources/deployments/{{name}}"


def _value(asked: dict[str, Any], name: str) -> Any:
    """A parameter of a template: as given, or its default."""
    given = asked["parameters"].get(name) or {}
    found = given.get("value", asked["template"]["parameters"].get(name, {}).get("defaultValue"))
    other = re.fullmatch(r"\[parameters\('(\w+)'\)\]", found) if isinstance(found, str) else None
    return _value(asked, other[1]) if other else found


def _answer(resource: Resource) -> dict[str, Any]:
    names = {"id": resource.id, "name": resource.name, "type": "Microsoft.Resources/deployments"}
    return {**names, "properties": resource.properties}


@routes.on("PUT", DEPLOYMENT)
def put(call: Call) -> Response:
    """Carry a template out."""
    cloud, asked = call.cloud, call.json()["properties"]
    known = asked["template"]["parameters"]
    parameters = {
        name: {"type": known[name]["type"].capitalize(), "value": _value(asked, name)}
        for name in known
        if "value" in asked["parameters"].get(name, {}) or "defaultValue" in known[name]
    }
    properties: dict[str, Any] = {
        "templateHash": str(secrets.randbits(64)),
        "parameters": parameters,
        "mode": asked["mode"].capitalize(),
        "provisioningState": "Accepted",
        "timestamp": now(),
        "duration": "PT0S",
        "correlationId": str(uuid.uuid4()),
        "providers": [],
        "dependencies": [],
    }
    resource, new = cloud.put(call.id, {"properties": properties})
    workspace = _value(asked, "workspaceName")

    def work() -> None:
        with cloud.lock:
            if workspace:
                given = {key: _value(asked, key) for key in ("friendlyName", "description")}
                made = workspaces.make(cloud, workspace, {k: v for k, v in given.items() if v})
                made.body["tags"] = _value(asked, "tagValues") or {}
                _registry(call, asked, made)
                properties["outputResources"] = [{"id": made.id}]
            properties["provisioningState"] = "Succeeded"

    def failed(problem: OperationError) -> None:
        properties["provisioningState"] = "Failed"
        properties["error"] = {"code": problem.code, "message": problem.message}

    operation = operations.begin(call, "operationStatuses", "", work, failed)
    address = f"{SERVER}{call.request.path}/operationStatuses/{operation.id}"
    headers = {"Azure-AsyncOperation": f"{address}?api-version={call.version}", **operations.SOON}
    return Response.of(201 if new else 200, _answer(resource), headers)


def _registry(call: Call, asked: dict[str, Any], made: Resource) -> None:
    """The container registry of a workspace: none, or the one that the template names."""
    option = _value(asked, "containerRegistryOption")
    if option == "none":
        made.properties.pop("containerRegistry", None)
    elif option == "existing":
        group, name = (
            _value(asked, f"containerRegistry{part}") for part in ("ResourceGroupName", "Name")
        )
        made.properties["containerRegistry"] = (
            f"/subscriptions/{call.cloud.subscription}/resourceGroups/{group}/providers/"
            f"Microsoft.ContainerRegistry/registries/{name}"
        )


@routes.on("GET", DEPLOYMENT)
def get(call: Call) -> Response:
    """What a template's deployment has come to."""
    found = call.cloud.find(call.id)
    if found is None:
        text = f"Deployment '{call.names['name']}' could not be found."
        return error(404, "DeploymentNotFound", text)
    return Response.of(200, _answer(found))


@routes.on("GET", f"{DEPLOYMENT}/operationStatuses/{{operation}}")
def status(call: Call) -> Response:
    """How it goes."""
    found = call.cloud.operations.get(call.names["operation"])
    if found is None:
        return Response(404)
    state, problem = found.outcome()
    body: dict[str, Any] = {"status": "Running" if state == "InProgress" else state}
    return Response.of(200, body | ({"error": problem} if problem else {}), operations.SOON)


@routes.on("GET", f"{_GROUP}/(providers/Microsoft.Resources/)?deployments/{{name}}/operations")
def steps(call: Call) -> Response:
    """The steps of a template's deployment; the client shows them."""
    group = call.id.partition("/deployments/")[0].partition("/providers/")[0]
    identity = f"{group}/providers/Microsoft.Resources/deployments/{call.names['name']}"
    found = call.cloud.find(identity)
    if found is None:
        return Response.of(200, {"value": []})
    name = found.properties["parameters"].get("workspaceName", {}).get("value", "")
    kind = "Microsoft.MachineLearningServices/workspaces"
    target = {
        "id": f"{re.sub('resourcegroups', 'resourceGroups', group)}/providers/{kind}/{name}",
        "resourceType": kind,
        "resourceName": name,
    }
    step = secrets.token_hex(8).upper()
    done = found.properties["provisioningState"] == "Succeeded"
    properties = {
        "provisioningOperation": "Create",
        "provisioningState": "Succeeded" if done else "Running",
        "timestamp": now(),
        "duration": "PT1S",
        "trackingId": secrets.token_hex(16),
        "statusCode": "OK" if done else "Created",
        "targetResource": target,
    }
    value = {"id": f"{found.id}/operations/{step}", "operationId": step, "properties": properties}
    return Response.of(200, {"value": [value]})
