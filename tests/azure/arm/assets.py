"""Models, environments, code, data and components: containers of numbered versions."""

from __future__ import annotations

import json
import re
import secrets
import uuid
from typing import Any

import yaml

from tests.azure.arm.base import (
    SERVER,
    WORKSPACE,
    Call,
    Cloud,
    Resource,
    routes,
    service_error,
    system_data,
)
from tests.azure.messages import Response

KINDS = "(?P<kind>models|environments|codes|data|components)"
PAGE = 30


def defaults(kind: str) -> dict[str, Any]:
    """What a version has that its request does not say."""
    found: dict[str, Any] = {
        "description": None,
        "tags": {},
        "properties": {},
        "isArchived": False,
        "isAnonymous": False,
    }
    if kind != "codes":
        found["autoDeleteSetting"] = None
    if kind == "models":
        found |= {
            "flavors": {}, "modelType": "custom_model", "modelUri": None, "jobName": None,
            "provisioningState": "Succeeded", "stage": None, "intellectualProperty": None,
        }  # fmt: skip
    elif kind == "environments":
        found |= {
            "environmentType": "UserCreated", "image": None, "condaFile": None,
            "osType": "Linux", "autoRebuild": "Disabled", "provisioningState": "Succeeded",
            "stage": "Logged", "intellectualProperty": None,
        }  # fmt: skip
    elif kind == "codes":
        found |= {"codeUri": None, "provisioningState": "Succeeded"}
    return found


def shaped(kind: str, properties: dict[str, Any], version: str) -> dict[str, Any]:
    """What that version of the interface knows of the properties of a version."""
    unknown: set[str] = set()
    if version < "2023-04-01":
        unknown |= {"provisioningState", "stage", "autoRebuild"}
    if version < "2023-04-01" or not version.endswith("-preview"):
        unknown |= {"autoDeleteSetting", "intellectualProperty"}
    found = {name: value for name, value in properties.items() if name not in unknown}
    if kind == "environments" and "condaFile" in found:
        found["condaFile"] = _conda(found["condaFile"])
    return found


def answer(call: Call, resource: Resource) -> dict[str, Any]:
    """A version or a container."""
    kind = resource.type.lower().rpartition("/versions")[0].rpartition("/")[2]
    identity = resource.id
    if "/registries/" in identity and kind:
        # So the client takes a registry's assets apart.
        identity = f"azureml:/{identity[identity.index('/registries/') :]}"
    body = {"id": identity, "name": resource.name, "type": resource.type}
    if kind:
        properties = shaped(kind, resource.properties, call.version)
    else:
        properties = {**resource.properties, **_numbers(versions(call, resource.id))}
        if call.version >= "2022-10-01-preview":
            properties["provisioningState"] = "Succeeded"
    return {**body, "properties": properties, "systemData": system_data(resource)}


def versions(call: Call, container: str) -> list[Resource]:
    """The versions in a container, the oldest first."""
    return list(call.cloud.below(container, "versions"))


def put_version(call: Call) -> tuple[Resource, bool, Response | None]:
    """Make a version or change it: the version, whether it is new, and why it was refused."""
    asked = call.json().get("properties", {})
    kind = call.names["kind"].lower()
    container = call.id.rpartition("/versions/")[0]
    if "properties" in asked:  # such as ``hash_version``, which is sent as a number
        asked["properties"] = {n: str(v) for n, v in (asked["properties"] or {}).items()}
    properties = defaults(kind) | {n: v for n, v in asked.items() if v is not None}
    uri = {"models": "modelUri", "codes": "codeUri"}.get(kind)
    if kind == "models":
        properties["modelUri"] = re.sub(
            "/resourcegroups/", "/resourceGroups/", properties["modelUri"]
        )
    before = call.cloud.find(call.id)
    if before and uri and before.properties[uri] != properties[uri]:
        # The client knows this sentence; which status it comes with is not recorded.
        text = "Asset paths cannot be updated."
        return before, False, service_error(400, text, location=call.cloud.location)
    if before and kind == "codes":
        properties["isAnonymous"] = before.properties["isAnonymous"]
    if call.cloud.find(container) is None:
        plain = {"description": None, "tags": {}, "properties": {}, "isArchived": False}
        call.cloud.put(container, {"properties": plain})
    resource, new = call.cloud.put(call.id, {"properties": properties})
    return resource, new, None


def remove_version(call: Call) -> Response:
    """Remove a version, there or not."""
    found = call.cloud.find(call.id)
    call.cloud.remove(call.id)
    return Response(200 if found else 204)


def not_found(call: Call, kind: str, name: str, version: str = "") -> Response:
    """The error of an unknown container or version."""
    location = call.cloud.location
    if kind == "environments":
        text = f"No environment exists for name: {name}, version: {version}, label: "
        return service_error(404, text, inner="NotFoundError", location=location)
    word = {"models": "Model", "codes": "Code", "data": "Data", "components": "Component"}[kind]
    text = f"{word} container with name: {name} not found."
    if version:
        text = f"{word} version with name: {name}, version: {version} not found."
    detail = (f"{word}NotFound", text)
    return service_error(
        404, "The specified resource was not found.", detail=detail, location=location
    )


def list_versions(call: Call) -> Response:
    """The versions of a container that the query asks for."""
    query, container = call.request.query, call.id.rpartition("/")[0]
    kind = call.names["kind"].lower()
    if call.cloud.find(container) is None:
        # Code is looked up by its hash before there is any. What a registry answers is not
        # recorded: with 404, azure-ai-ml 1.35 could not make the first version of a model.
        if kind == "codes" or "/registries/" in call.id:
            return Response.of(200, {"value": []})
        return not_found(call, kind, container.rpartition("/")[2])
    found = [r for r in versions(call, container) if _wanted(r.properties, query)]
    return page(call, found)


def page(call: Call, found: list[Resource]) -> Response:
    """A part of a list, and where the next one is."""
    query = call.request.query
    if "desc" in query.get("$orderby", "").lower() or "$orderby" not in query:
        found = sorted(found, key=lambda resource: resource.created, reverse=True)
    start = int(query.get("$skip") or 0)
    size = int(query.get("$top") or PAGE)
    body: dict[str, Any] = {
        "value": [answer(call, resource) for resource in found[start : start + size]]
    }
    if start + size < len(found) and "$top" not in query:
        target = re.sub(r"&\$skip=\d+", "", call.request.target)
        body["nextLink"] = f"https://{call.request.host}{target}&$skip={start + size}"
    return Response.of(200, body)


def pending_upload(call: Call) -> Response:
    """A new container in blob storage, and a token for it."""
    blob = call.cloud.blob
    container = f"{secrets.token_hex(4)}-{uuid.uuid4()}"
    blob.client().create_container(container)
    token = blob.container_sas(container, expired=call.cloud.faults.sas_is_expired())
    uri = f"https://{blob.account}.blob.core.windows.net:443/{container}"
    reference = {
        "blobUri": uri,
        "storageAccountArmId": storage_id(call.cloud),
        "credential": {"credentialType": "SAS", "sasUri": f"{uri}?{token}"},
    }
    return Response.of(
        200,
        {
            "blobReferenceForConsumption": reference,
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
        },
    )


def storage_id(cloud: Cloud) -> str:
    """The id of the storage account."""
    return (
        f"/subscriptions/{cloud.subscription}/resourceGroups/{cloud.group}"
        f"/providers/Microsoft.Storage/storageAccounts/{cloud.blob.account}"
    )


def _wanted(properties: dict[str, Any], query: dict[str, str]) -> bool:
    view = query.get("listviewtype", "ActiveOnly").rpartition(".")[2].replace("_", "").lower()
    if view != "all" and properties["isArchived"] != (view == "archivedonly"):
        return False
    if "hash" in query and properties["properties"].get("hash_sha256") != query["hash"]:
        return False
    if "stage" in query and properties.get("stage") != query["stage"]:
        return False
    # ``tags=a=1,b``: each is there, with that value where one is given.
    for wanted in filter(None, query.get("tags", "").split(",")):
        name, equals, value = wanted.partition("=")
        if name not in properties["tags"] or (equals and properties["tags"][name] != value):
            return False
    return True


def _numbers(found: list[Resource]) -> dict[str, str | None]:
    if not found:
        return {"latestVersion": None, "nextVersion": "1"}
    numbers = [int(r.name) for r in found if r.name.isdecimal()]
    latest = max(found, key=lambda resource: resource.created)
    return {"latestVersion": latest.name, "nextVersion": str(max(numbers, default=0) + 1)}


def _conda(text: str | None) -> str:
    return json.dumps(yaml.safe_load(text), indent=2) if text else ""


_CONTAINERS = f"{WORKSPACE}/{KINDS}"


@routes.on("GET", _CONTAINERS)
def containers(call: Call) -> Response:
    """All containers of a kind."""
    return page(call, list(call.cloud.below(call.parent, call.names["kind"])))


@routes.on("GET", f"{_CONTAINERS}/{{name}}")
def container(call: Call) -> Response:
    """A container: its latest version, its next one."""
    found = call.cloud.find(call.id)
    if found is None:
        return not_found(call, call.names["kind"].lower(), call.names["name"])
    return Response.of(200, answer(call, found))


@routes.on("PUT", f"{_CONTAINERS}/{{name}}")
def put_container(call: Call) -> Response:
    """Make a container, or archive one."""
    plain = {"description": None, "tags": {}, "properties": {}, "isArchived": False}
    asked = call.json().get("properties", {})
    kept = {name: asked[name] for name in plain if asked.get(name) is not None}
    resource, new = call.cloud.put(call.id, {"properties": plain | kept})
    return Response.of(201 if new else 200, answer(call, resource))


@routes.on("GET", f"{_CONTAINERS}/{{name}}/versions")
def workspace_versions(call: Call) -> Response:
    """The versions in a container."""
    return list_versions(call)


@routes.on("GET", f"{_CONTAINERS}/{{name}}/versions/{{version}}")
def version(call: Call) -> Response:
    """A version."""
    found = call.cloud.find(call.id)
    if found is None:
        kind, name = call.names["kind"].lower(), call.names["name"]
        return not_found(call, kind, name, call.names["version"])
    return Response.of(200, answer(call, found))


@routes.on("PUT", f"{_CONTAINERS}/{{name}}/versions/{{version}}")
def put(call: Call) -> Response:
    """Make a version; of an old one, change what can be changed."""
    resource, new, problem = put_version(call)
    if problem:
        return problem
    # The recordings have 201 for an environment that was there already, and 200 for code.
    status = 201 if new or call.names["kind"].lower() == "environments" else 200
    headers = {"Location": f"{SERVER}{call.request.target}"} if status == 201 else {}
    return Response.of(status, answer(call, resource), headers)


@routes.on("DELETE", f"{_CONTAINERS}/{{name}}/versions/{{version}}")
def delete(call: Call) -> Response:
    """Remove a version."""
    return remove_version(call)


@routes.on("POST", f"{_CONTAINERS}/{{name}}/versions/{{version}}/startPendingUpload")
def start_pending_upload(call: Call) -> Response:
    """Where the files of a version are to be put."""
    return pending_upload(call)
