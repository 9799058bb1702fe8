"""login.microsoftonline.com: discovery and tokens of a service principal."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.azure.messages import Request, Response

HOST = "login.microsoftonline.com"
TOKEN_SECONDS = 3600


@dataclass
class Login:
    """One tenant with one service principal; its tokens are signed with a key of the run."""

    tenant: str
    client_id: str
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def answer(self, request: Request) -> Response:
        """Discovery, configuration, or a token."""
        path = request.path.rstrip("/").lower()
        if path.endswith("/discovery/instance"):
            return Response.of(200, self._instances())
        if path.endswith("/.well-known/openid-configuration"):
            return Response.of(200, self._configuration())
        if request.method == "POST" and path.endswith("/oauth2/v2.0/token"):
            if path.split("/")[1] != self.tenant:
                text = f"AADSTS90002: Tenant '{path.split('/')[1]}' not found."
                return self.error(400, "invalid_request", text)
            return self._token(parse_qs(request.body.decode()))
        return Response(404)

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error of OAuth."""
        body = {
            "error": code or "temporarily_unavailable",
            "error_description": message,
            "error_codes": [int(word) for word in [message[6:].split(":")[0]] if word.isdigit()],
            "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
            "trace_id": secrets.token_hex(16),
            "correlation_id": secrets.token_hex(16),
        }
        return Response.of(status, body)

    def accepts(self, authorization: str | None, *audiences: str) -> bool:
        """Whether a header carries one of our tokens, in time and for one of the audiences."""
        scheme, _, token = (authorization or "").partition(" ")
        parts = token.split(".")
        if scheme.lower() != "bearer" or len(parts) != 3:
            return False
        if not hmac.compare_digest(parts[2], self._sign(f"{parts[0]}.{parts[1]}")):
            return False
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        return claims["exp"] > time.time() and claims["aud"].rstrip("/") in audiences

    def token(self, audience: str, seconds: float = TOKEN_SECONDS) -> str:
        """A token for an audience."""
        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": f"https://sts.windows.net/{self.tenant}/",
            "iat": now - 300,
            "nbf": now - 300,
            "exp": int(now + seconds),
            "appid": self.client_id,
            "oid": self.client_id,
            "tid": self.tenant,
            "ver": "1.0",
        }
        signed = f"{_encode({'typ': 'JWT', 'alg': 'HS256'})}.{_encode(claims)}"
        return f"{signed}.{self._sign(signed)}"

    def _token(self, form: dict[str, list[str]]) -> Response:
        scope = form.get("scope", [""])[0]
        if form.get("client_id") != [self.client_id]:
            text = "AADSTS700016: Application was not found in the directory."
            return self.error(400, "unauthorized_client", text)
        if form.get("client_secret") != [self.secret]:
            text = "AADSTS7000215: Invalid client secret provided."
            return self.error(401, "invalid_client", text)
        if not scope.endswith("/.default"):
            text = f"AADSTS1002012: The provided value for scope {scope} is not valid."
            return self.error(400, "invalid_scope", text)
        return Response.of(
            200,
            {
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "ext_expires_in": TOKEN_SECONDS,
                "access_token": self.token(scope.removesuffix("/.default")),
            },
        )

    def _configuration(self) -> dict[str, Any]:
        root = f"https://{HOST}/{self.tenant}"
        return {
            "token_endpoint": f"{root}/oauth2/v2.0/token",
            "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
            "jwks_uri": f"{root}/discovery/v2.0/keys",
            "issuer": f"{root}/v2.0",
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def _instances(self) -> dict[str, Any]:
        return {
            "tenant_discovery_endpoint": (
                f"https://{HOST}/{self.tenant}/v2.0/.well-known/openid-configuration"
            ),
            "api-version": "1.1",
            "metadata": [
                {
                    "preferred_network": HOST,
                    "preferred_cache": "login.windows.net",
                    "aliases": [HOST, "login.windows.net", "login.microsoft.com"],
                }
            ],
        }

    def _sign(self, text: str) -> str:
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
