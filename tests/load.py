"""Users who ask an endpoint all the time, over kept connections."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from resources.endpoints.local import LocalEndpoints
from resources.endpoints.process import read_key

#: Names the user, for environments that keep one with one version.
USER = "x-user"


@dataclass
class Load:
    """What the users were told: for each answer the user, its version and its status."""

    port: int
    key: str
    answers: list[tuple[int, int, int]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def statuses(self, version: int) -> set[int]:
        """With what a version answered."""
        return {status for _, by, status in self.answers if by == version}

    def versions(self, user: int) -> list[int]:
        """The versions that answered a user, without repetitions."""
        found: list[int] = []
        for who, version, _ in self.answers:
            if who == user and version not in found[-1:]:
                found.append(version)
        return found

    async def ask(self, users: list[int]) -> None:
        """Ask for one user after another until told to stop."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        draw = random.Random(users[0])
        while not self.stop.is_set():
            for user in users:
                row = {"a": draw.uniform(-10, 10), "b": draw.randint(0, 10)}
                writer.write(self._request(user, {"data": [row]}))
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                status, *lines = head.splitlines()
                headers = dict(line.split(": ", 1) for line in lines if line)
                await reader.readexactly(int(headers["content-length"]))
                version = int(headers["x-mlops-version"])
                self.answers.append((user, version, int(status.split()[1])))
                await asyncio.sleep(0.002)
        writer.close()

    def _request(self, user: int, payload: Any) -> bytes:
        body = json.dumps(payload)
        return (
            f"POST /score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
            f"{USER}: user {user}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


@contextmanager
def load(endpoints: LocalEndpoints, users: int = 40, connections: int = 4) -> Iterator[Load]:
    """Ask tiny/staging in a thread; a request without an answer fails the test at the end."""
    status = endpoints.status("tiny", "staging")
    assert status.url is not None
    port = int(status.url.split(":")[2].split("/")[0])
    found = Load(port, read_key(status.key_file.parent))
    failures: list[BaseException] = []

    async def ask_all() -> None:
        parts = [list(range(first, users, connections)) for first in range(connections)]
        await asyncio.gather(*(found.ask(part) for part in parts))

    def run() -> None:
        try:
            asyncio.run(ask_all())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        found.stop.set()
        thread.join(20)
    assert not failures
