"""All connections of one worker, and what one client may take of it.

Time is counted in looks at all connections, not by the clock: a worker that stood still, with what
clients sent meanwhile still unread, does not blame them for it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mlops_assets.scoring.http import Head, Headers

if TYPE_CHECKING:
    from mlops_assets.scoring.protocol import Connection

#: Descriptors that a worker needs besides its connections: files, pipes, those just accepted.
RESERVED_FILES = 256
#: One of so many connections is closed where there is no room for a new one: several at once, for
#: finding the longest idle one takes a look at all.
MAKE_ROOM = 64
#: Status, headers and body.
Answer = tuple[int, Headers, bytes]
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take. Times are in seconds, exact to one ``sweep``."""

    #: Bytes of a request's first line and headers.
    head: int = 32 * 2**10
    #: Bytes of a request that are neither head nor body: chunk sizes, trailers.
    framing: int = 256 * 2**10
    #: Requests sent ahead on one connection while an earlier one is being answered.
    pipelined: int = 64
    #: For a request to arrive, from its first byte to its last: the largest body at 2.2 Mbit/s.
    request: float = 30
    #: For an answer to be taken.
    answer: float = 30
    #: Without a request. Clients reuse connections: closing early loses a request to the race.
    idle: float = 75
    #: For the rest of a request that was answered before its end, so that the answer is read.
    linger: float = 5
    #: Open at a time in one worker, fewer where the system allows fewer descriptors.
    connections: int = 8192
    #: Between two looks at all connections.
    sweep: float = 1


class Scorer(Protocol):
    """The application, asked directly for what it can answer without waiting."""

    def read(self, headers: Headers) -> Head:
        """What a request's headers mean."""
        ...

    def at_once(self, head: Head, body: bytes) -> Answer | None:
        """Answer a POST to ``SCORE``; None leaves it to the way through ASGI."""
        ...


class Watch:
    """All connections of one worker."""

    def __init__(
        self, limits: Limits, refused: Callable[[str], None], scorer: Scorer | None = None
    ) -> None:
        """Raises the process's limit of open files as far as ``limits.connections`` asks.

        Args:
            limits: what one client may take.
            refused: told the reason whenever a client is refused or cut off.
            scorer: answers what can be answered at once; None leaves all to ASGI.
        """
        self.limits = limits
        self.scorer = scorer
        #: Heads as they were sent -> what they mean, and the length of the body that they announce.
        self.heads: dict[bytes, tuple[Head, int]] = {}
        self.refused = refused
        self.tick = 0
        #: In the order in which they were made: that decides between equally idle ones.
        self.connections: dict[Connection, None] = {}
        files = _raise_open_files(limits.connections + RESERVED_FILES)
        self.maximum = max(1, min(limits.connections, files - RESERVED_FILES))
        # In sweeps; see `Limits` for what they are.
        self.request, self.answer, self.idle, self.linger = (
            math.ceil(seconds / limits.sweep)
            for seconds in (limits.request, limits.answer, limits.idle, limits.linger)
        )

    async def sweep(self) -> None:
        """Look at all connections again and again; runs beside the server."""
        while True:
            await asyncio.sleep(self.limits.sweep)
            self.tick += 1
            for connection in tuple(self.connections):
                try:
                    connection.check()
                except Exception:  # the other connections are still to be looked at
                    logger.exception("a connection could not be looked at")

    def make_room(self) -> None:
        """Close the connections that wait for their clients: the longest idle ones first."""
        closable = [c for c in self.connections if c.flow.write_paused or not c.answering]
        several = max(1, self.maximum // MAKE_ROOM)
        for connection in heapq.nsmallest(several, closable, key=_first_to_close):
            self.refused("crowded")
            connection.drop()


def _first_to_close(connection: Connection) -> tuple[int, int]:
    order = 2 if connection.answering else 1 if connection.receiving else 0
    return order, connection.since


def _raise_open_files(wanted: int) -> int:
    """Raise the limit of open files towards ``wanted``; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft
