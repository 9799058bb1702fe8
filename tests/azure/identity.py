"""``169.254.169.254``: tokens for the managed identities of container groups."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tests.azure.arm.base import Cloud, Resource
from tests.azure.login import TOKEN_SECONDS
from tests.azure.messages import Request, Response

HOST = "169.254.169.254"
PATH = "/metadata/identity/oauth2/token"


def client_id(identity: str) -> str:
    """The client id of a user-assigned identity, by its resource id."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, identity.lower()))


def described(asked: dict[str, Any], principal: str, tenant: str) -> dict[str, Any]:
    """The identities of a group as Resource Manager answers them."""
    found = dict(asked)
    if "SystemAssigned" in asked["type"]:
        found |= {"principalId": principal, "tenantId": tenant}
    if given := asked.get("userAssignedIdentities"):
        found["userAssignedIdentities"] = {
            name: {"principalId": client_id(f"principal of {name}"), "clientId": client_id(name)}
            for name in given
        }
    return found


class Identity:
    """Answers each container for the identities that its own group has."""

    def __init__(self, cloud: Cloud) -> None:
        """Answer for the groups of a cloud."""
        self._cloud = cloud

    def answer(self, request: Request) -> Response:
        """A token, in the form that is documented for virtual machines and containers."""
        if request.method != "GET" or request.path != PATH:
            return self.error(404, "not_found", f"There is no {request.method} {request.path}.")
        if request.headers.get("metadata", "").lower() != "true":
            return self.error(400, "bad_request_102", "Required metadata header not specified")
        if "resource" not in request.query:
            return self.error(400, "invalid_request", "The parameter resource is missing.")
        known = self._identities(request.client)
        wanted = request.query.get("client_id")
        # Without a name it is the only one there is, or the group's own.
        if not known or (wanted is not None and wanted not in known):
            return self.error(400, "invalid_request", "Identity not found")
        if wanted is None and len(known) > 1:
            text = "Multiple user assigned identities exist, please specify the clientId"
            return self.error(400, "invalid_request", text)
        resource = request.query["resource"]
        now = int(time.time())
        body = {
            "access_token": self._cloud.login.token(resource),
            "client_id": wanted or known[0],
            "expires_in": str(TOKEN_SECONDS),
            "expires_on": str(now + TOKEN_SECONDS),
            "ext_expires_in": str(TOKEN_SECONDS),
            "not_before": str(now - 300),
            "resource": resource,
            "token_type": "Bearer",
        }
        return Response.of(200, body)

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error of the token service."""
        return Response.of(status, {"error": code or "unknown", "error_description": message})

    def _identities(self, group: str) -> list[str]:
        with self._cloud.lock:
            found = [g for g in self._cloud.every("/containerGroups") if g.name == group]
            return _clients(found[0]) if found else []


def _clients(group: Resource) -> list[str]:
    identity = group.body.get("identity") or {}
    if identity.get("principalId"):
        return [identity["principalId"]]
    return [one["clientId"] for one in identity.get("userAssignedIdentities", {}).values()]
