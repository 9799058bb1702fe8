"""What goes wrong on request: per operation, so and so often."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Literal

from tests.azure.messages import Request


@dataclass
class Fault:
    """Something that goes wrong with requests."""

    #: Searched for in ``METHOD https://host/path?query``, in any case.
    where: str
    #: Answered instead of the server's own answer.
    status: int | None = None
    code: str | None = None
    message: str = "A fault that was asked for."
    #: Seconds, as the header ``Retry-After``.
    retry_after: int | None = None
    #: The connection is closed: before the request was carried out, or after it.
    drop: Literal["request", "answer"] | None = None
    #: The answer comes this many seconds late.
    seconds: float = 0.0
    #: This process is killed: before the request is carried out, or after it, as ``drop`` says.
    kills: int | None = None
    #: None: always.
    times: int | None = 1
    #: Requests that are let through first.
    after: int = 0

    def hits(self, request: Request) -> bool:
        """Whether it is this request's turn; counts."""
        if not re.search(self.where, f"{request.method} {request.url}", re.IGNORECASE):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


@dataclass
class OperationFault:
    """Something that goes wrong with a long-running operation, once it was accepted."""

    #: Searched for in ``METHOD resource id``, in any case.
    where: str
    #: ``endless``: it stays in progress for ever.
    outcome: Literal["Failed", "Canceled", "endless"] = "Failed"
    code: str = "InternalServerError"
    message: str = "A fault that was asked for."
    times: int | None = 1

    def hits(self, method: str, resource: str) -> bool:
        """Whether it is this operation's turn; counts."""
        if not re.search(self.where, f"{method} {resource}", re.IGNORECASE):
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Faults:
    """All that was asked for; the oldest one that fits is taken."""

    def __init__(self) -> None:
        self._requests: list[Fault] = []
        self._operations: list[OperationFault] = []
        self._lock = threading.Lock()
        #: How many of the next SAS tokens that ARM hands out have expired already.
        self.expired_sas = 0

    def add(self, *faults: Fault | OperationFault) -> None:
        """Ask for faults."""
        with self._lock:
            for fault in faults:
                found = self._requests if isinstance(fault, Fault) else self._operations
                found.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._requests.clear()
            self._operations.clear()
            self.expired_sas = 0

    def of_request(self, request: Request) -> Fault | None:
        """What goes wrong with a request."""
        with self._lock:
            return next((fault for fault in self._requests if fault.hits(request)), None)

    def of_operation(self, method: str, resource: str) -> OperationFault | None:
        """What goes wrong with an operation that begins."""
        with self._lock:
            return next((f for f in self._operations if f.hits(method, resource)), None)

    def sas_is_expired(self) -> bool:
        """Whether the SAS token that is made now has expired already; counts."""
        with self._lock:
            expired = self.expired_sas > 0
            self.expired_sas -= expired
            return expired
