"""Captured rows of online endpoints: what Azure ML's data collector has kept.

It writes to the workspace's own blob store; what it has written is downloaded and read again as
rows, by the schema of the version that a deployment serves.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_assets.files import digest_json, read_json
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.signature import MANIFEST
from resources.azure.blobs import Blobs, side_by_side
from resources.azure.clients import AzureClients, azure_errors
from resources.azure.collected import FOLDER, place_of, read_collected, version_of
from resources.captured import Captured, CapturedFile
from resources.endpoints.azureml_documents import OnlineDocuments
from resources.environment import Profile
from resources.registry import Registry, RegistryError

logger = logging.getLogger(__name__)


class CapturedByAzure(Captured):
    """What the collector keeps of the endpoints of a profile."""

    def __init__(
        self,
        clients: AzureClients,
        endpoint_of: Callable[[str, str], str],
        schema_of: Callable[[str, int], Schema | None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            clients: of the profile.
            endpoint_of: the endpoint's name on Azure by model and environment.
            schema_of: the schema by model and version; None for one that is gone.
        """
        self._clients = clients
        self._endpoint_of = endpoint_of
        self._schema_of = schema_of

    @classmethod
    def of(cls, clients: AzureClients, profile: Profile, registry: Registry) -> CapturedByAzure:
        """By a profile's documents and registry."""

        def endpoint_of(model: str, environment: str) -> str:
            return OnlineDocuments.of(profile, environment, model).endpoint_name

        def schema_of(model: str, version: int) -> Schema | None:
            try:
                bundle = registry.version(model, version).bundle
            except RegistryError:
                return None
            return Schema.from_manifest(read_json(bundle / MANIFEST))

        return cls(clients, endpoint_of, schema_of)

    def fetch(
        self, model: str, environment: str, files: Sequence[CapturedFile], folder: Path
    ) -> list[Path]:
        """See Captured.fetch: a Parquet file for each deployment; raises AzureError."""
        endpoint = self._endpoint_of(model, environment)
        raw = folder / FOLDER / endpoint

        def fetched(file: CapturedFile) -> bool:
            path = raw / file.name
            return path.is_file() or self._blobs.bring(f"{FOLDER}/{endpoint}/{file.name}", path)

        names: dict[str, list[str]] = {}
        for file, is_there in zip(files, side_by_side(fetched, files), strict=True):
            place = place_of(file.name)
            if is_there and place is not None:
                names.setdefault(place.deployment, []).append(file.name)
        found: list[Path] = []
        for deployment, own in names.items():
            version = version_of(deployment)
            schema = None if version is None else self._schema_of(model, version)
            if schema is None:
                logger.warning(
                    "%s/%s: serves no registered version; left out", endpoint, deployment
                )
                continue
            path = folder / "rows" / deployment / f"{digest_json(own)}.parquet"
            if not path.is_file():
                unread = read_collected(raw, own, deployment, schema, path)
                if unread:
                    text = "%s/%s: %d requests that were collected cannot be read"
                    logger.warning(text, endpoint, deployment, unread)
            found.append(path)
        return found

    def tidy(self, model: str, environment: str, keep_days: int, today: dt.date) -> int:
        """See Captured.tidy; raises AzureError."""
        prefix = f"{FOLDER}/{self._endpoint_of(model, environment)}/"
        old = [
            file.name
            for file in self._every(prefix)
            if (today - file.first.date()).days > keep_days
        ]
        for name in old:
            self._blobs.remove(f"{prefix}{name}")
        return len(old)

    def listed(self, model: str, environment: str, days: list[str]) -> Iterator[CapturedFile]:
        """See Captured.listed."""
        prefix = f"{FOLDER}/{self._endpoint_of(model, environment)}/"
        wanted = set(days)
        yield from (f for f in self._every(prefix) if f"{f.first:%Y-%m-%d}" in wanted)

    def _every(self, prefix: str) -> Iterator[CapturedFile]:
        for blob in self._blobs.listed(prefix):
            name = blob.name[len(prefix) :]
            place = place_of(name)
            if place is not None:
                yield CapturedFile(name, place.hour, blob.size)

    @cached_property
    def _blobs(self) -> Blobs:
        """The workspace's own store, which collectors write to."""
        name = self._clients.settings.workspace
        with azure_errors(f"workspace {name}: its default datastore"):
            store: Any = self._clients.workspace.datastores.get_default()
        return Blobs(self._clients.elsewhere(store.account_name, store.container_name))
