"""Experiments: versions of branches, apart from those that are released."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from pathlib import Path

from resources.registry import LocalRegistry, RegistryError, Version

#: Kind of the records of which branch an experiment was kept for.
KEPT = "kept"


class Experiments:
    """A registry of its own in the state folder, so that no number of a release is used up.

    What serves an environment, and what automation looks at, knows nothing of it.
    """

    def __init__(self, home: Path) -> None:
        self._registry = LocalRegistry(root=str(home / "experiments"))

    def keep(self, model: str, bundle: Path, branch: str) -> Version:
        """Take a copy of a bundle in as a branch's newest experiment."""
        root = Path(self._registry.root)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".keep-") as scratch:
            shutil.copytree(bundle, Path(scratch) / "bundle")
            version = self._registry.register(model, Path(scratch) / "bundle")
        time = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        content = {"branch": branch, "version": version.version, "time": time}
        self._registry.record(model, KEPT, content)
        return version

    def newest(self, model: str, branch: str) -> Version:
        """The experiment that was kept last for a branch; RegistryError names the branches."""
        records = self._registry.records(model, KEPT)
        for record in reversed(records):
            if record["branch"] == branch:
                return self._registry.version(model, int(record["version"]))
        known = ", ".join(dict.fromkeys(r["branch"] for r in records)) or "none"
        raise RegistryError(
            f"no experiment of {model} on branch {branch}; make one: mlops experiment {model} "
            f"--branch {branch} --keep. Kept so far: {known}"
        )

    def branches(self, model: str) -> dict[str, Version]:
        """Branch -> its newest experiment, the branch used last at the end."""
        found: dict[str, Version] = {}
        for record in self._registry.records(model, KEPT):
            found.pop(record["branch"], None)
            found[record["branch"]] = self._registry.version(model, int(record["version"]))
        return found
