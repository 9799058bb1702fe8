"""The state folder, made ready for what is started on it."""

import os
from pathlib import Path

from filelock import FileLock

from mlops_assets.errors import UserError
from mlops_assets.files import write_atomic
from resources.environment import Profile


class StateError(UserError):
    """The state folder cannot be used; the message says why."""


def ready(profile: Profile) -> Profile:
    """The same profile, its state folder made ready, and named to all that is started from here.

    Raises:
        StateError: it cannot be written.
    """
    instance = profile.home / "dagster"
    try:
        write_atomic(instance / "dagster.yaml", (profile.root / "dagster.yaml").read_bytes())
        _make_databases(instance)
    except OSError as error:
        raise StateError(
            f"state folder {profile.home}: cannot be written ({error.strerror}); "
            "make room, or set MLOPS_HOME to another folder"
        ) from None
    os.environ["MLOPS_HOME"] = str(profile.home)
    os.environ["DAGSTER_HOME"] = str(instance)
    return profile


def _make_databases(instance: Path) -> None:
    """Let one process alone make Dagster's databases: two at once leave them unusable."""
    made = instance / "databases_made"
    with FileLock(instance / "databases.lock"):
        if made.exists():
            return
        from dagster import DagsterInstance  # slow to import, and needed once

        with DagsterInstance.from_config(str(instance)):
            write_atomic(made, "")


def seed(profile: Profile) -> dict[str, int]:
    """Copy samples/data into the local storage; files already there stay as they are.

    Returns:
        Model -> how many files were copied.
    """
    source, storage = profile.root / "samples" / "data", profile.home / "storage"
    seeded: dict[str, int] = {}
    for path in sorted(source.glob("*/*.csv")):
        target = storage / path.relative_to(source)
        if not target.exists():
            write_atomic(target, path.read_bytes())
            seeded[path.parent.name] = seeded.get(path.parent.name, 0) + 1
    return seeded
