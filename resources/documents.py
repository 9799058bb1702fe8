"""Small documents under names with slashes: a folder on a laptop, a container of blobs on Azure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import dagster as dg

from mlops_assets.files import create_exclusive, write_atomic


class Documents(dg.ConfigurableResource, ABC):  # pyright: ignore[reportMissingTypeArgument]
    """Whole documents, each written at once; a reader never sees half of one."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A document's content; None if there is none of that name."""

    @abstractmethod
    def write(self, name: str, content: str) -> None:
        """Make or replace a document."""

    @abstractmethod
    def create(self, name: str, content: str) -> bool:
        """Make a document; False, and nothing done, where there is one."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Full names of the documents directly below a folder, sorted."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a document; one that is not there is no error."""


class FolderDocuments(Documents):
    """Files below a folder of this machine."""

    root: str

    def read(self, name: str) -> bytes | None:
        """See Documents.read."""
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: str) -> None:
        """See Documents.write."""
        write_atomic(self._path(name), content)

    def create(self, name: str, content: str) -> bool:
        """See Documents.create."""
        return create_exclusive(self._path(name), content)

    def names(self, folder: str) -> list[str]:
        """See Documents.names."""
        # What begins with a dot is being written, or was when its writer was killed.
        found = [p for p in self._path(folder).glob("[!.]*") if p.is_file()]
        return sorted(f"{folder}/{path.name}" for path in found)

    def remove(self, name: str) -> None:
        """See Documents.remove."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return Path(self.root) / name
