"""Command jobs: the command really runs, with its code, its inputs and its outputs."""

from __future__ import annotations

from typing import Any

from tests.azure.arm import operations
from tests.azure.arm.base import (
    ML,
    SERVER,
    WORKSPACE,
    Call,
    Resource,
    error,
    now,
    routes,
    service_error,
)
from tests.azure.arm.job_run import ENDED, JobRun
from tests.azure.messages import Response

JOB = f"{WORKSPACE}/jobs/{{job}}"


def answer(call: Call, resource: Resource) -> dict[str, Any]:
    """A job."""
    properties = dict(resource.properties)
    if "run" in resource.hidden:
        properties["status"] = resource.hidden["run"].status
    return {
        "id": resource.id,
        "name": resource.name,
        "type": resource.type,
        "properties": properties,
        "systemData": {
            "createdAt": resource.created,
            "createdBy": "Test Principal",
            "createdByType": "Application",
        },
    }


def _not_found(call: Call) -> Response:
    text = f"Could not find job {call.names['job']}."
    return service_error(404, text, inner="NotFoundError", location=call.cloud.location)


@routes.on("GET", JOB.rpartition("/")[0])
def list_all(call: Call) -> Response:
    """All jobs."""
    found = list(call.cloud.below(call.parent, "jobs"))
    values = [answer(call, r) for r in sorted(found, key=lambda r: r.created, reverse=True)]
    return Response.of(200, {"value": values})


@routes.on("GET", JOB)
def get(call: Call) -> Response:
    """A job."""
    found = call.cloud.find(call.id)
    return Response.of(200, answer(call, found)) if found else _not_found(call)


@routes.on("PUT", JOB)
def put(call: Call) -> Response:
    """Start a job; of an old one, change what can be changed."""
    cloud, asked = call.cloud, call.json()["properties"]
    before = cloud.find(call.id)
    if before:
        for name in ("description", "tags", "displayName", "isArchived"):
            before.properties[name] = asked.get(name, before.properties[name])
        before.modified = now()
        return Response.of(200, answer(call, before))
    if asked["jobType"] != "Command":
        return error(400, "BadRequest", f"{asked['jobType']} is not run here; Command is.")
    compute = asked.get("computeId") or ""
    if compute.startswith("/") and cloud.find(compute) is None:
        text = f"Unknown compute target '{compute.rpartition('/')[2]}'."
        return service_error(400, text, location=cloud.location)
    resource, _ = cloud.put(call.id, {"properties": _properties(call, asked)})
    fault = cloud.faults.of_operation(call.request.method, call.id)
    resource.hidden["run"] = JobRun(cloud, resource, call.parent, fault)
    resource.hidden["container"] = resource.hidden["run"]
    headers = {"Location": f"{SERVER}{call.request.target}"}
    response = Response.of(201, answer(call, resource), headers)
    resource.hidden["run"].queue()
    cloud.work.submit(resource.hidden["run"].carry_out)
    return response


@routes.on("POST", f"{JOB}/cancel")
def cancel(call: Call) -> Response:
    """End a job."""
    found = call.cloud.find(call.id.rpartition("/")[0])
    if found is None:
        return _not_found(call)
    run = found.hidden["run"]
    if run.status in ENDED:
        return Response(200)
    operation = operations.begin(call, "mfeOperationsStatus", "job:", run.cancel)
    headers = operations.headers(call, operation)
    headers["Location"] = headers["Azure-AsyncOperation"].replace(
        "mfeOperationsStatus", "mfeOperationResults"
    )
    return Response(202, headers)


def _properties(call: Call, asked: dict[str, Any]) -> dict[str, Any]:
    cloud, name = call.cloud, call.names["job"]
    workspace = call.parent.rpartition("/")[2]
    scope = f"/subscriptions/{cloud.subscription}/resourceGroups/{cloud.group}"
    tracking = (
        f"azureml://{cloud.location}.api.azureml.ms/mlflow/v1.0{scope}/providers/{ML}/workspaces/"
        f"{workspace}?"
    )
    studio = f"https://ml.azure.com/runs/{name}?wsid={scope.lower()}/workspaces/{workspace}"
    default = {
        "description": None, "uri": f"azureml://datastores/workspaceartifactstore/ExperimentRun/dcid.{name}",
        "assetName": None, "assetVersion": None, "mode": "ReadWriteMount",
        "autoDeleteSetting": None, "jobOutputType": "uri_folder",
    }  # fmt: skip
    resources = {
        "instanceCount": 1, "maxInstanceCount": None, "instanceType": None, "locations": None,
        "properties": None, "shmSize": "2g", "dockerArgs": None,
    }  # fmt: skip
    distribution = asked.get("distribution")
    if distribution and distribution["distributionType"] == "Ray":
        distribution = {
            "port": None, "address": None, "includeDashboard": None, "dashboardPort": None,
            "headNodeAdditionalArgs": None, "workerNodeAdditionalArgs": None, **distribution,
        }  # fmt: skip
    compute = "amlctrain" if asked.get("computeId") else "serverless"
    return {
        "description": asked.get("description"),
        "tags": asked.get("tags") or {},
        "properties": {
            **(asked.get("properties") or {}),
            "_azureml.ComputeTargetType": compute,
        },
        "displayName": asked.get("displayName") or name,
        "status": "Starting",
        "experimentName": asked.get("experimentName", "Default"),
        "services": {
            "Tracking": _service("Tracking", tracking), "Studio": _service("Studio", studio),
        },
        "computeId": asked.get("computeId"),
        "isArchived": asked.get("isArchived", False),
        "identity": asked.get("identity"),
        "componentId": asked.get("componentId"),
        "notificationSetting": asked.get("notificationSetting"),
        "secretsConfiguration": asked.get("secretsConfiguration"),
        "jobType": "Command",
        "resources": resources | (asked.get("resources") or {}),
        "codeId": asked.get("codeId"),
        "command": asked["command"],
        "environmentId": asked["environmentId"],
        "inputs": {n: _input(value) for n, value in (asked.get("inputs") or {}).items()},
        "outputs": {
            **{n: _output(name, n, value) for n, value in (asked.get("outputs") or {}).items()},
            "default": default,
        },
        "distribution": distribution,
        "autologgerSettings": None,
        "limits": asked.get("limits"),
        "environmentVariables": asked.get("environmentVariables") or {},
        "parameters": {},
        "queueSettings": asked.get("queueSettings"),
    }  # fmt: skip


def _service(kind: str, endpoint: str) -> dict[str, Any]:
    return {
        "jobServiceType": kind, "port": None, "endpoint": endpoint, "status": None,
        "errorMessage": None, "properties": None, "nodes": None,
    }  # fmt: skip


def _input(asked: dict[str, Any]) -> dict[str, Any]:
    if asked["jobInputType"] == "literal":
        return {"description": None, **asked}
    return {"description": None, "mode": "ReadOnlyMount", **asked}


def _output(job: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
    found = {n: value for n, value in asked.items() if value is not None}
    uri = f"azureml://datastores/workspaceblobstore/paths/azureml/{job}/{name}/"
    return {"description": None, "uri": uri, "mode": "ReadWriteMount", **found}
