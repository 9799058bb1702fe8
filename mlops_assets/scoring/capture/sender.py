"""The worker's side: what was answered goes into a buffer, and from there into a socket.

Requests are encoded one by one: what is not held on to leaves its memory to the next request, which
finds it in the processor's cache. They go on in small pieces, as far as the socket takes them; what
piles up beyond a bound is dropped and counted. Nothing here waits, and nothing fails a request.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_assets.scoring.capture.wire import NO_SOURCE, block, short_path, write
from mlops_assets.scoring.http import INFER, SCORE, Reply, Request

if TYPE_CHECKING:
    from mlops_assets.scoring.deployments import Deployment

#: Seconds between an answer and its way to the capture process, at most; sooner where so many
#: bytes wait.
SEND_SECONDS, BLOCK_BYTES = 0.05, 2**14
#: Bytes of bodies and answers that wait in a worker; more are dropped.
MAXIMUM_BYTES = 4 * 2**20
#: Seconds that anything waits while nobody takes it.
MAXIMUM_SECONDS = 30.0
#: Seconds for what still waits when the worker ends.
CLOSE_SECONDS = 1.0


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
        #: Records that are not yet a block, and how many.
        self._kept = bytearray()
        self._records = 0
        self._blocks: deque[_Block] = deque()
        #: Bytes of the first block that were sent.
        self._sent = 0
        #: Bytes of all blocks.
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

    def take(self, request: Request, reply: Reply, seconds: float) -> None:
        """Keep what was scored, if chance says so; of what was refused or failed keep that alone.

        Args:
            request: of any route; those that score are kept.
            reply: its answer.
            seconds: that it took.
        """
        status, answer, _, responder, body = reply
        if body is None:
            if status < 400 or not (request.path == SCORE or request.path.endswith(INFER)):
                return
            body = answer = b""
        if self._share < 1.0 and random.random() >= self._share:  # noqa: S311
            return
        ids = request.ids
        identity = ids[0][1] if ids else b""
        source = NO_SOURCE if responder is None else responder.source
        kept = self._kept
        write((time_ns(), identity, source, status, seconds, body, answer), kept, -1)
        self._records += 1
        if len(kept) >= BLOCK_BYTES:
            self._pack()
            if self._socket is not None and not self._watched:
                self._push()
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
        if not self._records:
            return
        kept, records = self._kept, self._records
        self._kept, self._records = bytearray(), 0
        if self._waiting > MAXIMUM_BYTES:
            self._dropped("away" if self._socket is None else "full", records)
            return
        data = memoryview(block(self._sources, records, kept))
        self._blocks.append(_Block(data, records, monotonic()))
        self._waiting += len(data)

    def _push(self) -> None:
        """Send as much as the socket takes."""
        assert self._socket is not None
        try:
            while self._blocks:
                first = self._blocks[0]
                self._sent += self._socket.send(first.data[self._sent :])
                if self._sent == len(first.data):
                    self._blocks.popleft()
                    self._waiting -= len(first.data)
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
