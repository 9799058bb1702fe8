"""The identity that Azure ML lends a job: tokens from an address on the job's own machine."""

from __future__ import annotations

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from tests.azure.login import Login

#: Of the managed identity; Azure ML tells it a job whose compute has one.
CLIENT_ID = "0e7c2a2f-3a5c-4f7e-9d55-6a86cbe1c3d7"
SECONDS = 3600


class JobIdentity:
    """As AzureMLCredential and AzureMLOnBehalfOfCredential of Microsoft's clients ask for it."""

    def __init__(self, login: Login, *, on_behalf: bool) -> None:
        """Listen on a port of loopback; ``close`` ends it.

        Args:
            login: makes the tokens.
            on_behalf: of whoever has started the job; else the tokens of a managed identity.
        """
        secret = secrets.token_urlsafe(16)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path)
                query = parse_qs(path.query)
                known = path.path == "/OBO/token" or (
                    self.headers.get("secret") == secret
                    and query.get("clientid", [CLIENT_ID]) == [CLIENT_ID]
                    and query.get("api-version") == ["2017-09-01"]
                )
                status, body = 401, {}
                if known:
                    resource = query["resource"][0]
                    status, body = 200, {
                        "access_token": login.token(resource, SECONDS),
                        "expires_on": int(time.time()) + SECONDS,
                        "resource": resource,
                        "token_type": "Bearer",
                        "client_id": CLIENT_ID,
                    }  # fmt: skip
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_port}"
        self.variables = {
            "MSI_ENDPOINT": f"{address}/MSI/auth",
            "MSI_SECRET": secret,
            "DEFAULT_IDENTITY_CLIENT_ID": CLIENT_ID,
        }
        if on_behalf:
            self.variables = {"OBO_ENDPOINT": f"{address}/OBO/token"}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
