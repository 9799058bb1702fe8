"""Container groups of Azure Container Instances.

A container with a variable ``MLOPS_...`` is the platform's own and really runs; what stands beside
it, such as a proxy for TLS, is said to run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from tests.azure import identity
from tests.azure.arm import operations
from tests.azure.arm.base import ACI, GROUPS, Call, Cloud, Resource, error, now, routes
from tests.azure.arm.operations import SOON
from tests.azure.messages import Response

GROUP = f"{GROUPS}/{{name}}"
_EVENTS = (
    ("Pulling", 'pulling image "{}"'),
    ("Pulled", 'Successfully pulled image "{}"'),
    ("Created", "Created container"),
    ("Started", "Started container"),
)


def answer(resource: Resource, *, view: bool = True, inside: bool = True) -> dict[str, Any]:
    """A container group.

    Args:
        resource: the group.
        view: whether it says how the group is; lists do not.
        inside: whether it says how each container is.
    """
    properties = copy.deepcopy(resource.properties)
    for container in properties["containers"]:
        if view and inside and (resource.hidden["started"] or resource.hidden["missing"]):
            container["properties"]["instanceView"] = _view(resource, container)
    if view:
        properties["instanceView"] = {"events": [], "state": _state(resource)}
    rest = {name: value for name, value in resource.body.items() if name != "properties"}
    names = {"id": resource.id, "name": resource.name, "type": resource.type}
    return {"properties": properties, **rest, **names}


@routes.on("GET", GROUPS)
def list_all(call: Call) -> Response:
    """The container groups of the resource group."""
    found = call.cloud.every("/containerGroups")
    return Response.of(200, {"value": [answer(group, view=False) for group in found]})


@routes.on("GET", GROUP)
def get(call: Call) -> Response:
    """A container group."""
    found = call.cloud.find(call.id)
    return Response.of(200, answer(found)) if found else _not_found(call)


@routes.on("PUT", GROUP)
def put(call: Call) -> Response:
    """Make a container group, or replace one."""
    cloud, asked = call.cloud, call.json()
    problem = _problem(asked)
    if problem:
        return problem
    images = [container["properties"]["image"] for container in asked["properties"]["containers"]]
    for image in images:
        if cloud.faults.of_image(image) == "inaccessible":
            text = f"The image '{image}' in container group '{call.names['name']}' is not "
            text += "accessible. Please check the image and registry credential."
            return error(400, "InaccessibleImage", text)
    before = cloud.find(call.id)
    if before and before.properties["provisioningState"] == "Pending":
        text = f"The container group '{before.name}' is still transitioning, please retry later."
        return error(409, "ContainerGroupTransitioning", text)
    if before:
        _end(cloud, before)
    resource, new = cloud.put(call.id, _body(cloud, call.names["name"], asked))
    missing = next((i for i in images if cloud.faults.of_image(i) == "not pulled"), None)
    resource.hidden |= {
        "environment": _environment(asked), "ours": (_ours(asked) or {}).get("name"),
        "started": False, "stopped": False, "events": [], "missing": missing,
    }  # fmt: skip

    def failed(_: operations.OperationError) -> None:
        resource.properties["provisioningState"] = "Failed"

    found = operations.begin(
        call, "operations", "", _starter(cloud, resource), failed, endless=missing is not None
    )
    headers = {"azure-asyncoperation": operations.address(call, found, ACI), **SOON}
    return Response.of(201 if new else 200, answer(resource), headers)


@routes.on("PATCH", GROUP)
def update(call: Call) -> Response:
    """Change the tags."""
    found = call.cloud.find(call.id)
    if found is None:
        return _not_found(call)
    found.body["tags"] = call.json().get("tags", {})
    return Response.of(200, answer(found, inside=False))


@routes.on("DELETE", GROUP)
def delete(call: Call) -> Response:
    """Remove a container group; the answer still has it."""
    found = call.cloud.find(call.id)
    if found is None:
        return Response(204)
    body = answer(found)
    call.cloud.remove(call.id)
    _end(call.cloud, found)
    return Response.of(200, body)


@routes.on("POST", f"{GROUP}/restart")
def restart(call: Call) -> Response:
    """Start all containers anew."""
    found = call.cloud.find(call.id.rpartition("/")[0])
    if found is None:
        return _not_found(call)
    _end(call.cloud, found)
    operation = operations.begin(call, "operations", "", _starter(call.cloud, found))
    headers = {"azure-asyncoperation": operations.address(call, operation, ACI), **SOON}
    return Response(204, headers)


@routes.on("POST", f"{GROUP}/start")
def start(call: Call) -> Response:
    """Start a group that was stopped."""
    found = call.cloud.find(call.id.rpartition("/")[0])
    if found is None:
        return _not_found(call)
    if found.hidden["stopped"]:
        found.hidden["stopped"] = False
        call.cloud.work.submit(_starter(call.cloud, found))
    return Response(204)


@routes.on("POST", f"{GROUP}/stop")
def stop(call: Call) -> Response:
    """End all containers; the group stays."""
    found = call.cloud.find(call.id.rpartition("/")[0])
    if found is None:
        return _not_found(call)
    found.hidden["stopped"] = True
    _end(call.cloud, found)
    return Response(204)


@routes.on("GET", f"{GROUP}/containers/{{container}}/logs")
def logs(call: Call) -> Response:
    """What a container has printed."""
    found = call.cloud.find(call.id.partition("/containers/")[0])
    known = found and [c["name"] for c in found.properties["containers"]]
    if not found or call.names["container"] not in (known or []):
        return _not_found(call)
    text = ""
    if found.hidden["ours"] == call.names["container"] and "last" in found.hidden:
        text = found.hidden["last"].logs()
    if "tail" in call.request.query:
        text = "".join(text.splitlines(keepends=True)[-int(call.request.query["tail"]) :])
    return Response.of(200, {"content": text})


def _starter(cloud: Cloud, resource: Resource) -> Callable[[], None]:
    def work() -> None:
        started = None
        if resource.hidden["environment"] is not None:
            started = cloud.cluster.launch(resource.name, resource.hidden["environment"])
        with cloud.lock:
            if started:
                resource.hidden |= {"container": started, "last": started}
            resource.hidden["started"] = now()
            resource.hidden["events"] += _events(resource)
            resource.properties["provisioningState"] = "Succeeded"
            gone = cloud.find(resource.id) is not resource
        if gone:
            _end(cloud, resource)

    return work


def _end(cloud: Cloud, resource: Resource) -> None:
    running = resource.hidden.pop("container", None)
    if running:
        cloud.work.submit(running.end)


def _state(resource: Resource) -> str:
    """How the group is as a whole."""
    if resource.hidden["stopped"]:
        return "Stopped"
    if not resource.hidden["started"]:
        return "Pending"
    running = resource.hidden.get("container")
    if running is None or running.running:
        return "Running"
    return "Succeeded" if running.exit_code == 0 else "Failed"


def _view(resource: Resource, container: dict[str, Any]) -> dict[str, Any]:
    """How one container is."""
    if missing := resource.hidden["missing"]:
        failed = container["properties"]["image"] == missing
        waiting = {"state": "Waiting", "detailStatus": "ImagePullBackOff" if failed else ""}
        return {"restartCount": 0, "currentState": waiting, "events": _pulls(missing)}
    started = resource.hidden["started"]
    running = resource.hidden.get("container")
    before = {"state": "Running", "startTime": started, "detailStatus": ""}
    state: dict[str, Any] = before
    if resource.hidden["stopped"]:
        state = {"state": "Terminated", "finishTime": now(),
                 "detailStatus": "Container stopped per client request"}  # fmt: skip
    elif container["name"] == resource.hidden["ours"] and running and not running.running:
        code = running.exit_code
        detail = "Completed" if code == 0 else "Error"
        state = {"state": "Terminated", "startTime": started, "exitCode": code,
                 "finishTime": now(), "detailStatus": detail}  # fmt: skip
    found: dict[str, Any] = {"restartCount": 0, "currentState": state}
    if resource.hidden["stopped"]:
        found["previousState"] = before
    return {**found, "events": resource.hidden["events"]}


def _events(resource: Resource) -> list[dict[str, Any]]:
    """What one start of a group leaves in its history."""
    started = resource.hidden["started"]
    image = resource.properties["containers"][0]["properties"]["image"]
    return [
        {
            "count": 1,
            "firstTimestamp": started,
            "lastTimestamp": started,
            "name": name,
            "message": text.format(image),
            "type": "Normal",
        }
        for name, text in _EVENTS
    ]


def _pulls(image: str) -> list[dict[str, Any]]:
    """What an image that is not there leaves in the history, as Kubernetes words it."""
    said = f'Failed to pull image "{image}": rpc error: code = NotFound desc = failed to pull and '
    texts = (("Pulling", "Normal", f'pulling image "{image}"'),
             ("Failed", "Warning", f"{said}unpack image: {image}: not found"))  # fmt: skip
    return [
        {"count": 3, "firstTimestamp": now(), "lastTimestamp": now(), "name": name,
         "message": text, "type": kind}
        for name, kind, text in texts
    ]  # fmt: skip


def _body(cloud: Cloud, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    given = copy.deepcopy(asked["properties"])
    for container in given["containers"]:
        container["properties"].setdefault("ports", [])
        container["properties"].setdefault("environmentVariables", [])
        for variable in container["properties"]["environmentVariables"]:
            variable.pop("secureValue", None)
    for credentials in given.get("imageRegistryCredentials", []):
        credentials.pop("password", None)
    for volume in given.get("volumes", []):
        volume.get("azureFile", {}).pop("storageAccountKey", None)
        if "secret" in volume:
            volume["secret"] = {}
    given.get("diagnostics", {}).get("logAnalytics", {}).pop("workspaceKey", None)
    address = given.get("ipAddress")
    if address:
        address["ip"] = "20.0.0.1"
        if label := address.get("dnsNameLabel"):
            address["fqdn"] = f"{label}.{asked['location']}.azurecontainer.io"
    properties = {"sku": "Standard", "provisioningState": "Pending", **given}
    properties.setdefault("initContainers", [])
    properties.setdefault("restartPolicy", "Always")
    body: dict[str, Any] = {"properties": properties}
    if asked.get("identity"):
        own = (cloud.login.client_id, cloud.login.tenant)
        body["identity"] = identity.described(asked["identity"], *own)
    if asked.get("tags"):
        body["tags"] = asked["tags"]
    return body | {"location": asked["location"]}


def _ours(asked: dict[str, Any]) -> dict[str, Any] | None:
    """The platform's own container."""
    for container in asked["properties"]["containers"]:
        variables = container["properties"].get("environmentVariables", [])
        if any(variable["name"].startswith("MLOPS_") for variable in variables):
            return container
    return None


def _environment(asked: dict[str, Any]) -> dict[str, str] | None:
    """The variables of the platform's own container, secret ones too."""
    found = _ours(asked)
    if found is None:
        return None
    variables = found["properties"]["environmentVariables"]
    return {v["name"]: v.get("value") or v.get("secureValue") or "" for v in variables}


def _problem(asked: dict[str, Any]) -> Response | None:
    given = asked.get("properties", {})
    shown = [port["port"] for port in (given.get("ipAddress") or {}).get("ports", [])]
    inside = [
        port["port"]
        for container in given.get("containers", [])
        for port in container["properties"].get("ports", [])
    ]
    missing = sorted(set(shown) - set(inside))
    if missing:
        text = f"The ports {missing} in ipAddress are not exposed by any container."
        return error(400, "InvalidIPAddressPorts", text)
    return None


def _not_found(call: Call) -> Response:
    text = (
        f"The Resource '{ACI}/containerGroups/{call.names['name']}' under resource group "
        f"'{call.names['group']}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix"
    )
    return error(404, "ResourceNotFound", text)
