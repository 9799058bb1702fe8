"""Locks among machines: a blob's lease, which ends by itself when its holder does.

The lock's blob says in its metadata who holds it. A holder that was killed holds on until its
lease ends, at most SECONDS later; on the machine where it ran it is found to be gone, and the
lease broken at once.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.runs import is_running, process_name
from resources.azure.blobs import Blobs
from resources.azure.clients import AzureClients, AzureError

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobLeaseClient

#: How long a lease holds without being renewed; Azure takes 15 to 60.
SECONDS = 60
#: Between two attempts to get it.
POLL_SECONDS = 1.0
#: Between two lines about who is waited for.
REPORT_SECONDS = 10.0
logger = logging.getLogger(__name__)


class LeaseLostError(AzureError):
    """Another one may hold the lock by now: whatever is still to be done must not be."""


class Lease:
    """A lock that is held, and renewed by a thread until it is released."""

    def __init__(self, lease: BlobLeaseClient, what: str, seconds: int, since: float) -> None:
        self._lease, self._what, self._seconds = lease, what, seconds
        self._until = since + seconds
        self._lost: str | None = None
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease {what}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLostError if the lock may be another one's by now."""
        if self._lost is None and _now() >= self._until:
            self._lost = f"it was not renewed for {self._seconds} s"
        if self._lost is not None:
            raise LeaseLostError(
                f"{self._what}: the lock was lost ({self._lost}); what was not done yet is left "
                "undone: start again"
            )

    def release(self) -> None:
        """Let the next one have it; one that was lost is let alone."""
        from azure.core.exceptions import AzureError as ClientError

        self._released.set()
        self._thread.join()
        # Whatever goes wrong here, the lease ends by itself.
        with contextlib.suppress(ClientError):
            self._lease.release()

    def _keep(self) -> None:
        from azure.core.exceptions import AzureError as ClientError
        from azure.core.exceptions import HttpResponseError

        pause = self._seconds / 4
        while not self._released.wait(pause):
            began = _now()
            try:
                self._lease.renew(timeout=int(pause))
            except HttpResponseError as error:
                if error.status_code in (404, 409, 412):
                    self._lost = f"Azure answers {error.status_code}"
                    return
            except ClientError:
                continue  # no answer: tried again, until the time is over
            else:
                self._until = began + self._seconds


@contextlib.contextmanager
def held(
    clients: AzureClients,
    name: str,
    what: str,
    log: Callable[[str], None] = logger.info,
    seconds: int = SECONDS,
) -> Generator[Lease]:
    """Hold a lock, whoever else wants it on whatever machine; waits for it as long as it takes.

    Args:
        clients: of the container that has the locks, as blobs ``locks/<name>``.
        name: of the lock.
        what: what is locked, for the log.
        log: told every ten seconds who is waited for.
        seconds: how long the lease outlives a holder that was killed.

    Yields:
        The lease; call its ``check()`` before each step that must be the only one.
    """
    blobs = Blobs(clients)
    lock = f"locks/{name}"
    with blobs.errors(lock):
        lease = _acquired(blobs, lock, what, log, seconds)
    try:
        yield lease
    finally:
        lease.release()


def _acquired(
    blobs: Blobs, lock: str, what: str, log: Callable[[str], None], seconds: int
) -> Lease:
    from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

    blob, reported = blobs.client(lock), time.monotonic()
    while True:
        began = _now()
        try:
            # A name of its own makes it the same lease when the request is sent again.
            lease = blob.acquire_lease(seconds, lease_id=str(uuid.uuid4()))
        except ResourceNotFoundError:
            blobs.create(lock, b"")
            continue
        except ResourceExistsError:  # leased
            holder = _holder(blob)
        else:
            if _signed(blob, lease):
                return Lease(lease, what, seconds, began)
            continue
        if _is_gone(holder.metadata) and _broken(blob, holder.etag):
            log(f"{what}: the process that held it was killed; taking over")
            continue
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            log(f"waiting for {what}: held by {_describe(holder.metadata)}")
        time.sleep(POLL_SECONDS)


def _holder(blob: BlobClient) -> Any:
    """The lock's properties: its metadata says who holds it."""
    return blob.get_blob_properties()


def _signed(blob: BlobClient, lease: BlobLeaseClient) -> bool:
    """Say who holds the lock; False if the lease was broken before that was known."""
    from azure.core.exceptions import HttpResponseError

    found = {"host": _host(), "process": process_name(), "since": f"{time.time():.0f}"}
    try:
        blob.set_blob_metadata(found, lease=lease)
    except HttpResponseError as error:
        if error.status_code in (409, 412):
            return False
        raise
    return True


def _broken(blob: BlobClient, etag: str) -> bool:
    """Break a lease unless its holder has changed since the lock was looked at."""
    from azure.core import MatchConditions
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobLeaseClient

    try:
        BlobLeaseClient(blob).break_lease(
            0, etag=etag, match_condition=MatchConditions.IfNotModified
        )
    except HttpResponseError as error:
        if error.status_code in (409, 412):
            return False
        raise
    return True


def _is_gone(holder: Mapping[str, str]) -> bool:
    """Whether the holder was a process of this very machine that is there no more."""
    return holder.get("host") == _host() and not is_running(holder["process"])


def _describe(holder: Mapping[str, str]) -> str:
    if "process" not in holder:
        return "a process that has just taken it"
    host, pid = holder["host"].partition("/")[0], holder["process"].partition("@")[0]
    return f"process {pid} on {host} for {time.time() - float(holder['since']):.0f} s"


def _host() -> str:
    """This machine since it was started; processes of another container are not seen from here."""
    boot = _text("/proc/sys/kernel/random/boot_id")
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()}/{boot}/{space}"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _now() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
