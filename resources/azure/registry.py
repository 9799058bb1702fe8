"""The registry of Azure ML, of a workspace or shared: versions there, records as blobs.

A version is an Azure ML model ``<model>:<number>`` of kind ``custom_model``; what it is told by
lies in its properties, which never change. Its files are uploaded before it is made: a version
that is there is whole. They are fetched when they are first needed, and checked against the digest
in the properties.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mlops_assets.files import digest_file, read_json, remove_tree, sync_tree, to_json, write_atomic
from resources.azure.blobs import side_by_side
from resources.azure.clients import AzureError, azure_errors
from resources.azure.leases import Lease, held
from resources.azure.on_azure import OnAzure
from resources.registry import Registry, Version, no_such_version

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model
    from azure.ai.ml.operations import ModelOperations

#: Properties of a model of Azure ML that is one of our versions.
IDENTITY, DIGEST = "mlops_identity", "mlops_digest"
#: Kind of the records whose environment becomes a tag; what asks for it is mlops_assets.judgement.
DEPLOYMENTS = "deployments"


class AzureMLRegistry(OnAzure, Registry):
    """Versions in Azure ML, records in blob storage, copies below ``root``."""

    root: str

    def register(self, model: str, bundle: Path) -> Version:
        """See Registry.register. The model in Azure ML is the moment at which the version exists.

        It comes from an upload of its own content under a name of its own: one that was cut short
        is never taken for another.
        """
        digest = digest_file(bundle / "manifest.json")
        manifest: dict[str, Any] = read_json(bundle / "manifest.json")
        with self.lock(model) as lease:
            found = list(self._models(model))
            for one in found:
                if manifest["identity"] == _property(one, IDENTITY) or digest == _property(
                    one, DIGEST
                ):
                    return self._version(model, one)
            numbers = [number for one in found if (number := _number(one)) is not None]
            folder = bundle.with_name(f"{bundle.name}.upload") / f"{model}-{digest[:16]}"
            folder.parent.mkdir()
            bundle.rename(folder)
            lease.check()
            made = self._make(model, max(numbers, default=0) + 1, folder, manifest, digest)
        return self._version(model, made)

    def _make(
        self, model: str, number: int, folder: Path, manifest: dict[str, Any], digest: str
    ) -> Model:
        from azure.ai.ml.constants import AssetTypes
        from azure.ai.ml.entities import Model

        described = {
            IDENTITY: str(manifest["identity"]),
            DIGEST: digest,
            "mlops_commit": str(manifest.get("source", {}).get("commit", "")),
            "mlops_snapshot": str(manifest.get("snapshot", {}).get("digest", "")),
        }
        policy: dict[str, Any] = manifest.get("policy", {})
        gates = {f"mlops_policy_{gate}": json.dumps(policy[gate]) for gate in policy}
        wanted = Model(
            name=model,
            version=str(number),
            path=str(folder),
            type=AssetTypes.CUSTOM_MODEL,
            description=f"{model} version {number}",
            # Azure ML's page searches by tags; properties are what nobody can change.
            tags=dict(described),
            properties=described | gates,
        )
        with self._errors(f"model {model} version {number}"):
            return self._client.create_or_update(wanted)

    def find(self, model: str, identity: str) -> Version | None:
        """See Registry.find. One listing, whose properties tell."""
        for found in self._ours(model):
            if _property(found, IDENTITY) == identity:
                return self._version(model, found)
        return None

    def version(self, model: str, number: int) -> Version:
        """See Registry.version."""
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors(f"model {model} version {number}"):
            try:
                found = self._client.get(model, str(number))
            except ResourceNotFoundError:
                found = None
        if found is None or not _property(found, DIGEST):
            raise no_such_version(model, number, self.versions(model))
        return self._version(model, found)

    def versions(self, model: str) -> list[Version]:
        """See Registry.versions. Nothing is fetched."""
        found = [self._version(model, one) for one in self._ours(model)]
        return sorted(found, key=lambda version: version.version)

    def signature(self, model: str, number: int) -> Path:
        """See Registry.signature: a copy of the blob."""
        copy = self._folder(model) / "signatures" / f"{number}.sig"
        content = self._blobs.read(_signature(model, number))
        if content is None:
            copy.unlink(missing_ok=True)
        else:
            write_atomic(copy, content)
        return copy

    def keep_signature(self, model: str, number: int, signature: bytes) -> str:
        """See Registry.keep_signature."""
        name = _signature(model, number)
        self._blobs.write(name, signature)
        return self._blobs.place(name)

    def record(self, model: str, kind: str, content: dict[str, Any]) -> int:
        """See Registry.record. Of a deployment, the version's tags in Azure ML say it too."""
        if kind == DEPLOYMENTS:
            self._tag(model, content)
        folder = _records(model, kind)
        existing = self._blobs.names(folder)
        number = int(Path(existing[-1]).stem) + 1 if existing else 1
        while not self._blobs.create(f"{folder}/{number:08}.json", to_json(content).encode()):
            number += 1
        return number

    def records(self, model: str, kind: str) -> list[dict[str, Any]]:
        """See Registry.records. What was read once is not read again: records never change."""
        listed = self._blobs.listed(f"{_records(model, kind)}/")
        missing = [blob for blob in listed if (blob.name, blob.etag) not in self._read]
        contents = side_by_side(self._blobs.read, [blob.name for blob in missing])
        for blob, content in zip(missing, contents, strict=True):
            self._read[blob.name, blob.etag] = content or b"{}"
        return [
            {**json.loads(self._read[blob.name, blob.etag]), "number": int(Path(blob.name).stem)}
            for blob in listed
        ]

    def lock(self, model: str) -> AbstractContextManager[Lease]:
        """See Registry.lock: a blob's lease."""
        return held(self._clients, f"registry-{model}", f"the registry of {model}")

    # -- versions

    def _models(self, model: str) -> Iterator[Model]:
        """All that Azure ML has under the name, archived or not."""
        from azure.ai.ml.constants import ListViewType
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors(f"versions of {model}"):
            try:
                yield from list(self._client.list(model, list_view_type=ListViewType.ALL))
            except ResourceNotFoundError:  # no version yet
                return

    def _ours(self, model: str) -> Iterator[Model]:
        return (m for m in self._models(model) if _number(m) is not None and _property(m, DIGEST))

    def _version(self, model: str, found: Model) -> Version:
        number, digest = int(str(found.version)), _property(found, DIGEST)
        return Version(model, number, digest, partial(self._fetched, model, number, digest))

    def _fetched(self, model: str, number: int, digest: str) -> Path:
        """A version's folder on this machine, every file as it was registered.

        Raises:
            AzureError: Azure ML does not give it, or has something else.
        """
        place = self._folder(model) / "versions" / str(number)
        scratch = place.with_name(f".{number}")
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{number}.lock")):
            if place.is_dir() and not Version(model, number, digest, place).mismatched():
                return place
            remove_tree(scratch)  # of one that was killed
            with self._errors(f"files of model {model} version {number}"):
                self._client.download(model, str(number), download_path=str(scratch))
            manifests = sorted(scratch.rglob("manifest.json"), key=lambda path: len(path.parts))
            found = manifests[0].parent if manifests else scratch
            wrong = Version(model, number, digest, found).mismatched()
            if wrong:
                remove_tree(scratch)
                raise AzureError(
                    f"model {model} version {number}: what Azure ML has is not what was "
                    f"registered: {', '.join(wrong)}; archive it there and release the model again"
                )
            sync_tree(found)
            remove_tree(place)
            found.rename(place)
            remove_tree(scratch)
        return place

    def _tag(self, model: str, deployment: dict[str, Any]) -> None:
        """Say on a version where it serves, for who looks at it in Azure ML."""
        number = str(deployment["version"])
        with self._errors(f"tags of model {model} version {number}"):
            found = self._client.get(model, number)
            since = str(deployment["ended"])
            found.tags = {**(found.tags or {}), f"deployed_{deployment['environment']}": since}
            self._client.create_or_update(found)

    @property
    def _client(self) -> ModelOperations:
        return self._clients.registry.models

    def _errors(self, what: str) -> AbstractContextManager[None]:
        settings = self._clients.settings
        where = settings.registry or settings.workspace
        return azure_errors(f"Azure ML {where}: {what}")

    def _folder(self, model: str) -> Path:
        return Path(self.root) / model

    @cached_property
    def _read(self) -> dict[tuple[str, str], bytes]:
        """Records by name and etag."""
        return {}


def _records(model: str, kind: str) -> str:
    return f"registry/{model}/records/{kind}"


def _signature(model: str, number: int) -> str:
    return f"registry/{model}/signatures/{number}.sig"


def _property(model: Model, name: str) -> str:
    return str((model.properties or {}).get(name) or "")


def _number(model: Model) -> int | None:
    """A version's number; other tools may have registered versions of other names."""
    return int(model.version) if model.version and model.version.isdecimal() else None
