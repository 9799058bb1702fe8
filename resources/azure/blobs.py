"""Blobs of the platform's container: each whole or absent, made at most once where that matters."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from resources.azure.clients import AzureClients

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

#: Transfers that go on at the same time.
AT_ONCE = 8
#: Metadata of a blob that must be made at most once: which call made it.
_MAKER = "mlops_maker"

T = TypeVar("T")
R = TypeVar("R")


class Blob(NamedTuple):
    """One blob of a listing."""

    name: str
    #: Another one whenever the content is another one.
    etag: str
    #: Bytes.
    size: int


class Blobs:
    """What the container holds, by name; an AzureError says which blob could not be had."""

    def __init__(self, clients: AzureClients) -> None:
        self._clients = clients

    def read(self, name: str) -> bytes | None:
        """A blob's content; None if there is none of that name."""
        from azure.core.exceptions import ResourceNotFoundError

        blob = self.client(name)
        with self.errors(name):
            try:
                return blob.download_blob().readall()
            except ResourceNotFoundError:
                return None

    def exists(self, name: str) -> bool:
        """Whether there is a blob of that name."""
        blob = self.client(name)
        with self.errors(name):
            return blob.exists()

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a blob."""
        blob = self.client(name)
        with self.errors(name):
            blob.upload_blob(content, overwrite=True)

    def create(self, name: str, content: bytes) -> bool:
        """Make a blob; False, and nothing done, where there is one."""

        def sent(blob: BlobClient, **given: Any) -> None:
            blob.upload_blob(content, **given)

        return self._create(name, sent)

    def upload(self, name: str, path: Path) -> bool:
        """Make a blob of a file, in bounded memory; False where there is one."""

        def sent(blob: BlobClient, **given: Any) -> None:
            with path.open("rb") as file:
                blob.upload_blob(file, length=path.stat().st_size, **given)

        return self._create(name, sent)

    def _create(self, name: str, send: Callable[..., object]) -> bool:
        """Send with If-None-Match; an answer that was lost on its way makes no difference.

        The client sends again when no answer comes, and is told that the blob is there: whether
        it is its own is seen by what only this call can have written.
        """
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        blob, maker = self.client(name), secrets.token_hex(16)
        with self.errors(name):
            try:
                send(blob, overwrite=False, metadata={_MAKER: maker})
            except (ResourceExistsError, ResourceModifiedError):
                found = blob.get_blob_properties().metadata or {}
                return found.get(_MAKER) == maker
        return True

    def download(self, name: str, path: Path) -> str:
        """Write a blob to a new file, in bounded memory; returns the SHA-256 of what came."""
        with self.errors(name):
            return self._write(name, path)

    def bring(self, name: str, path: Path) -> bool:
        """Write a blob to a new file; False, and no file, if there is none of that name."""
        from azure.core.exceptions import ResourceNotFoundError

        with self.errors(name):
            try:
                self._write(name, path)
            except ResourceNotFoundError:
                path.unlink()
                return False
        return True

    def _write(self, name: str, path: Path) -> str:
        digest = hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = self.client(name)
        with path.open("xb") as file:
            for chunk in blob.download_blob().chunks():
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def listed(self, prefix: str) -> list[Blob]:
        """Every blob whose name begins so, sorted by name."""
        container = self._clients.container
        with self.errors(f"{prefix}*"):
            found = container.list_blobs(name_starts_with=prefix)
            return sorted(Blob(blob.name, str(blob.etag), int(blob.size)) for blob in found)

    def names(self, folder: str) -> list[str]:
        """Full names of the blobs directly below a folder, sorted."""
        container = self._clients.container
        with self.errors(f"{folder}/"):
            found = container.walk_blobs(name_starts_with=f"{folder}/", delimiter="/")
            return sorted(str(blob.name) for blob in found if not str(blob.name).endswith("/"))

    def remove(self, name: str) -> None:
        """Remove a blob; one that is not there is no error."""
        from azure.core.exceptions import ResourceNotFoundError

        blob = self.client(name)
        with self.errors(name):
            try:
                blob.delete_blob()
            except ResourceNotFoundError:
                return

    def client(self, name: str) -> BlobClient:
        """Microsoft's client of one blob."""
        return self._clients.container.get_blob_client(name)

    def place(self, name: str) -> str:
        """Where a blob is, for people."""
        storage = self._clients.settings.storage
        return f"{storage.url}/{storage.container}/{name}"

    def errors(self, name: str) -> AbstractContextManager[None]:
        """Context manager: what the client raises comes out as AzureError, with the place."""
        return self._clients.storage_errors(f"blob {self.place(name)}")


def side_by_side(do: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What ``do`` gives for each item, in their order, several at a time; the first error ends."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="blobs") as pool:
        return list(pool.map(do, items))
