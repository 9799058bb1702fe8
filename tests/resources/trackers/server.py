"""Issue trackers on loopback: requests are checked, and may be answered with trouble."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

#: In the variable that the trackers of the tests read.
TOKEN = "t0ken-of-the-tracker"


class Told(Exception):  # noqa: N818  (an answer, no error)
    """An answer that is not the usual one."""

    def __init__(self, status: int, body: Any = None, **headers: str) -> None:
        self.status, self.body = status, {"message": "no"} if body is None else body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Trouble:
    """What comes instead of an answer."""

    #: None closes the connection without an answer.
    told: Told | None
    #: What was asked for is done all the same.
    done: bool = False
    #: Requests of this method alone.
    method: str | None = None


class Provider(Protocol):
    """A tracker's own part."""

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Any, body: Any
    ) -> tuple[int, Any]: ...


@dataclass
class Server:
    """What was asked, and what goes wrong next."""

    url: str = ""
    trouble: list[Trouble] = field(default_factory=list)
    #: Method and path of every request.
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: Requests that the provider's description does not allow.
    wrong: list[str] = field(default_factory=list)

    def count(self, method: str, end: str = "") -> int:
        return len([1 for m, path in self.asked if m == method and path.endswith(end)])


@contextmanager
def serve(provider: Provider) -> Generator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            url = urlsplit(self.path)
            found.asked.append((self.command, url.path))
            trouble = None
            if found.trouble and found.trouble[0].method in (None, self.command):
                trouble = found.trouble.pop(0)
            headers: dict[str, str] = {}
            try:
                if trouble and trouble.told and not trouble.done:
                    raise trouble.told
                status, body = 200, None
                if not trouble or trouble.done:
                    sent = json.loads(raw) if raw else None
                    query = dict(parse_qsl(url.query, keep_blank_values=True))
                    status, body = provider.answer(
                        self.command, url.path, query, self.headers, sent
                    )
                if trouble and trouble.told is None:
                    self.close_connection = True
                    return
                if trouble and trouble.told:
                    raise trouble.told
            except Told as told:
                status, body, headers = told.status, told.body, told.headers
            except AssertionError as error:
                found.wrong.append(f"{self.command} {self.path}: {error}")
                status, body = 422, {"message": str(error)}
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.handle_any()

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
    assert not found.wrong, found.wrong
