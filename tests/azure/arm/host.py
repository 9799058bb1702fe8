"""Whoever answers for management.azure.com."""

from __future__ import annotations

import re
import secrets

from tests.azure.arm import (  # noqa: F401  (they add their operations)
    assets,
    computes,
    container_groups,
    datastores,
    deployments,
    endpoints,
    jobs,
    operations,
    registries,
    subscriptions,
    templates,
    workspaces,
)
from tests.azure.arm.base import ArmError, Call, Cloud, error, routes
from tests.azure.messages import Request, Response

_AUDIENCES = ("https://management.azure.com", "https://management.core.windows.net")
#: What every answer of Resource Manager carries.
_ALWAYS = {
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Expires": "-1",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}


class ResourceManager:
    """Checks what is the same for all operations, and carries the operation out."""

    def __init__(self, cloud: Cloud) -> None:
        """Answer for a cloud."""
        self._cloud = cloud

    def answer(self, request: Request) -> Response:
        """The answer of an operation, or an error."""
        with self._cloud.lock:
            try:
                response = self._answer(request)
            except ArmError as found:
                response = found.response
        identity = secrets.token_hex(16)
        headers = {
            **_ALWAYS,
            "x-ms-request-id": identity,
            "x-ms-correlation-request-id": identity,
            **response.headers,
        }
        return Response(response.status, headers, response.body)

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error of Resource Manager."""
        code = code or {
            401: "AuthenticationFailed", 403: "AuthorizationFailed", 404: "ResourceNotFound",
            409: "Conflict", 429: "TooManyRequests", 500: "InternalServerError",
        }.get(status, "InternalServerError")  # fmt: skip
        return error(status, code, message)

    def _answer(self, request: Request) -> Response:
        cloud = self._cloud
        if not cloud.login.accepts(request.headers.get("authorization"), *_AUDIENCES):
            text = "Authentication failed. The 'Authorization' header is missing or invalid."
            tenant = f"https://login.microsoftonline.com/{cloud.login.tenant}"
            challenge = f'Bearer authorization_uri="{tenant}", error="invalid_token"'
            return error(401, "AuthenticationFailed", text, **{"WWW-Authenticate": challenge})
        version = request.query.get("api-version", "")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d(-(data)?(plane)?preview)?", version):
            text = f"The api-version query parameter '{version}' is missing or invalid."
            code = "InvalidApiVersionParameter" if version else "MissingApiVersionParameter"
            return error(400, code, text)
        found = routes.find(request.method, request.path)
        if found is None:
            text = f"No operation for {request.method} {request.path}"
            return error(404, "InvalidResourceType", text)
        handler, names = found
        self._check_scope(names)
        return handler(Call(request, names, cloud))

    def _check_scope(self, names: dict[str, str]) -> None:
        """Everything above the resource has to be there; raises ArmError."""
        cloud = self._cloud
        subscription = names.get("subscription", cloud.subscription)
        if subscription.lower() != cloud.subscription:
            text = f"The subscription '{subscription}' could not be found."
            raise ArmError(error(404, "SubscriptionNotFound", text))
        group = names.get("group", cloud.group)
        if group.lower() != cloud.group.lower():
            text = f"Resource group '{group}' could not be found."
            raise ArmError(error(404, "ResourceGroupNotFound", text))
        if "workspace" in names:
            workspaces.require(cloud, names["workspace"])
