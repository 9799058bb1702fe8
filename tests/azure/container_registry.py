"""``*.azurecr.io``: who may pull, and which images there are."""

from __future__ import annotations

from urllib.parse import parse_qs

from tests.azure.arm.base import Cloud
from tests.azure.messages import Request, Response

_AUDIENCES = ("https://management.azure.com",)


class ContainerRegistries:
    """All registries of the tenant; the cloud says which images are in them."""

    def __init__(self, cloud: Cloud) -> None:
        """Answer for a cloud."""
        self._cloud = cloud

    def answer(self, request: Request) -> Response:
        """A token for a token, or whether there is a manifest."""
        if request.method == "POST" and request.path in ("/oauth2/exchange", "/oauth2/token"):
            return self._token(request)
        repository, _, reference = request.path.removeprefix("/v2/").partition("/manifests/")
        login = self._cloud.login
        if not login.accepts(request.headers.get("authorization"), f"{request.host}/{repository}"):
            return self.error(401, "UNAUTHORIZED", "authentication required")
        if f"{request.host}/{repository}@{reference}" not in self._cloud.images:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest is not known")
        return Response(200, {"Docker-Content-Digest": reference})

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error as registries have it."""
        return Response.of(status, {"errors": [{"code": code or "DENIED", "message": message}]})

    def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        login, name = self._cloud.login, request.host
        if request.path == "/oauth2/exchange":
            if not login.accepts(f"Bearer {form.get('access_token')}", *_AUDIENCES):
                return self.error(401, "UNAUTHORIZED", "authentication required")
            return Response.of(200, {"refresh_token": login.token(name)})
        if not login.accepts(f"Bearer {form.get('refresh_token')}", name):
            return self.error(401, "UNAUTHORIZED", "authentication required")
        repository = form["scope"].removeprefix("repository:").removesuffix(":pull")
        return Response.of(200, {"access_token": login.token(f"{name}/{repository}")})
