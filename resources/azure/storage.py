"""Raw data in blob storage: a folder of the platform's container, or any other of its account."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from upath import UPath

from resources.azure.clients import AzureError
from resources.azure.on_azure import OnAzure
from resources.azure.settings import StorageSettings, filled_in
from resources.listing import MissingFolderError, StorageError, StoredFile
from resources.storage import Storage

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties

#: Of addresses in blob storage, as fsspec knows them.
SCHEMES = ("abfs", "abfss", "az")


def root_of(storage: StorageSettings) -> str:
    """The address of the folder that ``data.location`` is below; variables are not filled in."""
    return f"abfs://{storage.container}/{storage.data}"


class BlobStorage(OnAzure, Storage):
    """Folders of blobs below one root."""

    def place(self, location: str) -> UPath:
        """See Storage.place; reads with the profile's credential."""
        return self._upath(self._full(location))

    def listing(self, root: UPath | str, suffixes: Iterable[str] = ("",)) -> list[StoredFile]:
        """See Storage.listing: the pages of one listing, with each blob's etag."""
        place = self._upath(str(root))
        container, _, prefix = place.path.strip("/").partition("/")
        endings = tuple(suffixes)
        found = self._listed(container, f"{prefix}/" if prefix else "")
        if not found:
            raise MissingFolderError(f"no folder {place}; put files there")
        files: list[StoredFile] = []
        for blob in found:
            within = str(blob.name)[len(prefix) :].strip("/")
            hidden = any(part.startswith(".") for part in within.split("/"))
            if within and within.endswith(endings) and not hidden and not _is_folder(blob):
                changed = blob.last_modified.timestamp()
                files.append(StoredFile(place, int(blob.size), str(blob.etag), within, changed))
        return files

    def _listed(self, container: str, prefix: str) -> list[BlobProperties]:
        from azure.core.exceptions import ResourceNotFoundError

        url = f"{self._clients.settings.storage.url}/{container}/{prefix}"
        try:
            with self._clients.storage_errors(f"listing of {url}"):
                blobs = self._clients.storage.get_container_client(container)
                try:
                    return list(blobs.list_blobs(name_starts_with=prefix, include=["metadata"]))
                except ResourceNotFoundError:  # no such container
                    return []
        except AzureError as error:
            raise StorageError(f"{error}; nothing was taken") from None

    def _upath(self, location: str) -> UPath:
        """An address with what opens it.

        Raises:
            StorageError: not in blob storage, or of another account.
        """
        location = filled_in(location)
        storage, parts = self._clients.settings.storage, urlsplit(location)
        if parts.scheme not in SCHEMES:
            raise StorageError(
                f"'{location}': not in blob storage; name a folder below "
                f"{filled_in(self.root)}, or an address such as abfs://container/folder"
            )
        container, at, host = parts.netloc.partition("@")
        if at and host.partition(".")[0] != storage.account:
            raise StorageError(f"'{location}': account {host}; this profile's is {storage.account}")
        return UPath(f"abfs://{container}{parts.path.rstrip('/')}", **self._options)

    @cached_property
    def _options(self) -> dict[str, Any]:
        """For adlfs. What was read of a file before is never taken for what it is now."""
        storage = self._clients.settings.storage
        options: dict[str, Any] = {"account_name": storage.account, "use_listings_cache": False}
        if storage.account_key:
            return {**options, "account_key": os.environ[storage.account_key]}
        if storage.sas:
            return {**options, "sas_token": os.environ[storage.sas]}
        return {**options, "anon": False}


def _is_folder(blob: BlobProperties) -> bool:
    """Accounts with a hierarchical namespace list folders as blobs, too."""
    return (blob.metadata or {}).get("hdi_isfolder") == "true"
