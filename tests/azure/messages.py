"""One request and one answer, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """A request, whole; header names in lower case."""

    method: str
    host: str
    #: Path and query, byte for byte as the client sent them.
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    scheme: str = "https"
    #: Which container asks; empty for everybody else.
    client: str = ""

    @cached_property
    def path(self) -> str:
        """The path, still quoted."""
        return urlsplit(self.target).path

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's values; names in lower case, as Azure compares them."""
        pairs = parse_qsl(urlsplit(self.target).query, keep_blank_values=True)
        return {name.lower(): value for name, value in pairs}

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.scheme}://{self.host}{self.target}"

    def json(self) -> Any:
        """The body; an empty one is an empty object. Raises ValueError."""
        return json.loads(self.body) if self.body else {}


@dataclass(frozen=True)
class Response:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def of(
        cls, status: int, value: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """An answer of JSON; None is no body at all."""
        found = dict(headers or {})
        if value is None:
            return cls(status, found)
        found.setdefault("Content-Type", "application/json; charset=utf-8")
        return cls(status, found, json.dumps(value).encode())

    def json(self) -> Any:
        """The body, decoded; None if it is empty."""
        return json.loads(self.body) if self.body else None
