"""The artifact store: immutable things under names that say what they are."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock

from mlops_assets.files import remove_tree, sync_tree


class Artifacts(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Folders below one root, each published whole under a content or identity digest."""

    root: str

    def path(self, kind: str, name: str) -> Path:
        """Where an artifact of a kind lies, published or not."""
        return self._place(kind, name)

    def has(self, kind: str, name: str) -> bool:
        """Whether the artifact was published; half of one never is."""
        return self._place(kind, name).is_dir()

    @contextmanager
    def workspace(self) -> Generator[Path]:
        """A scratch folder on the store's own disk, removed afterwards.

        One that a killed run left behind is removed by the next: its lock is free.
        """
        scratch = Path(self.root) / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned(scratch)
        folder = scratch / secrets.token_hex(8)
        lock = Path(f"{folder}.lock")
        try:
            with FileLock(lock):
                folder.mkdir()
                try:
                    yield folder
                finally:
                    remove_tree(folder)
        finally:
            lock.unlink(missing_ok=True)

    def _remove_abandoned(self, scratch: Path) -> None:
        for path in scratch.glob("*.lock"):
            lock = FileLock(path, blocking=False)
            try:
                with lock:
                    remove_tree(path.with_suffix(""))
            except (TimeoutError, OSError):
                continue  # in use, or just removed by its owner
            path.unlink(missing_ok=True)

    @contextmanager
    def lock(self, kind: str, name: str) -> Generator[None]:
        """Hold the right to make one artifact; it ends with the process that holds it."""
        path = Path(self.root) / "locks" / f"{kind}-{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield

    def publish(self, kind: str, name: str, folder: Path) -> Path:
        """Move a finished folder of a workspace to its name; an artifact already there stays."""
        target = self._place(kind, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        sync_tree(folder)
        try:
            os.rename(folder, target)  # noqa: PTH104  (fails where the name holds something)
        except OSError:
            if not target.is_dir():
                raise
        return target

    def _place(self, kind: str, name: str) -> Path:
        return Path(self.root) / kind / name
