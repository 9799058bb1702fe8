"""Azure ML's long-running operations, waited for with a limit, and what gets into their way."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from resources.azure.clients import AzureError, azure_errors
from resources.endpoints.base import EndpointError

#: Provisioning states in which nothing goes on.
SETTLED = frozenset({"Succeeded", "Failed", "Canceled"})
#: First and longest pause between two looks, in seconds.
PAUSES = (0.25, 10.0)
#: Seconds between two lines about what is waited for.
REPORT_SECONDS = 30.0
T = TypeVar("T")


class TooSlowError(EndpointError):
    """Azure has not done within the limit what it had begun, and may still be at it."""


@contextmanager
def endpoint_errors(what: str) -> Generator[None]:
    """Raise what a client raises as EndpointError."""
    try:
        with azure_errors(what):
            yield
    except AzureError as error:
        raise EndpointError(str(error)) from None


def state_of(resource: Any) -> str:
    """The provisioning state of an endpoint or a deployment."""
    found = resource.provisioning_state  # a text, or an enumeration's member
    return str(getattr(found, "value", found))


@dataclass(frozen=True)
class Operations:
    """How operations on one endpoint are waited for."""

    #: The endpoint, as messages begin.
    what: str
    #: How long Azure may take for one of them.
    seconds: float
    log: Callable[[str], None]
    #: Raises where the endpoint is held no more.
    check: Callable[[], None]

    def run(self, doing: str, begin: Callable[[], Any]) -> Any:
        """Carry one out, after those of others that Azure is still at.

        Args:
            doing: what it does, for messages: ``delete v1``.
            begin: begins it; returns its poller.

        Raises:
            TooSlowError: it has not ended within the limit.
            EndpointError: Azure refuses it, or it has failed.
        """
        what = f"{self.what}: {doing}"
        with endpoint_errors(what):
            poller = self._begun(doing, begin)
        deadline = time.monotonic() + self.seconds
        while not poller.done():
            self._check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TooSlowError(
                    f"{what}: Azure has not done it within {self.seconds:g} s (deploy_seconds in "
                    "environment.json)"
                )
            with endpoint_errors(what):
                poller.wait(min(1.0, left))  # raises what has failed
        with endpoint_errors(what):
            return poller.result()

    def settled(self, name: str, read: Callable[[], T | None]) -> T | None:
        """A resource, once nothing goes on with it any more; None if there is none then.

        Args:
            name: of the resource, for messages.
            read: reads it.

        Raises:
            TooSlowError: it has not settled within the limit.
        """
        state = ""
        for _ in self._pauses(lambda: f"{name} is in state {state}"):
            found = read()
            if found is None or (state := state_of(found)) in SETTLED:
                return found
        raise TooSlowError(
            f"{self.what}: {name} is still in state {state} after {self.seconds:g} s; see the "
            "activity log of the workspace in Azure's portal"
        )

    def _begun(self, doing: str, begin: Callable[[], T]) -> T:
        from azure.core.exceptions import HttpResponseError

        refused: HttpResponseError | None = None
        for _ in self._pauses(lambda: f"Azure is at something else; waiting to {doing}"):
            try:
                return begin()
            except HttpResponseError as error:
                if error.status_code != 409:
                    raise
                refused = error
        assert refused is not None
        raise refused

    def _pauses(self, waiting: Callable[[], str]) -> Iterator[None]:
        """Once at the first, then after ever longer pauses, until the limit."""
        self._check()
        deadline, said, (pause, longest) = time.monotonic() + self.seconds, time.monotonic(), PAUSES
        while True:
            yield
            now = time.monotonic()
            if now >= deadline:
                return
            if now - said >= REPORT_SECONDS:
                self.log(f"{self.what}: {waiting()}")
                said = now
            time.sleep(min(pause, deadline - now))
            pause = min(longest, pause * 1.5)
            self._check()

    def _check(self) -> None:
        with endpoint_errors(self.what):
            self.check()
