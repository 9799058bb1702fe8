"""A CONNECT proxy that ends the TLS itself, for the hosts that it knows; all others get 403."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import urlsplit

from tests.azure.authority import Authority
from tests.azure.faults import Fault, Faults
from tests.azure.messages import Request, Response
from tests.azure.record import Record

_NO_BODY = {204, 304}


class Host(Protocol):
    """Whoever answers for some host names."""

    def answer(self, request: Request) -> Response:
        """Carry a request out."""
        ...

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error, in the form that these hosts answer with."""
        ...


class Proxy:
    """Listens on loopback, for as long as the process lives or until ``close``."""

    def __init__(
        self,
        authority: Authority,
        hosts: dict[str, Host],
        own: Host,
        faults: Faults,
        record: Record,
    ) -> None:
        """Start.

        Args:
            authority: makes the certificates.
            hosts: by a whole name, or by ``.suffix`` for all names below it.
            own: answers what is asked of the proxy itself.
            faults: what goes wrong.
            record: where exchanges are noted.
        """
        self.authority = authority
        self.own = own
        self._hosts = hosts
        self._faults = faults
        self._record = record
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()

    def close(self) -> None:
        """Stop listening and close all connections."""
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()

    def host(self, name: str) -> Host | None:
        """Who answers for a name; a port may stand behind it."""
        name = name.partition(":")[0]
        exact = self._hosts.get(name)
        if exact:
            return exact
        suffixes = (suffix for suffix in self._hosts if suffix.startswith("."))
        return next((self._hosts[s] for s in suffixes if name.endswith(s)), None)

    def refuse(self, name: str) -> None:
        """Note that somebody wanted to go where there is no Azure."""
        self._record.refused.append(name)
        print(f"refused: {name}", file=sys.stderr)

    def answer(self, host: Host, request: Request) -> Response | None:
        """The answer, faults and all; None: the connection is to be dropped."""
        fault = self._faults.of_request(request)
        if fault and fault.seconds:
            time.sleep(fault.seconds)
        response = self._carry_out(host, request, fault)
        if fault and fault.kills and fault.drop != "request":
            os.kill(fault.kills, signal.SIGKILL)
        if fault and fault.drop:
            response = None
        self._record.add(request, response, fault=fault is not None)
        return response

    def _carry_out(self, host: Host, request: Request, fault: Fault | None) -> Response | None:
        if fault and fault.drop == "request":
            if fault.kills:
                os.kill(fault.kills, signal.SIGKILL)
            return None
        if fault and fault.status:
            found = host.error(fault.status, fault.code, fault.message)
            if fault.retry_after is None:
                return found
            headers = {**found.headers, "Retry-After": str(fault.retry_after)}
            return Response(found.status, headers, found.body)
        try:
            return host.answer(request)
        except Exception:
            # An error of ours: the client gets an answer, and the test that caused it fails.
            self._record.broken.append(traceback.format_exc())
            traceback.print_exc()
            return host.error(500, "TestServerBroken", "the test server itself has failed")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    proxy: Proxy

    def __init__(self, *arguments: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*arguments)

    def close_connections(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        # Clients close connections when they like; anything else is for the log.
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    #: Whom the client has connected to through the proxy.
    tunnel: str | None = None

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def do_CONNECT(self) -> None:
        name, _, port = self.path.partition(":")
        proxy = self.server.proxy
        if port != "443" or proxy.host(name.lower()) is None:
            proxy.refuse(self.path)
            self._send(Response.of(403, {"error": f"{self.path} is not reached from here"}))
            self.close_connection = True
            return
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        context = proxy.authority.context(name.lower())
        self.server.open.discard(self.connection)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.server.open.add(self.connection)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", 0)
        self.tunnel = name.lower()
        self.close_connection = False

    def _answer(self) -> None:
        request = self._request()
        proxy = self.server.proxy
        if request.host == "":
            self._send(proxy.own.answer(request))
            return
        host = proxy.host(request.host)
        # Only container groups are asked over plain HTTP; nobody else in Azure answers there.
        if host is None or (request.scheme == "http" and "azurecontainer.io" not in request.host):
            proxy.refuse(request.url)
            self._send(Response.of(403, {"error": f"{request.host} is not reached from here"}))
            return
        response = proxy.answer(host, request)
        if response is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(response)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def _request(self) -> Request:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body()
        if self.tunnel:
            return Request(self.command, self.tunnel, self.path, headers, body)
        if not self.path.startswith("http://"):
            return Request(self.command, "", self.path, headers, body, "http")
        parts = urlsplit(self.path)
        target = self.path[len(f"http://{parts.netloc}") :] or "/"
        return Request(self.command, parts.netloc.lower(), target, headers, body, "http")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            found.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(found)

    def _send(self, response: Response) -> None:
        body = response.body
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "keep-alive"}:
                self.send_header(name, value)
        names = {name.lower() for name in response.headers}
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        if "content-length" not in names and response.status not in _NO_BODY:
            self.send_header("Content-Length", str(len(body)))
        # The head goes out with the body, in one packet.
        if self.command != "HEAD" and response.status not in _NO_BODY:
            self._headers_buffer.extend([b"\r\n", body])
            self.flush_headers()
        else:
            self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the record has it all."""
