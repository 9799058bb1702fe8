"""One holder at a time, on Azure: a blob lease, which ends soon after its holder has died."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from resources.azure.clients import AzureClients, AzureError, azure_errors

SECONDS = 60
REPORT_SECONDS = 10.0


class Lease:
    """A lease that is held."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.lost = threading.Event()

    def check(self) -> None:
        """Raise AzureError if it is held no more."""
        if self.lost.is_set():
            raise AzureError(f"{self._what}: the lease was lost; another run may have it")


@contextmanager
def held(
    clients: AzureClients, name: str, what: str, log: Callable[[str], None]
) -> Generator[Lease]:
    """Hold a lease."""
    from azure.core.exceptions import HttpResponseError, ResourceExistsError
    from azure.storage.blob import BlobLeaseClient

    with azure_errors(f"lock of {what}"):
        blob = clients.container.get_blob_client(f"locks/{name}")
        with suppress(ResourceExistsError):
            blob.upload_blob(b"", overwrite=False)
    client = BlobLeaseClient(blob, str(uuid.uuid4()))
    said = 0.0
    while True:
        try:
            with azure_errors(f"lock of {what}"):
                try:
                    client.acquire(SECONDS)
                    break
                except ResourceExistsError:
                    pass
        finally:
            pass
        if time.monotonic() - said >= REPORT_SECONDS:
            said = time.monotonic()
            log(f"waiting for {what}: held by another run")
        time.sleep(0.2)
    lease, done = Lease(what), threading.Event()

    def renew() -> None:
        while not done.wait(SECONDS / 3):
            try:
                client.renew()
            except HttpResponseError:
                lease.lost.set()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join()
        with suppress(HttpResponseError):
            client.release()
