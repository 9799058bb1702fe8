"""The scoring server: the routes of Azure's own inference server, and errors that help.

``GET /`` is ``Healthy`` and needs no key, nor do the health routes of the Open Inference Protocol;
everything else does. ``GET /score`` with a body scores like POST, as Azure's does; without one
there is nothing to score: 405. There are a handful of routes, so a dict is their router: a
framework's would cost as much as the score, and this is a bare ASGI application.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from time import perf_counter
from typing import Any

from mlops_assets.scoring.capture.sender import Sender
from mlops_assets.scoring.capture.wire import NO_SOURCE
from mlops_assets.scoring.connections import Answer
from mlops_assets.scoring.deployments import Deployment, Deployments, Serving
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.http import (
    AUTHORIZATION,
    LENGTH,
    ORIGIN,
    SCORE,
    Cors,
    GoneError,
    Head,
    Headers,
    Message,
    Receive,
    Receiver,
    Reply,
    Request,
    Scope,
    Send,
    reply_error,
    reply_json,
)
from mlops_assets.scoring.inference_protocol import metadata
from mlops_assets.scoring.keys import KeyFile
from mlops_assets.scoring.logs import without_values
from mlops_assets.scoring.metrics import CONTENT_TYPE, Metrics
from mlops_assets.scoring.openapi import openapi
from mlops_assets.scoring.predictor import Prediction
from mlops_assets.scoring.questions import asks_for_metrics, told
from mlops_assets.scoring.responder import DEPLOYMENT, Responder

#: Requests that wait for a thread; more are told to come again.
MAXIMUM_WAITING = 64
REQUEST_IDS = frozenset(
    (b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id", b"traceid")
)
MAXIMUM_ID = 100
Lifespan = Callable[[], AbstractAsyncContextManager[None]]
Methods = tuple[str, ...]
Handler = Callable[[Request], Awaitable[Reply]]
logger = logging.getLogger(__name__)


class Application:
    """The server of one endpoint."""

    def __init__(
        self,
        deployments: Deployments,
        keys: KeyFile | None,
        metrics: Metrics,
        *,
        identity: str = "",
        instance: str = "",
        cors_origins: Sequence[str] = (),
        access_log: bool = False,
        capture: Sender | None = None,
        lifespan: Lifespan = nullcontext,
    ) -> None:
        """The server of one endpoint.

        Args:
            deployments: what is served; asked anew by every request.
            keys: who may ask; None leaves that to who stands before this server.
            metrics: counts what happens.
            identity: sent with ``GET /`` as ``x-mlops-endpoint``, so that whoever looks for this
                server on its port knows it from another one.
            instance: tells this server's counts from those of others that serve the same.
            cors_origins: pages of these origins may ask from a browser; ``*`` is any.
            access_log: a log line for every request, not only for failures.
            capture: is given what is asked and answered.
            lifespan: what goes on beside the requests.
        """
        self._deployments = deployments
        self._keys = keys
        self._metrics = metrics
        self._identity = ((b"x-mlops-endpoint", identity.encode()),)
        self._instance = instance
        self._cors = Cors(cors_origins)
        self._access_log = access_log
        self._capture = capture
        self._lifespan = lifespan
        self._receiver = Receiver()
        # More threads than cores only make each other wait.
        self._threads = ThreadPoolExecutor(2, "scoring")
        self._waiting = 0
        self._serving: Serving | None = None
        self._responders: dict[str, Responder] = {}
        origin = {ORIGIN} if self._cors.enabled else set[bytes]()
        self._meaningful = frozenset({AUTHORIZATION, DEPLOYMENT, LENGTH} | origin)
        self._prefix = os.urandom(8).hex().encode()
        self._numbers = itertools.count()
        self._routes: dict[str, tuple[Methods, Handler]] = {
            SCORE: (("GET", "POST", "OPTIONS"), self._score),
            "/": (_GET, self._health),
            "/swagger.json": (_GET, self._swagger),
            "/metrics": (_GET, self._show_metrics),
            "/v2": (_GET, self._describe_server),
            "/v2/health/live": (_GET, self._live),
            "/v2/health/ready": (_GET, self._ready),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live_through(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    # -- every request

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()
        head = self.read(scope["headers"])
        request = self._request(scope["method"], scope["path"], head, receive)
        try:
            reply = await self._route(request)
        except GoneError:
            logger.info("the client went away", extra={"request_id": request.identity})
            return
        except Exception as error:
            reply = self._failed(request, error)
        headers = self._finish(request, reply, started)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        if reply.scored is not None and request.path == SCORE:
            mirror = self._deployments.serving.mirror
            if mirror is not None and DEPLOYMENT not in request.given:
                mirror.offer(reply.scored)

    def at_once(self, head: Head, body: bytes) -> Answer | None:
        """Answer a ``POST /score`` as ``__call__`` does, without waiting for anything.

        Returns:
            None where that is not sure to be quick, or more is to be done than to answer.
        """
        serving = self._deployments.serving
        # Where chance decides it decides once.
        if serving.only is None or serving.mirror is not None:
            return None
        started = perf_counter()
        request = self._request("POST", SCORE, head, _gone)
        try:
            _check_ids(request)
            self._authorize(request)
            responder = self._pick(request)
            if responder.runs_anything or responder.is_slow(body):
                return None
            reply = self._scored(request, responder, body)
        except Exception as error:
            reply = self._failed(request, error)
        if reply is None:
            return None
        return reply.status, self._finish(request, reply, started), reply.body

    def read(self, headers: Headers) -> Head:
        """What a request's headers mean here."""
        given: dict[bytes, bytes] = {}
        ids: list[tuple[bytes, bytes]] = []
        meaningful = self._meaningful
        for header in headers:
            name = header[0]
            if name in meaningful:
                given[name] = header[1]
            elif name in REQUEST_IDS:
                ids.append(header)
        return Head(headers, given, ids)

    def _request(self, method: str, path: str, head: Head, receive: Receive) -> Request:
        headers, given, ids = head
        own = [*ids] or [(b"x-request-id", b"%b-%x" % (self._prefix, next(self._numbers)))]
        return Request(method, path, given, own, receive, headers)

    def _finish(self, request: Request, reply: Reply, started: float) -> Headers:
        """Count an answer, and return all of its headers."""
        headers = [(b"content-length", b"%d" % len(reply.body)), *reply.headers, *request.ids]
        if ORIGIN in request.given:
            headers += self._cors.headers(request.given[ORIGIN])
        # Counted before it is sent: whoever has the answer finds it in the metrics.
        seconds = perf_counter() - started
        if reply.responder is not None:
            reply.responder.tally.record(reply.status, seconds)
        if self._capture is not None:
            self._capture.take((request, reply, started, seconds))
        if self._access_log:
            self._log(request, reply, seconds)
        return headers

    async def _route(self, request: Request) -> Reply:
        _check_ids(request)
        methods, handler = self._routes.get(request.path) or self._model_route(request.path)
        if request.method not in methods:
            return _wrong_method(methods)
        return await handler(request)

    def _failed(
        self, request: Request, error: Exception, responder: Responder | None = None
    ) -> Reply:
        """What becomes of a request that raised; an error of ours is logged under its id."""
        headers = () if responder is None else responder.headers[1:]
        if not isinstance(error, RequestError):
            identity = request.identity
            extra = {"request_id": identity}
            logger.error("request %s failed\n%s", identity, without_values(error), extra=extra)
            message = f"internal error; the server's log has it as {identity}"
            error = RequestError(message, 500, "internal")
        elif responder is None or error.status == 503:
            self._metrics.refuse(error.code)
        return reply_error(error, headers, responder)

    def _log(self, request: Request, reply: Reply, seconds: float) -> None:
        """One line of the access log: no payload, and no error's text, which may quote it."""
        deployment = None if reply.responder is None else reply.responder.deployment
        logger.info(
            "answered",
            extra={
                "request_id": request.identity,
                "method": request.method,
                "path": request.path,
                "status": reply.status,
                "milliseconds": round(1000 * seconds, 3),
                "deployment": deployment.name if deployment else None,
                "version": deployment.entry.version if deployment else None,
            },
        )

    # -- scoring

    async def _score(self, request: Request) -> Reply:
        if request.method == "OPTIONS":
            allow = (b"allow", b"GET, POST, OPTIONS")
            preflight = self._cors.preflight() if ORIGIN in request.given else ()
            return Reply(200, b"", (allow, *preflight))
        self._authorize(request)
        body = await self._receiver.body(request)
        if request.method == "GET" and not body:
            return _wrong_method(("POST", "OPTIONS"), "send the rows with POST")
        responder = self._pick(request)
        if not responder.is_slow(body):
            reply = self._scored(request, responder, body)
            return await self._tell_metrics(responder) if reply is None else reply
        try:
            answer = await self._in_thread(responder, responder.work, body)
        except Exception as error:
            if asks_for_metrics(body):
                return await self._tell_metrics(responder)
            return self._failed(request, error, responder)
        return Reply(200, answer, responder.headers, responder, body)

    def _scored(self, request: Request, responder: Responder, body: bytes) -> Reply | None:
        """Score a body; None for one that asks something else."""
        try:
            answer = responder.answer(body)
        except Exception as error:
            return None if asks_for_metrics(body) else self._failed(request, error, responder)
        return Reply(200, answer, responder.headers, responder, body)

    async def _in_thread(
        self,
        responder: Responder,
        work: Callable[[bytes], tuple[bytes, Prediction]],
        body: bytes,
    ) -> bytes:
        if self._waiting >= MAXIMUM_WAITING:
            message = f"{MAXIMUM_WAITING} requests wait already; come again"
            raise RequestError(message, 503, "busy")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            answer, prediction, seconds = await loop.run_in_executor(
                self._threads, _timed, work, body
            )
        finally:
            self._waiting -= 1
        responder.count(prediction, seconds)
        return answer

    def _pick(self, request: Request) -> Responder:
        serving = self._deployments.serving
        if serving is not self._serving:
            self._responders = {
                name: Responder(deployment, self._metrics.tally(name), self._source(deployment))
                for name, deployment in serving.deployments.items()
            }
            self._serving = serving
        named = request.given.get(DEPLOYMENT)
        name = None if named is None else named.decode("latin-1")
        sticky = None if serving.sticky is None else request.header(serving.sticky)
        return self._responders[serving.pick(name, sticky).name]

    def _source(self, deployment: Deployment) -> int:
        return NO_SOURCE if self._capture is None else self._capture.source(deployment)

    def _authorize(self, request: Request) -> None:
        if self._keys is not None and not self._keys.accepts(request.given.get(AUTHORIZATION)):
            message = "send one of the endpoint's keys: 'Authorization: Bearer KEY'"
            raise RequestError(message, 401, "unauthorized")

    # -- everything else

    async def _health(self, _: Request) -> Reply:
        return Reply(200, b"Healthy", (_TEXT, *self._identity))

    async def _swagger(self, request: Request) -> Reply:
        self._authorize(request)
        responder = self._pick(request)
        deployment = responder.deployment
        document = openapi(deployment.predictor.schema, deployment.entry.version)
        return reply_json(document, responder.headers[1:])

    async def _show_metrics(self, request: Request) -> Reply:
        self._authorize(request)
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._threads, self._metrics.render)
        return Reply(200, text, ((b"content-type", CONTENT_TYPE.encode()),))

    async def _tell_metrics(self, responder: Responder) -> Reply:
        deployment = responder.deployment
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._threads, self._metrics.render)
        edges = deployment.predictor.schema.edges
        return reply_json(told(self._instance, deployment.name, edges, text), responder.headers[1:])

    async def _describe_server(self, _: Request) -> Reply:
        return reply_json({"name": "mlops-assets", "version": "2", "extensions": []})

    async def _live(self, _: Request) -> Reply:
        return reply_json({"live": True})

    async def _ready(self, _: Request) -> Reply:
        ready = any(d.entry.traffic for d in self._deployments.serving.deployments.values())
        return reply_json({"ready": ready}, status=200 if ready else 503)

    def _model_route(self, path: str) -> tuple[Methods, Handler]:
        """The protocol's routes of a model: ``/v2/models/M[/versions/V][/infer]``."""
        parts = path.split("/")
        if parts[:3] != ["", "v2", "models"] or len(parts) < 4:
            raise RequestError(f"no route {ascii(path)[:60]}", 404, "not_found")
        model, rest = parts[3], parts[4:]
        version = rest[1] if rest[:1] == ["versions"] and len(rest) > 1 else None
        verb = rest[2:] if version is not None else rest
        known: dict[tuple[str, ...], tuple[Methods, Any]] = {
            (): (_GET, self._describe_model),
            ("ready",): (_GET, self._model_ready),
            ("infer",): (("POST",), self._infer),
        }
        if tuple(verb) not in known:
            raise RequestError(f"no route {ascii(path)[:60]}", 404, "not_found")
        methods, handler = known[tuple(verb)]

        async def handle(request: Request) -> Reply:
            self._authorize(request)
            responder = self._pick(request)
            _require(responder, model, version)
            return await handler(request, responder)

        return methods, handle

    async def _describe_model(self, _: Request, responder: Responder) -> Reply:
        deployment = responder.deployment
        found = metadata(deployment.predictor.schema, str(deployment.entry.version))
        return reply_json(found, responder.headers[1:])

    async def _model_ready(self, _: Request, responder: Responder) -> Reply:
        name = responder.deployment.predictor.schema.model
        return reply_json({"name": name, "ready": True}, responder.headers[1:])

    async def _infer(self, request: Request, responder: Responder) -> Reply:
        body = await self._receiver.body(request)
        try:
            if responder.is_slow(body):
                answer = await self._in_thread(responder, responder.infer, body)
            else:
                started = perf_counter()
                answer, prediction = responder.infer(body)
                responder.count(prediction, perf_counter() - started)
        except Exception as error:
            return self._failed(request, error, responder)
        return Reply(200, answer, responder.headers, responder, body)

    async def _live_through(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


_GET = ("GET", "HEAD")
_TEXT = (b"content-type", b"text/plain; charset=utf-8")


def _timed(
    work: Callable[[bytes], tuple[bytes, Prediction]], body: bytes
) -> tuple[bytes, Prediction, float]:
    started = perf_counter()
    return (*work(body), perf_counter() - started)


async def _gone() -> Message:
    """What a body is received from that is there already."""
    return {"type": "http.disconnect"}


def _check_ids(request: Request) -> None:
    for name, value in request.ids:
        if len(value) > MAXIMUM_ID:
            message = f"header {name.decode()} is longer than {MAXIMUM_ID} characters"
            request.ids.clear()  # not sent back
            raise RequestError(message, 431, "header_too_long")


def _wrong_method(methods: Iterable[str], message: str = "") -> Reply:
    allowed = ", ".join(methods)
    error = RequestError(message or f"allowed here: {allowed}", 405, "method_not_allowed")
    return reply_error(error, ((b"allow", allowed.encode()),))


def _require(responder: Responder, model: str, version: str | None) -> None:
    """Refuse another model or version than the one that answers here."""
    deployment = responder.deployment
    own, number = deployment.predictor.schema.model, str(deployment.entry.version)
    if model != own:
        raise RequestError(f"no model {ascii(model)[:60]}; here is {own}", 404, "not_found")
    if version is not None and version != number:
        message = f"no version {ascii(version)[:60]}; version {number} serves here"
        raise RequestError(message, 404, "not_found")
