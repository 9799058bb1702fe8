"""``*.api.azureml.ms``: discovery, registries, the history of runs for ``jobs.stream``."""

from __future__ import annotations

import re
from typing import Any

from tests.azure.arm.base import Cloud, Resource, error
from tests.azure.arm.host import ResourceManager
from tests.azure.arm.job_run import LOG, LOGS
from tests.azure.messages import Request, Response

_MFE = "/mferp/managementfrontend"
_AUDIENCES = ("https://management.azure.com", "https://ml.azure.com")
_SERVICES = (
    "api", "history", "hyperdrive", "modelmanagement", "pipelines", "jobs", "notebooks",
    "studio", "experimentation",
)  # fmt: skip


class Api:
    """Answers for the region's own host."""

    def __init__(self, cloud: Cloud) -> None:
        """Answer for a cloud."""
        self._cloud = cloud
        self._manager = ResourceManager(cloud)

    def answer(self, request: Request) -> Response:
        """Carry a request out."""
        path = request.path
        if path.startswith(_MFE):
            target = request.target.removeprefix(_MFE)
            return self._manager.answer(
                Request(request.method, request.host, target, request.headers, request.body)
            )
        if path.rstrip("/") == "/discovery":  # asked without a token
            return Response.of(200, dict.fromkeys(_SERVICES, f"https://{request.host}"))
        authorization = request.headers.get("authorization")
        if not self._cloud.login.accepts(authorization, *_AUDIENCES):
            return self.error(401, None, "The token is missing or invalid.")
        if match := re.search(r"/registries/([^/]+)/discovery$", path):
            return self._registry(match[1])
        if match := re.search(r"/history/v1\.0.*/runs/([^/]+)/details$", path):
            return self._run(match[1])
        return self.error(404, None, f"There is no {request.method} {path}")

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error."""
        return error(status, code or "UserError", message)

    def _registry(self, name: str) -> Response:
        found = [r for r in self._cloud.every("/registries") if r.name == name]
        if not found:
            return self.error(404, None, f"Registry {name} was not found.")
        cloud, domain = self._cloud, f"https://{self._cloud.location}.api.azureml.ms/"
        body = {
            "registryName": name,
            "primaryRegionResourceProviderUri": domain,
            "primaryRegion": cloud.location,
            "resourceGroup": cloud.group,
            "subscriptionId": cloud.subscription,
            "regions": [cloud.location],
        }
        return Response.of(200, body)

    def _run(self, name: str) -> Response:
        found = [r for r in self._cloud.every("/jobs") if r.name == name]
        if not found:
            return self.error(404, None, f"Run {name} was not found.")
        return Response.of(200, self._details(found[0]))

    def _details(self, job: Resource) -> dict[str, Any]:
        run, blob = job.hidden["run"], self._cloud.blob
        token = blob.container_sas(LOGS, expired=self._cloud.faults.sas_is_expired())
        address = f"https://{blob.account}.blob.core.windows.net/{LOGS}/{run.log}?{token}"
        return {
            "runId": job.name,
            "target": (job.properties["computeId"] or "serverless").rpartition("/")[2],
            "status": run.status,
            "startTimeUtc": run.started or None,
            "endTimeUtc": run.ended or None,
            "error": {"error": run.error} if run.error else None,
            "warnings": None,
            "properties": job.properties["properties"],
            "logFiles": {LOG: address} if run.started else {},
        }
