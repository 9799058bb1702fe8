"""Experiments: versions of branches, apart from those that are released."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

from mlops_assets.files import digest_file, read_json, to_json
from resources.artifacts import Artifacts
from resources.documents import Documents
from resources.registry import RegistryError, Version

#: Kind of their artifacts, and the folder of the documents about them.
EXPERIMENTS = "experiments"


class Experiments:
    """Kept beside the registry, so that no number of a release is used up.

    On Azure whoever uses the profile finds what a colleague or a pipeline has kept. What serves an
    environment, and what automation looks at, knows nothing of them.
    """

    def __init__(self, artifacts: Artifacts, documents: Documents) -> None:
        """Those of a profile.

        Args:
            artifacts: hold the bundles, under the digests of their manifests.
            documents: ``experiments/MODEL/NUMBER.json`` says which bundle is an experiment,
                ``experiments/MODEL/kept/NUMBER.json`` which branch kept which experiment.
        """
        self._artifacts, self._documents = artifacts, documents

    @classmethod
    def of(cls, resources: dict[str, Any]) -> Experiments:
        """With the resources of a profile."""
        return cls(resources["artifacts"], resources["documents"])

    def keep(self, model: str, bundle: Path, branch: str) -> Version:
        """Take a copy of a bundle in as a branch's newest; the same identity is the same one."""
        version = self._registered(model, bundle)
        time = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self._append(_kept(model), {"branch": branch, "version": version.version, "time": time})
        return version

    def newest(self, model: str, branch: str) -> Version:
        """The experiment that was kept last for a branch; RegistryError names the branches."""
        found = self.branches(model)
        if branch in found:
            return found[branch]
        known = ", ".join(found) or "none"
        raise RegistryError(
            f"no experiment of {model} on branch {branch}; make one: mlops experiment {model} "
            f"--branch {branch} --keep. Kept so far: {known}"
        )

    def branches(self, model: str) -> dict[str, Version]:
        """Branch -> its newest experiment, the branch used last at the end."""
        versions = self._versions(model)
        found: dict[str, Version] = {}
        for _, record in self._read(_kept(model)):
            found.pop(record["branch"], None)
            found[record["branch"]] = versions[int(record["version"])]
        return found

    def _registered(self, model: str, bundle: Path) -> Version:
        manifest = bundle / "manifest.json"
        identity, digest = str(read_json(manifest)["identity"]), digest_file(manifest)
        known = {entry["identity"]: number for number, entry in self._read(_folder(model))}
        if identity not in known:
            with self._artifacts.workspace() as scratch:
                shutil.copytree(bundle, scratch / "bundle")
                self._artifacts.publish(EXPERIMENTS, digest, scratch / "bundle")
            entry = {"identity": identity, "digest": digest}
            known[identity] = self._append(_folder(model), entry)
        return self._versions(model)[known[identity]]

    def _versions(self, model: str) -> dict[int, Version]:
        return {
            number: Version(model, number, entry["digest"], self._place(entry["digest"]))
            for number, entry in self._read(_folder(model))
        }

    def _place(self, digest: str) -> Any:
        return lambda: self._artifacts.path(EXPERIMENTS, digest)

    def _append(self, folder: str, content: dict[str, Any]) -> int:
        """Write the next document of a folder; returns its number."""
        number = len(self._documents.names(folder)) + 1
        while not self._documents.create(f"{folder}/{number:08}.json", to_json(content)):
            number += 1
        return number

    def _read(self, folder: str) -> list[tuple[int, dict[str, Any]]]:
        """The documents of a folder, oldest first, with their numbers."""
        contents = ((name, self._documents.read(name)) for name in self._documents.names(folder))
        return [(int(Path(name).stem), json.loads(text)) for name, text in contents if text]


def _folder(model: str) -> str:
    return f"{EXPERIMENTS}/{model}"


def _kept(model: str) -> str:
    return f"{_folder(model)}/kept"
