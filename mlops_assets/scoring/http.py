"""What the server's routes have in common: a request's parts, replies, the body, CORS."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.responder import Responder

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

#: Where requests are scored: the first is the whole path, the other its end.
SCORE, INFER = "/score", "/infer"
MAXIMUM_BODY = 8 * 2**20
#: Bytes of all bodies that are being received at one moment.
MAXIMUM_RECEIVED = 256 * 2**20
AUTHORIZATION, ORIGIN, LENGTH = b"authorization", b"origin", b"content-length"
#: What goes with a status: come again, and how to authorize.
_MEANT = {503: ((b"retry-after", b"1"),), 401: ((b"www-authenticate", b"Bearer"),)}
_ALLOWED_HEADERS = b"authorization, content-type, azureml-model-deployment, x-request-id"
_EXPOSED_HEADERS = b"azureml-model-deployment, x-mlops-version, x-request-id"


class Head(NamedTuple):
    """What a request's headers mean here."""

    #: All of them, names in lower case.
    headers: Headers
    #: Those that mean something.
    given: dict[bytes, bytes]
    #: The ids that it brought.
    ids: Headers


@dataclass(slots=True)
class Request:
    """The parts of a request that a route may ask for."""

    method: str
    path: str
    #: Of its headers those that mean something here.
    given: dict[bytes, bytes]
    #: Its ids, sent back with the answer.
    ids: list[tuple[bytes, bytes]]
    receive: Receive
    #: All of its headers.
    headers: Headers

    def header(self, name: bytes) -> bytes | None:
        """The value of a header by its name in lower case."""
        return next((value for found, value in self.headers if found == name), None)

    @property
    def identity(self) -> str:
        """The first of its ids; empty where it was refused for them."""
        return self.ids[0][1].decode("latin-1") if self.ids else ""


class Reply(NamedTuple):
    """An answer that is not yet sent."""

    status: int
    body: bytes
    headers: Headers = ()
    #: The deployment that answered.
    responder: Responder | None = None
    #: The body that it answered, for who mirrors or captures.
    scored: bytes | None = None


class GoneError(Exception):
    """The client went away before its request was complete."""


class Receiver:
    """Reads bodies, no further than a limit each and a limit in all."""

    def __init__(self) -> None:
        self._received = 0

    async def body(self, request: Request) -> bytes:
        """The body, whatever its headers announce.

        Raises:
            RequestError: it is too large, or too much is being received already.
            GoneError: the client went away.
        """
        announced = request.given.get(LENGTH)
        if announced is not None and len(announced) > 6 and int(announced[:20]) > MAXIMUM_BODY:
            raise _too_large()
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._rest(body, request.receive)
        if len(body) > MAXIMUM_BODY:
            raise _too_large()
        return body

    async def _rest(self, body: bytes, receive: Receive) -> bytes:
        chunks, size, more = [body], len(body), True
        self._received += size
        try:
            while size <= MAXIMUM_BODY and more:
                if self._received > MAXIMUM_RECEIVED:
                    raise RequestError("too much is being received; come again", 503, "busy")
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise GoneError
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                chunks.append(chunk)
                size += len(chunk)
                self._received += len(chunk)
        finally:
            self._received -= size
        if size > MAXIMUM_BODY:
            raise _too_large()
        return b"".join(chunks)


def _too_large() -> RequestError:
    return RequestError(f"the body is larger than {MAXIMUM_BODY} bytes", 413, "too_large")


def reply_json(value: Any, headers: Headers = (), status: int = 200) -> Reply:
    """A JSON answer."""
    # Plain ASCII: a text that is no Unicode, such as half a surrogate pair, can be said too.
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, body, ((b"content-type", b"application/json"), *headers))


def reply_error(
    error: RequestError, headers: Headers = (), responder: Responder | None = None
) -> Reply:
    """What a client is told that cannot be answered."""
    headers = (*headers, *_MEANT.get(error.status, ()))
    content = {"error": {"code": error.code, "message": error.message}}
    return reply_json(content, headers, error.status)._replace(responder=responder)


class Cors:
    """Which pages may ask from a browser."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Take origins such as ``https://app.example.com``; ``*`` is any."""
        self._origins = frozenset(origin.encode() for origin in origins)
        self.enabled = bool(origins)

    def headers(self, origin: bytes) -> Headers:
        """What a browser wants to see with an answer to that origin."""
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if origin not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin), _EXPOSED, _VARY]

    @staticmethod
    def preflight() -> Headers:
        """What a browser asks for before it asks."""
        return [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
        ]


_VARY = (b"vary", b"origin")
_EXPOSED = (b"access-control-expose-headers", _EXPOSED_HEADERS)
