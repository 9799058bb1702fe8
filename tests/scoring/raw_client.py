"""A real worker with limits of a test's own, and clients that need not behave."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlops_assets.files import write_atomic
from mlops_assets.scoring.connections import Limits
from mlops_assets.scoring.generation import Entry, Generation, GenerationFile
from mlops_assets.scoring.keys import KEYS
from mlops_assets.scoring.supervisor import bind
from resources.endpoints.base import VersionRef

KEY = "first"
BODY = b'{"data": [{"a": 1, "b": 2}]}'
#: Seconds until a test gives up; none is asserted.
PATIENCE = 30
#: What a worker does, with other limits than its own.
SERVE = """
import json, sys
from pathlib import Path
from mlops_assets.scoring.logs import log_to_stderr
from mlops_assets.scoring.connections import Limits
from mlops_assets.scoring.worker import serve
log_to_stderr()
folder, listening, alive, limits = sys.argv[1:]
serve(Path(folder), int(listening), int(alive), "id", Limits(**json.loads(limits)))
"""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """Status and code; there must be a message, and no other connection than this."""
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message"}
        assert error["message"]
        return self.status, error["code"]


@dataclass
class Client:
    """One connection, byte by byte."""

    port: int
    #: Bytes of the socket's buffer of what was received and not read.
    buffer: int | None = None
    socket: socket.socket = field(init=False)
    _received: bytes = b""

    def __post_init__(self) -> None:
        self.socket = socket.socket()
        if self.buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", self.port))

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self) -> Answer:
        """The next answer; raises ConnectionError if the connection ends before it."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)[1])  # type: ignore[index]
        size = int(headers.get("content-length", 0))
        while len(self._received) < size:
            self._receive()
        body, self._received = self._received[:size], self._received[size:]
        return Answer(status, headers, body)

    def ended(self) -> bool:
        """Whether the server closed the connection without a word; waits for it."""
        try:
            return self._received == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def has_ended(self) -> bool:
        """Whether the server has closed the connection by now."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(0):
            return False
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> None:
        received = self.socket.recv(2**16)
        if not received:
            raise ConnectionError(f"closed after {self._received!r}")
        self._received += received


def post(
    body: bytes = BODY, *headers: str, path: str = "/score", length: int | None = None
) -> bytes:
    """A request as its bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", *headers]
    if not any(header.startswith("transfer-encoding") for header in headers):
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str) -> bytes:
    """A request with the key."""
    return f"GET {path} HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()


HEALTH = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass
class Worker:
    """A running worker."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    clients: list[Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, buffer: int | None = None) -> Client:
        """A new connection; closed with the worker."""
        client = Client(self.port, buffer)
        self.clients.append(client)
        return client

    def ask(self, request: bytes = HEALTH) -> Answer:
        """Ask on a connection of its own."""
        client = self.client()
        client.send(request)
        return client.answer()

    def healthy(self) -> bool:
        """Whether a newcomer is served; with a score, where the version takes BODY."""
        return self.ask().body == b"Healthy" and self.ask(post()).status in (200, 400)

    def refused(self, reason: str) -> int:
        """How many were refused for a reason, by the worker's own metrics."""
        text = self.ask(get("/metrics")).body.decode()
        found = re.search(rf'^mlops_refused_total{{reason="{reason}"}} (\S+)$', text, re.MULTILINE)
        return int(float(found[1])) if found else 0


@contextmanager
def worker(folder: Path, version: VersionRef, limits: Limits) -> Iterator[Worker]:
    """A worker that serves a version; ended as a supervisor does, and it must end."""
    folder.mkdir(parents=True)
    write_atomic(folder / KEYS, f"{KEY}\nsecond\n", 0o600)
    write_atomic(folder / "settings.json", "{}")
    entry = Entry(str(version.bundle), version.digest, version.version, 100)
    GenerationFile(folder).write(Generation(1, {"live": entry}))
    reading, writing = os.pipe()
    log = folder / "log"
    with bind(None, None) as listening, log.open("wb") as written:
        numbers = (listening.fileno(), reading)
        command = [sys.executable, "-c", SERVE, str(folder), *map(str, numbers)]
        process = subprocess.Popen(
            [*command, json.dumps(asdict(limits))], pass_fds=numbers, stderr=written
        )
        port = listening.getsockname()[1]
    found = Worker(port, process, log)
    try:
        assert found.healthy()
        yield found
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
        for client in found.clients:
            client.close()
        os.close(reading)
        os.close(writing)
