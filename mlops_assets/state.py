"""The state folder, made ready for what is started on it."""

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from mlops_assets.errors import UserError
from mlops_assets.files import create_exclusive, write_atomic
from resources.azure.settings import AzureSettings, filled_in
from resources.environment import Profile


class StateError(UserError):
    """The state folder cannot be used; the message says why."""


def ready(profile: Profile) -> Profile:
    """The same profile, its state folder made ready, and named to all that is started from here.

    Raises:
        StateError: it cannot be written.
        SpecError: an environment variable that the profile names is not set.
    """
    instance = profile.home / "dagster"
    if profile.azure is not None:
        os.environ.update(_log_variables(profile, profile.azure.resolved()))
    try:
        write_atomic(instance / "dagster.yaml", _instance_settings(profile))
        _make_databases(instance)
    except OSError as error:
        raise StateError(
            f"state folder {profile.home}: cannot be written ({error.strerror}); "
            "make room, or set MLOPS_HOME to another folder"
        ) from None
    os.environ["MLOPS_HOME"] = str(profile.home)
    os.environ["DAGSTER_HOME"] = str(instance)
    return profile


def _instance_settings(profile: Profile) -> str:
    """The dagster.yaml of every profile, and below it what this one adds."""
    own = profile.root / "environments" / profile.name / "dagster.yaml"
    parts = [profile.root / "dagster.yaml", *([own] if own.is_file() else [])]
    return "\n".join(path.read_text(encoding="utf-8") for path in parts)


def _log_variables(profile: Profile, azure: AzureSettings) -> dict[str, str]:
    """What ``environments/azure/dagster.yaml`` reads, for all processes that are started."""
    variable = azure.storage.account_key or azure.storage.sas
    return {
        "MLOPS_LOGS_ACCOUNT": azure.storage.account,
        "MLOPS_LOGS_CONTAINER": azure.storage.container,
        "MLOPS_LOGS_FOLDER": str(profile.home / "dagster" / "logs"),
        # Empty: whoever azure-identity finds out that this is.
        "MLOPS_LOGS_KEY": os.environ[variable] if variable else "",
    }


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
    """Copy samples/data into the profile's data storage; files already there stay as they are.

    Returns:
        Folder -> how many files were copied there.
    """
    source = profile.root / "samples" / "data"
    put, storage = _uploads(profile.azure) if profile.azure else _copies(profile.home / "storage")
    seeded: dict[str, int] = {}
    for path in sorted(source.glob("*/*.csv")):
        if put(path.relative_to(source).as_posix(), path):
            folder = f"{storage}/{path.parent.name}"
            seeded[folder] = seeded.get(folder, 0) + 1
    return seeded


#: Puts a file under a name below the storage, unless there is one; and where the storage is.
Put = tuple[Callable[[str, Path], bool], str]


def _copies(storage: Path) -> Put:
    return lambda name, path: create_exclusive(storage / name, path.read_bytes()), str(storage)


def _uploads(azure: AzureSettings) -> Put:
    from resources.azure.blobs import Blobs
    from resources.azure.clients import AzureClients

    blobs = Blobs(AzureClients(azure))
    folder = filled_in(azure.storage.data)
    return lambda name, path: blobs.upload(f"{folder}/{name}", path), blobs.place(folder)
