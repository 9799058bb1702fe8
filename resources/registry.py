"""The registry: immutable versions of a model, and append-only records about them."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import FileLock

from mlops_assets.errors import UserError
from mlops_assets.evidence import Evidence, Manifest
from mlops_assets.files import (
    create_exclusive,
    digest_file,
    files_below,
    read_json,
    sync_tree,
    to_json,
    write_atomic,
)


class RegistryError(UserError):
    """A version that is not there or not readable; the message names it and what there is."""


@dataclass(frozen=True)
class Version:
    """One registered version: an immutable folder."""

    model: str
    version: int
    #: SHA-256 of manifest.json as it was registered.
    digest: str
    #: Where its folder lies, or what fetches it from where it lies.
    place: Path | Callable[[], Path] = field(compare=False)

    @cached_property
    def bundle(self) -> Path:
        """Its folder on this machine; fetched when it is first asked for."""
        return self.place if isinstance(self.place, Path) else self.place()

    @property
    def manifest(self) -> Manifest:
        """The parsed ``manifest.json``."""
        return Manifest.model_validate_json((self.bundle / "manifest.json").read_bytes())

    @property
    def evidence(self) -> Evidence:
        """The parsed ``evidence.json``."""
        return Evidence.model_validate_json((self.bundle / "evidence.json").read_bytes())

    def mismatched(self) -> list[str]:
        """Files that are not, byte for byte, what was registered; missing and extra ones too."""
        manifest_path = self.bundle / "manifest.json"
        if not manifest_path.is_file() or digest_file(manifest_path) != self.digest:
            return ["manifest.json"]
        declared = read_json(manifest_path)["files"]
        found = {p.relative_to(self.bundle).as_posix(): p for p in files_below(self.bundle)}
        found.pop("manifest.json")
        names = sorted(declared.keys() | found.keys())
        return [
            name
            for name in names
            if name not in found or digest_file(found[name]) != declared.get(name)
        ]


class Registry(dg.ConfigurableResource, ABC):  # pyright: ignore[reportMissingTypeArgument]
    """Versions 1, 2, 3 … of each model, and what happened to them."""

    @abstractmethod
    def register(self, model: str, bundle: Path) -> Version:
        """Take a finished bundle in as the next version; the same identity again is the same one.

        Args:
            model: the model's name.
            bundle: a folder with manifest.json, on the disk of the state folder; it may be moved.
        """

    @abstractmethod
    def find(self, model: str, identity: str) -> Version | None:
        """The version of an identity, if it was registered."""

    @abstractmethod
    def version(self, model: str, number: int) -> Version:
        """A version by its number; RegistryError names the ones there are."""

    @abstractmethod
    def versions(self, model: str) -> list[Version]:
        """All versions of a model, oldest first."""

    @abstractmethod
    def signature(self, model: str, number: int) -> Path:
        """Where a version's signature lies on this machine; no such file if it was not signed."""

    @abstractmethod
    def keep_signature(self, model: str, number: int, signature: bytes) -> str:
        """Keep a version's signature, in place of one before; returns where, for people."""

    @abstractmethod
    def record(self, model: str, kind: str, content: dict[str, Any]) -> int:
        """Append a record of a kind; returns its number, which only ever grows."""

    @abstractmethod
    def records(self, model: str, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, oldest first, each with its ``number``."""

    @abstractmethod
    def lock(self, model: str) -> AbstractContextManager[Any]:
        """Context manager: what is read inside cannot be changed by another run."""


def no_such_version(model: str, number: int, versions: Iterable[Version]) -> RegistryError:
    """The error of a number that nothing has; it names those that there are."""
    numbers = ", ".join(str(version.version) for version in versions) or "none"
    return RegistryError(f"model {model} has no version {number}; registered: {numbers}")


class LocalRegistry(Registry):
    """A folder per model: ``versions/1``, ``versions/2`` … and ``records/<kind>/``."""

    root: str

    def register(self, model: str, bundle: Path) -> Version:
        """See Registry.register. The rename is the moment at which the version exists."""
        with self.lock(model):
            identity = str(read_json(bundle / "manifest.json")["identity"])
            known = self.find(model, identity)
            if known:
                return known
            digest = digest_file(bundle / "manifest.json")
            versions = self.versions(model)
            number = versions[-1].version + 1 if versions else 1
            target = self._folder(model) / "versions" / str(number)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Outside the folder, and before it exists: changing both unseen takes two writes,
            # and a number without its folder is no version.
            digests = self._folder(model) / "digests" / str(number)
            digests.unlink(missing_ok=True)
            create_exclusive(digests, digest)
            sync_tree(bundle)
            os.rename(bundle, target)  # noqa: PTH104  (fails where the name is taken)
            return Version(model, number, digest, target)

    def find(self, model: str, identity: str) -> Version | None:
        """See Registry.find."""
        for version in reversed(self.versions(model)):
            try:
                found = read_json(version.bundle / "manifest.json")["identity"]
            except (OSError, ValueError, KeyError):
                continue  # damaged: the integrity gate reports it when it is asked for
            if found == identity:
                return version
        return None

    def version(self, model: str, number: int) -> Version:
        """See Registry.version."""
        for version in self.versions(model):
            if version.version == number:
                return version
        raise no_such_version(model, number, self.versions(model))

    def versions(self, model: str) -> list[Version]:
        """See Registry.versions."""
        folder = self._folder(model) / "versions"
        numbers = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
        return [
            Version(model, number, self._digest(model, number), folder / str(number))
            for number in numbers
        ]

    def signature(self, model: str, number: int) -> Path:
        """See Registry.signature. It lies outside the version's immutable folder."""
        return self._folder(model) / "signatures" / f"{number}.sig"

    def keep_signature(self, model: str, number: int, signature: bytes) -> str:
        """See Registry.keep_signature."""
        path = self.signature(model, number)
        write_atomic(path, signature)
        return str(path)

    def record(self, model: str, kind: str, content: dict[str, Any]) -> int:
        """See Registry.record."""
        folder = self._folder(model) / "records" / kind
        existing = sorted(folder.glob("[0-9]*.json"))
        number = int(existing[-1].stem) + 1 if existing else 1
        while not create_exclusive(folder / f"{number:08}.json", to_json(content)):
            number += 1
        return number

    def records(self, model: str, kind: str) -> list[dict[str, Any]]:
        """See Registry.records."""
        folder = self._folder(model) / "records" / kind
        return [
            {**json.loads(path.read_bytes()), "number": int(path.stem)}
            for path in sorted(folder.glob("[0-9]*.json"))
        ]

    @contextmanager
    def lock(self, model: str) -> Generator[None]:
        """See Registry.lock."""
        path = self._folder(model) / ".lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield

    def _folder(self, model: str) -> Path:
        return Path(self.root) / model

    def _digest(self, model: str, number: int) -> str:
        return (self._folder(model) / "digests" / str(number)).read_text(encoding="ascii")
