"""The worker's side: what was answered is put aside, and soon after goes into a socket.

Putting aside is one call of C's: on the way of a request whatever more is run is run cold, once
between two scores, and costs several times its price. The rest is done for many requests in one
go, a hundred times a second. They go on as far as the socket takes them; what piles up beyond a
bound is dropped and counted. Nothing here waits, and nothing fails a request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_assets.scoring.capture.wire import NO_SOURCE, Record, TooLargeError, block, short_path
from mlops_assets.scoring.http import INFER, SCORE, Reply, Request
from mlops_assets.scoring.logs import without_values

if TYPE_CHECKING:
    from mlops_assets.scoring.deployments import Deployment

#: Seconds between two turns that hand on what was taken; the same after one that found nothing.
TURN_SECONDS, IDLE_SECONDS = 0.01, 0.05
#: Bytes of bodies and answers after which a block is complete.
BLOCK_BYTES = 2**18
#: Bytes of bodies and answers that wait in a worker; more are dropped.
MAXIMUM_BYTES = 4 * 2**20
#: Seconds that anything waits while nobody takes it.
MAXIMUM_SECONDS = 30.0
#: Seconds for what still waits when the worker ends.
CLOSE_SECONDS = 1.0
#: A request, its answer, when it began by ``perf_counter``, and seconds until it was answered.
Taken = tuple[Request, Reply, float, float]
logger = logging.getLogger("capture")


class _Block(NamedTuple):
    """Records on their way."""

    data: memoryview
    records: int
    #: By ``monotonic``.
    since: float


class Sender:
    """Takes what a worker has answered; called on its event loop alone."""

    #: Keep a request of any route and its answer, if that is one to be kept.
    take: Callable[[Taken], None]

    def __init__(self, folder: Path, share: float, dropped: Callable[[str, int], None]) -> None:
        """Nothing is connected before something is taken.

        Args:
            folder: the endpoint's.
            share: of the requests that are kept.
            dropped: told a reason and how many requests were dropped for it.
        """
        self._folder = folder
        self._share = share
        self._dropped = dropped
        #: Name, version, digest and bundle of each deployment that has answered.
        self._sources: list[list[Any]] = []
        self._taken: list[Taken] = []
        self.take = self._taken.append
        self._blocks: deque[_Block] = deque()
        #: Bytes of the first block that were sent.
        self._sent = 0
        #: Bytes of all blocks.
        self._waiting = 0
        self._socket: socket.socket | None = None

    def source(self, deployment: Deployment) -> int:
        """A number that stands for a deployment in what is taken."""
        entry = deployment.entry
        named: list[Any] = [deployment.name, entry.version, entry.digest, entry.bundle]
        if named not in self._sources:
            self._sources.append(named)
        return self._sources.index(named)

    async def run(self) -> None:
        """Hand on what is taken, until cancelled."""
        while True:
            await asyncio.sleep(TURN_SECONDS if self._turn() else IDLE_SECONDS)

    def close(self) -> None:
        """Hand on what still waits, and end."""
        self._encode()
        if self._connected():
            assert self._socket is not None
            self._socket.settimeout(CLOSE_SECONDS)
            self._push()
        self._forget("full")
        self._disconnect()

    def _turn(self) -> bool:
        """Whether there was anything to hand on, or still is."""
        found = bool(self._taken)
        self._encode()
        if self._blocks:
            if self._connected():
                self._push()
            elif monotonic() - self._blocks[0].since > MAXIMUM_SECONDS:
                self._forget("away")
        return found or bool(self._blocks)

    def _encode(self) -> None:
        """Make blocks of what chance keeps; of what was refused or failed they say that alone."""
        taken = self._taken.copy()
        self._taken.clear()
        # Unix time in nanoseconds where the other clock has its zero.
        zero = time_ns() - perf_counter_ns()
        records: list[Record] = []
        size = 0
        for request, (status, answer, _, responder, body), started, seconds in taken:
            if body is None:
                if status < 400 or not (request.path == SCORE or request.path.endswith(INFER)):
                    continue
                body = answer = b""
            if self._share < 1.0 and random.random() >= self._share:  # noqa: S311
                continue
            at = zero + int(1e9 * (started + seconds))
            ids = request.ids
            identity = ids[0][1] if ids else b""
            source = NO_SOURCE if responder is None else responder.source
            records.append((at, identity, source, status, seconds, body, answer))
            size += len(body) + len(answer)
            if size >= BLOCK_BYTES:
                self._add(records)
                records, size = [], 0
        if records:
            self._add(records)

    def _add(self, records: Sequence[Record]) -> None:
        if self._waiting > MAXIMUM_BYTES:
            self._dropped("away" if self._socket is None else "full", len(records))
            return
        try:
            data = memoryview(block(self._sources, records))
        except TooLargeError:
            self._too_large(records)
            return
        except Exception as error:  # the turns go on, else all that is taken piles up
            self._dropped("unwritable", len(records))
            logger.error("requests are not kept\n%s", without_values(error))
            return
        self._blocks.append(_Block(data, len(records), monotonic()))
        self._waiting += len(data)

    def _too_large(self, records: Sequence[Record]) -> None:
        """Leave out what no block can hold: the last record, which has made this one complete."""
        if len(records) == 1:
            self._dropped("too_large", 1)
            return
        self._add(records[:-1])
        self._add(records[-1:])

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
        except BlockingIOError:  # the rest goes in the next turn
            return
        except OSError:  # it has ended; the next one gets the block from its beginning
            self._disconnect()

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
        self._sent = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _forget(self, reason: str) -> None:
        lost = sum(block.records for block in self._blocks)
        if lost:
            self._dropped(reason, lost)
        self._blocks.clear()
        self._waiting = self._sent = 0
