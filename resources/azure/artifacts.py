"""Artifacts in blob storage; the state folder has copies of those that were made or read here.

An artifact is what its index says, the blob ``artifacts/<kind>/<name>/index.json``, written last
and once. It names every file with its SHA-256, and the folder beside it where they lie. That
folder's name comes from the files' content, so that two who make the same artifact at the same
time never write over each other, and an upload that was cut short is gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mlops_assets.files import digest_file, digest_json, files_below, to_json
from resources.artifacts import Artifacts
from resources.azure.blobs import side_by_side
from resources.azure.clients import AzureError
from resources.azure.leases import held
from resources.azure.on_azure import OnAzure

INDEX = "index.json"


class Index(NamedTuple):
    """What an artifact is made of."""

    #: Folder of its files, in the container.
    folder: str
    #: Path below it -> SHA-256.
    files: dict[str, str]


class BlobArtifacts(OnAzure, Artifacts):
    """Published in blob storage, read from copies below ``root``."""

    def path(self, kind: str, name: str) -> Path:
        """Where an artifact lies here; fetched if it was published and is not here yet.

        Raises:
            AzureError: blob storage does not give it, or not as it was published.
        """
        place = self._place(kind, name)
        if place.is_dir():
            return place
        index = self.index(kind, name)
        return self._fetched(kind, name, index) if index else place

    def has(self, kind: str, name: str) -> bool:
        """See Artifacts.has."""
        return self._blobs.exists(_index_name(kind, name))

    def publish(self, kind: str, name: str, folder: Path) -> Path:
        """See Artifacts.publish. The index is written last: before, there is no artifact."""
        files = {path.relative_to(folder).as_posix(): path for path in files_below(folder)}
        digests = {within: digest_file(path) for within, path in files.items()}
        upload = f"artifacts/{kind}/{name}/{digest_json(digests)[:16]}"
        side_by_side(
            lambda within: self._blobs.upload(f"{upload}/{within}", files[within]), digests
        )
        index = to_json({"folder": upload, "files": digests}).encode()
        if self._blobs.create(_index_name(kind, name), index):
            return super().publish(kind, name, folder)
        return self.path(kind, name)  # somebody else's, which may differ

    @contextmanager
    def lock(self, kind: str, name: str) -> Generator[None]:
        """See Artifacts.lock. A lease, among machines; here a file, which costs no request."""
        with (
            super().lock(kind, name),
            held(self._clients, f"artifacts-{kind}-{name}", f"artifact {kind}/{name}"),
        ):
            yield

    def index(self, kind: str, name: str) -> Index | None:
        """What a published artifact is made of; None before that."""
        content = self._blobs.read(_index_name(kind, name))
        return Index(**json.loads(content)) if content is not None else None

    def _fetched(self, kind: str, name: str, index: Index) -> Path:
        with self.workspace() as scratch:
            copy = scratch / "copy"
            copy.mkdir()

            def fetch(within: str) -> str | None:
                found = self._blobs.download(f"{index.folder}/{within}", copy / within)
                return within if found != index.files[within] else None

            wrong = [within for within in side_by_side(fetch, index.files) if within]
            if wrong:
                raise AzureError(
                    f"{self._blobs.place(index.folder)}: not as it was published: "
                    f"{', '.join(wrong)}; remove {_index_name(kind, name)} and make it again"
                )
            return super().publish(kind, name, copy)


def _index_name(kind: str, name: str) -> str:
    return f"artifacts/{kind}/{name}/{INDEX}"
