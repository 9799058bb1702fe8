"""The worker's side: what was answered goes into a list, and from there into a socket.

A request costs one entry of the list. What the list holds goes on in one piece twenty times a
second, as far as the socket takes it; what piles up beyond a bound is dropped and counted. Nothing
here waits, and nothing fails a request.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mlops_assets.scoring.capture.settings import SOCKET

if TYPE_CHECKING:
    from mlops_assets.scoring.deployments import Deployment

#: Seconds between an answer and its way to the capture process.
SEND_SECONDS = 0.05
#: Bytes of bodies and answers that wait in a worker; more are dropped.
MAXIMUM_BYTES = 4 * 2**20
#: Seconds that anything waits while nobody takes it.
MAXIMUM_SECONDS = 30.0
#: Seconds for what still waits when the worker ends.
CLOSE_SECONDS = 1.0
#: Items of a record: time, request id, source, status, seconds, body, answer.
ITEMS = 7
#: A record's source where no deployment answered.
NO_SOURCE = -1
#: What comes before a block: its length.
LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.encode


class _Block(NamedTuple):
    """Records on their way."""

    data: memoryview
    records: int
    #: By ``monotonic``.
    since: float


class Sender:
    """Takes what a worker has answered; called on its event loop alone."""

    def __init__(self, folder: Path, share: float, dropped: Callable[[str, int], None]) -> None:
        """Nothing is connected before something is taken.

        Args:
            folder: the endpoint's.
            share: of the requests that are taken.
            dropped: told a reason and how many requests were dropped for it.
        """
        self._folder = folder
        self._share = share
        self._dropped = dropped
        #: Name, version, digest and bundle of each deployment that has answered.
        self._sources: list[list[Any]] = []
        # Flat: a tuple of each request would be one more thing to look through for garbage.
        self._kept: list[Any] = []
        self._blocks: deque[_Block] = deque()
        #: Bytes of the first block that were sent.
        self._sent = 0
        self._waiting = 0
        self._scheduled = False
        self._socket: socket.socket | None = None
        self._watched = False

    def source(self, deployment: Deployment) -> int:
        """A number that stands for a deployment in what is taken."""
        entry = deployment.entry
        named: list[Any] = [deployment.name, entry.version, entry.digest, entry.bundle]
        if named not in self._sources:
            self._sources.append(named)
        return self._sources.index(named)

    def take(
        self, identity: bytes, source: int, status: int, seconds: float, body: bytes, answer: bytes
    ) -> None:
        """Keep a request, if chance says so and there is room.

        Args:
            identity: the request's id.
            source: of the deployment that answered; NO_SOURCE for none.
            status: of the answer.
            seconds: that it took.
            body: what was asked; empty where it was not scored.
            answer: what was answered; likewise.
        """
        if self._share < 1.0 and random.random() >= self._share:  # noqa: S311
            return
        if self._waiting > MAXIMUM_BYTES:
            self._dropped("away" if self._socket is None else "full", 1)
            return
        self._waiting += len(body) + len(answer) + 64
        self._kept.extend((time(), identity, source, status, seconds, body, answer))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(SEND_SECONDS, self._send)

    def close(self) -> None:
        """Hand on what still waits, and end."""
        self._pack()
        if self._connected():
            assert self._socket is not None
            self._unwatch()
            self._socket.settimeout(CLOSE_SECONDS)
            self._push()
        self._forget("full")
        self._disconnect()

    def _send(self) -> None:
        self._scheduled = False
        self._pack()
        if self._connected():
            self._push()
        elif self._blocks and monotonic() - self._blocks[0].since > MAXIMUM_SECONDS:
            self._forget("away")
        if self._blocks and not self._watched and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(SEND_SECONDS, self._send)

    def _pack(self) -> None:
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        data = _encode((self._sources, kept))
        block = memoryview(LENGTH.pack(len(data)) + data)
        self._blocks.append(_Block(block, len(kept) // ITEMS, monotonic()))
        self._waiting = sum(len(block.data) for block in self._blocks)

    def _push(self) -> None:
        """Send as much as the socket takes."""
        assert self._socket is not None
        try:
            while self._blocks:
                block = self._blocks[0]
                self._sent += self._socket.send(block.data[self._sent :])
                if self._sent == len(block.data):
                    self._blocks.popleft()
                    self._waiting -= len(block.data)
                    self._sent = 0
        except BlockingIOError:
            self._watch()
        except OSError:  # it has ended; the next one gets the block from its beginning
            self._disconnect()
        else:
            self._unwatch()

    def _connected(self) -> bool:
        if self._socket is not None:
            return True
        made = socket.socket(socket.AF_UNIX)
        made.setblocking(False)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAXIMUM_BYTES)
            with short_path(self._folder) as path:
                made.connect(path)
        except OSError:
            made.close()
            return False
        self._socket = made
        return True

    def _disconnect(self) -> None:
        self._unwatch()
        self._sent = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._blocks and not self._scheduled:
            self._retry()

    def _retry(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._scheduled = True
        loop.call_later(SEND_SECONDS, self._send)

    def _watch(self) -> None:
        if not self._watched and self._socket is not None:
            self._watched = True
            asyncio.get_running_loop().add_writer(self._socket.fileno(), self._push)

    def _unwatch(self) -> None:
        if self._watched and self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
        self._watched = False

    def _forget(self, reason: str) -> None:
        lost = sum(block.records for block in self._blocks)
        if lost:
            self._dropped(reason, lost)
        self._blocks.clear()
        self._waiting = self._sent = 0


class short_path:  # noqa: N801  (used as a function is)
    """The socket's address, where the folder's own path is too long for one: 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> str:
        """The address, good for as long as the block lasts."""
        path = str(self._folder / SOCKET)
        if len(path.encode()) <= 100:
            return path
        self._descriptor = os.open(self._folder, os.O_RDONLY)
        return f"/proc/self/fd/{self._descriptor}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
