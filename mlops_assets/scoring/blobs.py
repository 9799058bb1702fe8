"""A folder of blobs, as a server in a container reads it: by the container's managed identity."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlops_assets.scoring.archive import ArchiveError

#: Seconds for a connection, and for the network to stand still.
CONNECT_SECONDS, READ_SECONDS = 5, 30
CLIENT_ID = "AZURE_CLIENT_ID"
NOT_MODIFIED = 304


class BlobError(Exception):
    """Storage does not answer, or refuses: it may do so later; names the blob."""


class AbsentError(Exception):
    """There is no such blob; names it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """What was read, and the mark by which a change is seen."""

    data: bytes
    etag: str


class BlobFolder:
    """``https://ACCOUNT.blob.core.windows.net/CONTAINER/FOLDER``."""

    def __init__(self, url: str) -> None:
        """A client of the folder.

        Args:
            url: see above; ``AZURE_CLIENT_ID`` says which identity, where there are several.

        Raises:
            ImportError: Microsoft's clients are not installed.
        """
        from azure.identity import ManagedIdentityCredential
        from azure.storage.blob import ContainerClient

        for name in ("azure", "msal"):  # a line for every request otherwise
            logging.getLogger(name).setLevel(logging.ERROR)
        parts = urlsplit(url)
        container, _, self._folder = parts.path.strip("/").partition("/")
        self.url = url.rstrip("/")
        # Who follows tries again himself, and says so.
        self._client = ContainerClient(
            f"https://{parts.netloc}",
            container,
            ManagedIdentityCredential(client_id=os.environ.get(CLIENT_ID) or None),
            retry_total=0,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
        )

    @property
    def subject(self) -> str:
        """Environment and model: the last two levels."""
        return "/".join(self._folder.split("/")[-2:])

    def read(self, name: str, etag: str | None = None) -> Blob | None:
        """A blob of the folder; None if it is still the one of that mark.

        Raises:
            AbsentError: there is none.
            BlobError: see there.
        """
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError

        given: dict[str, Any] = {}
        if etag is not None:
            given = {"etag": etag, "match_condition": MatchConditions.IfModified}
        with _errors(f"{self.url}/{name}"):
            try:
                found = self._client.download_blob(f"{self._folder}/{name}", **given)
            except HttpResponseError as error:
                if error.status_code == NOT_MODIFIED:
                    return None
                raise
            return Blob(found.readall(), found.properties.etag)

    def write(self, name: str, data: str) -> None:
        """Replace a blob of the folder; raises BlobError."""
        with _errors(f"{self.url}/{name}"):
            self._client.upload_blob(f"{self._folder}/{name}", data.encode(), overwrite=True)

    def upload(self, blob: str, path: Path) -> None:
        """Make a blob of the container of a file; one that is there is this one already.

        Raises:
            BlobError: see there.
        """
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        with _errors(blob), path.open("rb") as file:
            try:
                self._client.upload_blob(blob, file, overwrite=False)
            except (ResourceExistsError, ResourceModifiedError):
                return

    def download(self, blob: str, to: Path, maximum: int) -> None:
        """Write a blob of the container to a file.

        Raises:
            AbsentError: there is none.
            ArchiveError: it has more than ``maximum`` bytes.
            BlobError: see there.
        """
        with _errors(blob):
            found = self._client.download_blob(blob, max_concurrency=1)
            if found.size > maximum:
                raise ArchiveError(f"{blob}: larger than {maximum} bytes")
            with to.open("xb") as file:
                found.readinto(file)


@contextmanager
def _errors(place: str) -> Generator[None]:
    from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

    try:
        yield
    except ResourceNotFoundError:
        raise AbsentError(f"{place}: no such blob") from None
    except HttpResponseError as error:
        if error.status_code is None:  # there is no identity, so storage was not even asked
            raise BlobError(f"{place}: {_first_line(error)}") from None
        code = getattr(error, "error_code", None)  # an Enum, or what storage has sent
        said = getattr(code, "value", code) or error.reason or "an error"
        raise BlobError(f"{place}: storage answers {error.status_code} {said}") from None
    except AzureError as error:  # nobody answers, or there is no identity
        raise BlobError(f"{place}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
