"""The blobs of one endpoint that is a container group: what it is to serve, its keys, what it says.

``endpoints/<environment>/<model>/generation.json`` is the truth. It is written on the condition
that it is still the one that was read, so of two who write at once one is told.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlops_assets.files import digest_bytes
from mlops_assets.packaging.archive import write_archive
from mlops_assets.scoring.follow import InstanceAck
from mlops_assets.scoring.generation import ACKS, GENERATION, Generation, GenerationError
from mlops_assets.scoring.keys import KEYS, Role, new_key
from mlops_assets.scoring.signature import Signed
from resources.azure.blobs import Blobs
from resources.azure.clients import AzureClients, AzureError
from resources.endpoints.base import EndpointError, VersionRef

BUNDLES = "endpoints/bundles"
#: Tries to write keys that somebody else writes too.
_TRIES = 5


class EndpointBlobs:
    """Reads and writes them."""

    def __init__(self, clients: AzureClients, model: str, environment: str) -> None:
        """Nothing is asked yet."""
        self.name = f"{model}/{environment}"
        self.folder = f"endpoints/{environment}/{model}"
        self._blobs = Blobs(clients)
        self._settings = clients.settings.storage

    # -- the wanted state

    def read(self) -> Generation:
        """The wanted state; raises EndpointError."""
        return self._read()[0]

    def change(self, change: Callable[[Generation], Generation]) -> Generation:
        """Write what ``change`` makes of the wanted state; nothing, if that is the same.

        Raises:
            EndpointError: somebody else has written meanwhile.
        """
        before, mark = self._read()
        after = change(before)
        if after == before:
            return before
        content = after.to_json().encode()
        if not self._write(GENERATION, content, mark):
            raise EndpointError(
                f"{self.name}: another deployment has changed {self._place(GENERATION)} at the "
                "same time; nothing was changed here: start again"
            )
        return after

    def _read(self) -> tuple[Generation, str | None]:
        data, mark = self._found(GENERATION)
        if data is None:
            return Generation(), None
        try:
            mend = "remove the blob, the next deployment writes it anew"
            return Generation.from_json(data, self._place(GENERATION), mend), mark
        except GenerationError as error:
            raise EndpointError(str(error)) from None

    # -- what is served

    def stored(self, version: VersionRef) -> tuple[str, Signed | None]:
        """Names of the blobs with a version's archive and signature, made where they are missing.

        Raises:
            EndpointError: it must be signed, and is not.
        """
        name = f"{BUNDLES}/{version.digest}.zip"
        with endpoint_errors():
            if not self._blobs.exists(name):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, "archive")
                    write_archive(version, path)
                    self._blobs.upload(name, path)
            return name, self._signed(version)

    def remove_archive(self, version: VersionRef) -> None:
        """Remove a version's archive: what lies there is not what its digest says."""
        with endpoint_errors():
            self._blobs.remove(f"{BUNDLES}/{version.digest}.zip")

    def _signed(self, version: VersionRef) -> Signed | None:
        if version.signed is None:
            return None
        path = Path(version.signed.signature)
        try:
            signature = path.read_bytes()
        except OSError as error:
            raise EndpointError(
                f"{path}: {error.strerror}: the version is not signed; `mlops sign` does it"
            ) from None
        name = f"{BUNDLES}/{version.digest}-{digest_bytes(signature)[:12]}.sig"
        self._blobs.create(name, signature)
        return Signed(name, version.signed.public_key)

    # -- the keys

    def key(self) -> str:
        """The primary key; raises EndpointError if there is none."""
        data, _ = self._found(KEYS)
        keys = (data or b"").split()
        if not keys:
            raise EndpointError(f"{self._place(KEYS)}: no key; deploy to this endpoint first")
        return keys[0].decode()

    def ensure_keys(self) -> None:
        """Make two keys if there are none."""
        data, _ = self._found(KEYS)
        if not (data or b"").split():
            with endpoint_errors():
                content = b"".join(new_key() + b"\n" for _ in range(2))
                if data is None:
                    self._blobs.create(f"{self.folder}/{KEYS}", content)
                else:
                    self._blobs.write(f"{self.folder}/{KEYS}", content)

    def rotate(self, role: Role) -> str:
        """Make a new key in the place of one; returns the mark of what is in force then."""
        for _ in range(_TRIES):
            data, mark = self._found(KEYS)
            if not (data or b"").split():
                raise EndpointError(f"{self._place(KEYS)}: no key; deploy to this endpoint first")
            primary, *others = (data or b"").split()
            secondary = others[0] if others else new_key()
            kept = [new_key(), secondary] if role == "primary" else [primary, new_key()]
            found = self._write(KEYS, b"".join(key + b"\n" for key in kept), mark)
            if found:
                return found
        raise EndpointError(f"{self._place(KEYS)}: others change it all the time; try again")

    def key_command(self, role: Role = "primary") -> str:
        """A command that prints a key, and nothing else."""
        line = "head -1" if role == "primary" else "sed -n 2p"
        return (
            f"az storage blob download --auth-mode login --account-name {self._settings.account} "
            f"--container-name {self._settings.container} --name {self.folder}/{KEYS} "
            f"--no-progress --output none | {line}"
        )

    # -- what servers say

    def ack(self, instance: str) -> InstanceAck | None:
        """What a server has said last."""
        data, _ = self._found(f"{ACKS}/{instance}.json")
        if data is None:
            return None
        try:
            return InstanceAck(**json.loads(data))
        except (ValueError, TypeError):
            return None  # of another version of the server: it will say nothing that we know

    def forget(self, but: str) -> None:
        """Remove what servers have said that are there no more."""
        with endpoint_errors():
            for name in self._blobs.names(f"{self.folder}/{ACKS}"):
                if name != f"{self.folder}/{ACKS}/{but}.json":
                    self._blobs.remove(name)

    # -- blobs

    def _place(self, name: str) -> str:
        return self._blobs.place(f"{self.folder}/{name}")

    def _found(self, name: str) -> tuple[bytes | None, str | None]:
        """Content and mark of a blob, of the same moment."""
        from azure.core.exceptions import ResourceNotFoundError

        path = f"{self.folder}/{name}"
        with endpoint_errors(), self._blobs.errors(path):
            try:
                found = self._blobs.client(path).download_blob()
                return found.readall(), found.properties.etag
            except ResourceNotFoundError:
                return None, None

    def _write(self, name: str, content: bytes, mark: str | None) -> str | None:
        """Write a blob that is still the one of that mark; None, and nothing done, if it is not.

        Returns:
            The new mark.
        """
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        given: dict[str, Any] = {"overwrite": False}
        if mark is not None:
            given = {
                "overwrite": True, "etag": mark, "match_condition": MatchConditions.IfNotModified,
            }  # fmt: skip
        path = f"{self.folder}/{name}"
        with endpoint_errors(), self._blobs.errors(path):
            try:
                return self._blobs.client(path).upload_blob(content, **given)["etag"]
            except (ResourceExistsError, ResourceModifiedError):
                pass
        # The client sends again when no answer comes: it may be our own that is there.
        data, now = self._found(name)
        return now if data == content else None


@contextmanager
def endpoint_errors() -> Generator[None]:
    """Raise as EndpointError what Azure does not do."""
    try:
        yield
    except AzureError as error:
        raise EndpointError(str(error)) from None
