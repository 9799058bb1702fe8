"""The scoring server's routes: Azure's inference server's, with errors that help.

``GET /`` is ``Healthy`` and needs no key; ``POST /score`` and ``GET /swagger.json`` do. ``GET
/score`` with a body scores like POST, as Azure's does; without one there is nothing to score: 405.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlops_assets.scoring.deployments import Deployment, Deployments, Serving
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.keys import KeyFile
from mlops_assets.scoring.openapi import openapi
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.predictor import Prediction

MAXIMUM_BODY = 8 * 2**20
#: Larger bodies are parsed, and more rows scored, in a thread: health stays quick.
THREAD_BYTES, THREAD_ROWS = 32 * 2**10, 200
REQUEST_IDS = (b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id", b"traceid")
MAXIMUM_ID = 100
DEPLOYMENT = "azureml-model-deployment"
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
logger = logging.getLogger(__name__)


def create_app(
    deployments: Deployments, keys: KeyFile, identity: str = "", lifespan: Lifespan | None = None
) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        deployments: what is served; asked anew by every request.
        keys: who may ask.
        identity: sent with ``GET /`` as ``x-mlops-endpoint``, so that whoever looks for this
            server on its port knows it from another one.
        lifespan: what goes on beside the requests.
    """
    routes = _Routes(deployments, keys, identity)
    app = Starlette(
        routes=[
            Route("/", routes.health, methods=["GET"]),
            Route("/score", routes.score, methods=["GET", "POST", "OPTIONS"]),
            Route("/swagger.json", routes.swagger, methods=["GET"]),
        ],
        exception_handlers={
            RequestError: _request_error,
            HTTPException: _http_error,
            Exception: _internal_error,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return _RequestIds(app)


class _Routes:
    def __init__(self, deployments: Deployments, keys: KeyFile, identity: str) -> None:
        self._deployments = deployments
        self._keys = keys
        self._identity = identity
        # More threads than cores only make each other wait.
        self._threads = ThreadPoolExecutor(2, "scoring")

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("Healthy", headers={"x-mlops-endpoint": self._identity})

    async def swagger(self, request: Request) -> Response:
        self._authorize(request)
        chosen = self._pick(request)
        return _json(
            openapi(chosen.predictor.schema, chosen.entry.version), 200, _served_by(chosen)
        )

    async def score(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(headers={"allow": "GET, POST, OPTIONS"})
        self._authorize(request)
        body = await _read_body(request)
        if request.method == "GET" and not body:
            raise HTTPException(405, "send the rows with POST", {"allow": "POST, OPTIONS"})
        chosen = self._pick(request)
        return Response(
            await self._answer(chosen, body),
            headers=_served_by(chosen),
            media_type="application/json",
        )

    async def _answer(self, chosen: Deployment, body: bytes) -> bytes:
        predictor = chosen.predictor
        run = asyncio.get_running_loop().run_in_executor
        if len(body) > THREAD_BYTES:
            return await run(self._threads, _score, chosen, body)
        table = parse(body, predictor.schema)
        if table.rows > THREAD_ROWS:
            prediction = await run(self._threads, predictor.predict_table, table)
        else:
            prediction = predictor.predict_table(table)
        return _encode(prediction, chosen)

    def _pick(self, request: Request) -> Deployment:
        serving: Serving = self._deployments.serving
        return serving.pick(request.headers.get(DEPLOYMENT))

    def _authorize(self, request: Request) -> None:
        header = request.headers.get("authorization")
        if not self._keys.accepts(None if header is None else header.encode("latin-1")):
            message = "send one of the endpoint's keys: 'Authorization: Bearer KEY'"
            raise HTTPException(401, message, {"www-authenticate": "Bearer"})


def _score(chosen: Deployment, body: bytes) -> bytes:
    table = parse(body, chosen.predictor.schema)
    return _encode(chosen.predictor.predict_table(table), chosen)


def _encode(prediction: Prediction, chosen: Deployment) -> bytes:
    answer: dict[str, Any] = {"predictions": prediction.values}
    if prediction.probabilities is not None:
        names = [_label(label) for label in chosen.predictor.schema.labels or ()]
        answer["probabilities"] = [
            dict(zip(names, row, strict=True)) for row in prediction.probabilities
        ]
    return json.dumps(answer, allow_nan=False, separators=(",", ":")).encode()


def _label(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label)


def _served_by(chosen: Deployment) -> dict[str, str]:
    return {DEPLOYMENT: chosen.name, "x-mlops-version": str(chosen.entry.version)}


async def _read_body(request: Request) -> bytes:
    """The body, read no further than the limit, whatever its headers say."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > MAXIMUM_BODY:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in _stream(request):
        size += len(chunk)
        if size > MAXIMUM_BODY:
            raise _too_large()
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


def _too_large() -> RequestError:
    return RequestError(f"the body is larger than {MAXIMUM_BODY} bytes", 413, "too_large")


def _json(value: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    # Plain ASCII: a text that is no Unicode, such as half a surrogate pair, can be said too.
    content = json.dumps(value, separators=(",", ":")).encode()
    return Response(content, status, headers, "application/json")


def _error(status: int, code: str, message: str, headers: Any = None) -> Response:
    return _json({"error": {"code": code, "message": message}}, status, headers)


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.status, error.code, error.message)


_CODES = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed"}


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "error")
    return _error(error.status_code, code, error.detail, error.headers)


async def _internal_error(request: Request, _: Exception) -> Response:
    identity = request.scope["mlops.request_id"]
    return _error(500, "internal", f"internal error; the server's log has it as {identity}")


class _RequestIds:
    """Echoes the request's ids, refuses long ones, and logs failures under them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [(name, value) for name, value in scope["headers"] if name in REQUEST_IDS]
        too_long = [name.decode() for name, value in given if len(value) > MAXIMUM_ID]
        if too_long:
            message = f"header {too_long[0]} is longer than {MAXIMUM_ID} characters"
            await _error(431, "header_too_long", message)(scope, receive, send)
            return
        echoed = dict(given) or {REQUEST_IDS[0]: uuid.uuid4().hex.encode()}
        identity = next(iter(echoed.values())).decode("latin-1")
        scope["mlops.request_id"] = identity
        await self._run(scope, receive, _with_headers(send, list(echoed.items())), identity)

    async def _run(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            logger.info("request %r: the client went away", identity)
        except Exception:  # Starlette has answered, and raises it again for the log
            logger.exception("request %r failed", identity)


def _with_headers(
    send: Send, headers: list[tuple[bytes, bytes]]
) -> Callable[[Message], Awaitable[None]]:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return sender
