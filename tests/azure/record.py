"""Every exchange, without secrets."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.azure.messages import Request, Response

HIDDEN = "REDACTED"
_SECRET_HEADERS = {"authorization", "cookie", "set-cookie", "x-ms-copy-source"}
_SECRET_FIELDS = {
    "access_token", "accesstoken", "accountkey", "client_secret", "key", "primarykey", "sastoken",
    "secondarykey", "securevalue", "storageaccountkey", "workspacekey",
}  # fmt: skip
_SIGNATURE = re.compile(r"([?&]sig=)[^&\"]+")


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; None where the connection was dropped."""

    method: str
    host: str
    url: str
    request_headers: Mapping[str, str]
    #: JSON decoded, other bodies as their length in bytes, None where there is none.
    request_body: Any
    status: int | None
    response_headers: Mapping[str, str]
    response_body: Any
    #: Whether the answer was a fault that somebody asked for.
    fault: bool


class Record:
    """The exchanges so far, and what should not have happened."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._lock = threading.Lock()
        #: Hosts outside Azure that somebody asked for, with their ports.
        self.refused: list[str] = []
        #: Tracebacks of errors in the test server itself.
        self.broken: list[str] = []

    def add(self, request: Request, response: Response | None, *, fault: bool) -> None:
        """Note an exchange."""
        exchange = Exchange(
            request.method,
            request.host,
            _SIGNATURE.sub(rf"\g<1>{HIDDEN}", request.url),
            _headers(request.headers),
            _body(request.headers, request.body),
            response.status if response else None,
            _headers(response.headers) if response else {},
            _body(response.headers, response.body) if response else None,
            fault,
        )
        with self._lock:
            self._exchanges.append(exchange)

    def exchanges(self, where: str = "") -> list[Exchange]:
        """Those of which ``METHOD url`` has a match for a regular expression, in any case."""
        with self._lock:
            found = list(self._exchanges)
        return [e for e in found if re.search(where, f"{e.method} {e.url}", re.IGNORECASE)]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._exchanges.clear()
        self.refused.clear()
        self.broken.clear()


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: HIDDEN if name.lower() in _SECRET_HEADERS else _SIGNATURE.sub(rf"\1{HIDDEN}", value)
        for name, value in headers.items()
    }


def _body(headers: Mapping[str, str], body: bytes) -> Any:
    if not body:
        return None
    kind = next((v for n, v in headers.items() if n.lower() == "content-type"), "")
    if "json" not in kind:
        return len(body)
    try:
        return _hide(json.loads(body))
    except ValueError:
        return len(body)


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: HIDDEN
            if name.lower() in _SECRET_FIELDS and isinstance(item, str)
            else _hide(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_hide(item) for item in value]
    return _SIGNATURE.sub(rf"\1{HIDDEN}", value) if isinstance(value, str) else value
