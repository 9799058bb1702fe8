"""Documents as blobs: references between assets, attempts, records."""

from __future__ import annotations

from resources.azure.on_azure import OnAzure
from resources.documents import Documents


class BlobDocuments(OnAzure, Documents):
    """Blobs of the platform's container, under the documents' own names."""

    def read(self, name: str) -> bytes | None:
        """See Documents.read."""
        return self._blobs.read(name)

    def write(self, name: str, content: str) -> None:
        """See Documents.write."""
        self._blobs.write(name, content.encode())

    def create(self, name: str, content: str) -> bool:
        """See Documents.create. Made with If-None-Match: of two writers, one makes it."""
        return self._blobs.create(name, content.encode())

    def names(self, folder: str) -> list[str]:
        """See Documents.names."""
        return self._blobs.names(folder)

    def remove(self, name: str) -> None:
        """See Documents.remove."""
        self._blobs.remove(name)
