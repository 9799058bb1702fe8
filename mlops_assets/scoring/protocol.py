"""HTTP on a worker's connections, with bounds that keep one client from holding up the others.

uvicorn's own protocol reads a head without end, waits for a request as long as it may take, and
never closes a connection on which nothing was asked. What is added here costs a request next to
nothing: marks on the connection and one look at all of them a second, instead of timers.

A request to score that comes in one piece, alone, is answered in the very call that brought it:
what ASGI needs for a request, a task, a scope, messages, costs more than the answer. The bytes are
the same either way.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from mlops_assets.scoring.connections import Watch
from mlops_assets.scoring.http import Head, Headers

#: Heads of requests that are remembered, to be known again without being parsed.
KNOWN_HEADS = 256
SCORE = b"/score"


#: What a connection is doing: nothing, receiving a request's head or body, or seeing its client
#: off after an answer that refuses.
_IDLE, _HEAD, _BODY, _REFUSED = range(4)


class _Stop(Exception):  # noqa: N818  (no error: the parser ends with it)
    """The rest of what was received is not parsed."""


class _Dropped:
    """Takes a request's trailers; nobody here reads them."""

    def append(self, header: tuple[bytes, bytes], /) -> None:
        pass


_TRAILERS: Any = _Dropped()


class Connection(HttpToolsProtocol):
    """One connection: uvicorn's, within limits."""

    watch: ClassVar[Watch]
    parser: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = self.watch.limits
        self._phase = _IDLE
        #: The tick of the last change: connected, a request begun, an answer given.
        self.since = self.watch.tick
        #: Requests received and not yet answered, the one whose body still comes included.
        self._unanswered = 0
        #: Bytes of the current request that are not its body, without the chunk at hand.
        self._overhead = 0
        #: Bytes of the chunk at hand, and whether a request ended in it.
        self._chunk, self._ended = 0, False
        #: Whether the next request may be answered at once: nothing is under way.
        self._free = False
        #: The headers and the body's pieces of a request that is kept from the application, as
        #: yet: it may be complete, and the only one, where this chunk ends.
        self._kept: list[tuple[bytes, bytes]] | None = None
        self._pieces: list[bytes] = []
        #: Sweeps in a row that found an answer untaken.
        self._untaken = 0
        #: What a refused client is still to be sent.
        self._farewell = b""

    @property
    def receiving(self) -> bool:
        """Whether a request has begun and is not complete."""
        return self._phase in (_HEAD, _BODY)

    @property
    def answering(self) -> bool:
        """Whether a request that is complete waits for its answer."""
        return self._unanswered > self._in_body()

    def _in_body(self) -> bool:
        """Whether the body of a request that is not yet answered is being received."""
        return self._phase == _BODY and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Watch the connection, where there is room for it."""
        super().connection_made(transport)
        if len(self.watch.connections) >= self.watch.maximum:
            self.watch.make_room()
        if len(self.watch.connections) >= self.watch.maximum:
            self.watch.refused("crowded")
            self.drop()
        else:
            self.watch.connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.watch.connections.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse what is no request or too much of one."""
        if self._phase == _REFUSED:
            return
        self._chunk, self._ended = len(data), False
        self._free = not (self._phase or self._unanswered or self.flow.write_paused)
        if self._free and self._answer_known(data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_again(data, upgrade)
        except httptools.HttpParserError:
            self._refuse_malformed()
        if self._kept is not None:
            if self._phase == _IDLE and self._answer_kept(data, self._kept):
                self._kept = None
            else:
                self._pass_on()
        if self._phase != _IDLE:
            self._count()

    def _answer_known(self, data: bytes) -> bool:
        """Answer a request whose head is known, byte by byte, and all there; or return False."""
        end = data.find(b"\r\n\r\n") + 4
        known = self.watch.heads.get(data[:end])
        if known is None or len(data) - end != known[1]:
            return False
        return self._answer_at_once(known[0], data[end:])

    def _answer_kept(self, data: bytes, headers: Headers) -> bool:
        """Answer the complete request that was kept, and remember its head; or return False."""
        scorer, body = self.watch.scorer, b"".join(self._pieces)
        assert scorer is not None
        head = scorer.read(headers)
        if not self._answer_at_once(head, body):
            return False
        self._unanswered -= 1
        end = data.find(b"\r\n\r\n") + 4
        # A head with ids will not come again; nor is it one, if it does not just precede the body.
        if not head.ids and len(data) - end == len(body):
            heads = self.watch.heads
            if len(heads) >= KNOWN_HEADS:
                heads.clear()
            heads[data[:end]] = head, len(body)
        return True

    def _answer_at_once(self, head: Head, body: bytes) -> bool:
        """Answer a complete request as the application's cycle would; or return False."""
        scorer = self.watch.scorer
        answer = None if scorer is None else scorer.at_once(head, body)
        if answer is None:
            return False
        status, headers, content = answer
        self.transport.write(_message(status, headers, content, self.server_state.default_headers))
        self.server_state.total_requests += 1
        self.since = self.watch.tick
        return True

    def _pass_on(self) -> None:
        """Give the application the request that was kept from it."""
        headers, self._kept = self._kept, None
        if headers is None:
            return
        self._begin_cycle(headers)
        for piece in self._pieces:
            super().on_body(piece)
        if self._phase == _IDLE:
            super().on_message_complete()

    def _begin_cycle(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Let uvicorn make the scope and start the application's task."""
        url, expects = self.url, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()
        self.headers = _TRAILERS

    def _count(self) -> None:
        if self._phase == _REFUSED:
            return
        # Where another request ended in this chunk, this one's share is not known.
        self._overhead = 0 if self._ended else self._overhead + self._chunk
        if self._phase == _HEAD:
            if self._overhead > self._limits.head:
                self._refuse_head()
        elif self._overhead > self._limits.head + self._limits.framing:
            message = f"the body's chunk sizes and trailers take over {self._limits.framing} bytes"
            self._refuse(413, "too_large", message)

    def _parse_again(self, data: bytes, upgrade: httptools.HttpParserUpgrade | None) -> None:
        """Parse requests for another protocol as if they were for this one.

        The parser would take their bodies for the other protocol's. Java's own client asks for
        HTTP/2 whatever it sends.
        """
        while upgrade is not None:
            data = self._head_without_upgrade() + data[upgrade.args[0] :]
            self.parser = httptools.HttpRequestParser(self)
            upgrade = None
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:
                upgrade = another
            except httptools.HttpParserError:
                self._refuse_malformed()

    def _head_without_upgrade(self) -> bytes:
        headers = [b"%b: %b" % h for h in self.headers if h[0] not in (b"connection", b"upgrade")]
        tokens = b",".join(value for name, value in self.headers if name == b"connection")
        if b"close" in tokens.lower():
            headers.append(b"connection: close")
        version = self.parser.get_http_version().encode()
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)
        return b"\r\n".join([first, *headers, b"", b""])

    def on_message_begin(self) -> None:
        """A request's first byte."""
        if self._kept is not None:
            self._pass_on()
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._phase = _HEAD
        self._overhead = 0
        self.since = self.watch.tick

    def on_headers_complete(self) -> None:
        """A request whose head is whole: the application is asked, in its turn."""
        # Counted only where the bytes received would allow for it.
        if self._overhead + self._chunk > self._limits.head < self._head_size():
            self._refuse_head()
            raise _Stop
        if len(self.pipeline) >= self._limits.pipelined:
            message = f"over {self._limits.pipelined} requests wait on this connection"
            self._refuse(429, "too_many_requests", message)
            raise _Stop
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Stop
            return  # the parser stops here, and another one begins anew
        free, self._free = self._free, False
        if free and self._may_be_answered_at_once():
            self._kept, self._pieces, self.headers = self.headers, [], _TRAILERS
        else:
            self._begin_cycle(self.headers)
        self._phase = _BODY
        self._unanswered += 1

    def _may_be_answered_at_once(self) -> bool:
        parser = self.parser
        return (
            self.watch.scorer is not None
            and self.url == SCORE
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not self.expect_100_continue
        )

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._overhead -= len(body)
        if self._kept is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        if self._phase == _HEAD:
            return  # of a request for another protocol
        self._phase = _IDLE
        self._ended = True
        if self._kept is None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The application has answered: go on to the next request."""
        # Not uvicorn's: that one starts a timer.
        self.server_state.total_requests += 1
        self._unanswered -= 1
        self.since = self.watch.tick
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._phase == _REFUSED:
            self._see_off()
        elif self.cycle.body:
            self.cycle.body = bytearray()  # nobody will read it, and the connection may stay

    def check(self) -> None:
        """Close the connection if its client takes too long."""
        watch = self.watch
        if self.flow.write_paused or self.transport.is_closing():
            self._untaken += 1
            if self._untaken > watch.answer:
                watch.refused("answer_not_taken")
                self.drop()
            return
        self._untaken = 0
        if self.flow.read_paused or self.answering:
            self.since = watch.tick  # it is not the client who is waited for
            return
        waited = watch.tick - self.since
        if self._phase == _IDLE:
            if waited > watch.idle:
                self.transport.close()
        elif self._phase == _HEAD or self._in_body():
            if waited > watch.request:
                message = f"the request was not complete after {self._limits.request:g} seconds"
                self._refuse(408, "timeout", message)
        elif waited > watch.linger:
            self.drop()

    def drop(self) -> None:
        """Close the connection at once, whatever is on its way."""
        self.watch.connections.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    def _head_size(self) -> int:
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.url) + headers

    def _refuse_head(self) -> None:
        message = f"the request's first line and headers are larger than {self._limits.head} bytes"
        self._refuse(431, "headers_too_large", message)

    def _refuse_malformed(self) -> None:
        if self._phase != _REFUSED:
            self._refuse(400, "malformed", "this is not an HTTP request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer the request at hand, after those before it, and read nothing more."""
        self.watch.refused(code)
        self._pass_on()
        unanswered = self._in_body()
        if self._phase != _BODY or unanswered:
            body = json.dumps({"error": {"code": code, "message": message}}).encode()
            length = b"%d" % len(body)
            headers = [(b"content-type", b"application/json"), (b"content-length", length), _CLOSE]
            self._farewell = _message(status, headers, body, self.server_state.default_headers)
        self._phase = _REFUSED
        if unanswered:
            self._take_over()
        if self._unanswered == 0:
            self._see_off()

    def _take_over(self) -> None:
        """Take the request at hand from the application, to which it looks as if cut off."""
        if self.cycle.response_started:
            self._farewell = b""
        if self.pipeline:  # it is the last of those that wait
            self.pipeline.popleft()
        self._unanswered -= 1
        self.cycle.disconnected = self.cycle.response_complete = True
        self.cycle.message_event.set()

    def _see_off(self) -> None:
        """Send the refusal and the end; the client has some seconds to read them.

        Closing at once while the client still sends makes its system forget the answer.
        """
        if self.transport.is_closing():
            return
        self.since = self.watch.tick
        self.flow.resume_reading()
        self.transport.write(self._farewell)
        self.transport.write_eof()


def watched(watch: Watch) -> type[Connection]:
    """The class for ``uvicorn.Config(http=...)`` whose connections are watched."""
    return type("WatchedConnection", (Connection,), {"watch": watch})


_CLOSE = (b"connection", b"close")


def _message(status: int, headers: Headers, body: bytes, default: Headers) -> bytes:
    """An answer as it is sent."""
    lines = map(b": ".join, (*default, *headers))
    return STATUS_LINE[status] + b"\r\n".join((*lines, b"", body))
