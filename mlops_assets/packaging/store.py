"""The packages that were made: folders in the artifact store, records in the registry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.errors import UserError
from mlops_assets.files import digest_file, digest_json, files_below, to_json, write_atomic
from mlops_assets.packaging.archive import write_archive
from mlops_assets.packaging.schema import describe
from mlops_assets.packaging.trial import Trial
from mlops_assets.packaging.wheel import Wheel
from mlops_assets.scoring.predictor import ONNX, SAMPLE
from resources.artifacts import Artifacts
from resources.registry import Registry, Version

#: Kind of the artifacts, and of the registry's records.
PACKAGES = "packages"


class PackageError(UserError):
    """There is no such package, or it was changed; the message says what to do."""


@dataclass(frozen=True)
class Made:
    """One package."""

    wheel: Wheel
    folder: Path
    #: Name of a file -> its SHA-256.
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """Of all its files."""
        return digest_json(self.files)

    def path(self, ending: str) -> Path:
        """The file with an ending such as ``.whl``."""
        (name,) = [name for name in self.files if name.endswith(ending)]
        return self.folder / name


def make(version: Version, artifacts: Artifacts, registry: Registry) -> Made:
    """Build a version's package, and publish it if the same was not made before.

    What a platform of another release makes out of the same version is its next revision.
    """
    last = _last(registry, version)
    revision = last["revision"] if last else 0
    with artifacts.workspace() as scratch:
        made = _build(Wheel(version, revision), scratch / "first")
        if last and made.files != last["files"]:
            made = _build(Wheel(version, revision + 1), scratch / "second")
        folder = artifacts.publish(PACKAGES, _name(made.wheel, made.files), made.folder)
    return Made(made.wheel, folder, made.files)


def tried(made: Made, registry: Registry, bodies: Sequence[Any]) -> Trial | None:
    """What came of these very files and requests before, where all was well."""
    last = _last(registry, made.wheel.version)
    if last is None or last["files"] != made.files or last["requests"] != digest_json(bodies):
        return None
    return Trial("same", last["reason"]) if last["outcome"] == "same" else None


def record(made: Made, registry: Registry, bodies: Sequence[Any], trial: Trial, run: str) -> None:
    """Put a package, and what came of trying it, on record."""
    version = made.wheel.version
    content = {
        "version": version.version,
        "digest": version.digest,
        "revision": made.wheel.revision,
        "files": made.files,
        "requests": digest_json(bodies),
        "outcome": trial.outcome,
        "reason": trial.reason,
        "run": run,
    }
    registry.record(version.model, PACKAGES, content)


def hand_out(
    artifacts: Artifacts, registry: Registry, model: str, number: int | None, target: Path
) -> tuple[list[Path], Trial]:
    """Copy the files of a package to a folder; returns the copies, and what came of trying it.

    Args:
        artifacts: where packages lie.
        registry: knows them.
        model: whose package.
        number: of the version; the one packaged last by default.
        target: the folder; made if it is not there.

    Raises:
        PackageError: no package, one that answered otherwise than its endpoint, a changed file.
    """
    records = registry.records(model, PACKAGES)
    wanted = [r for r in records if number in (None, r["version"])]
    if not wanted:
        asked = "no version" if number is None else f"version {number}"
        known = ", ".join(map(str, sorted({r["version"] for r in records}))) or "none"
        raise PackageError(
            f"{model}: {asked} is packaged; materialize {model}/package; packaged: {known}"
        )
    found = wanted[-1]
    version = registry.version(model, found["version"])
    trial = Trial(found["outcome"], found["reason"])
    if trial.outcome == "different":
        raise PackageError(f"{model} version {version.version}: its wheel is wrong: {trial.reason}")
    folder = artifacts.path(PACKAGES, _name(Wheel(version, found["revision"]), found["files"]))
    wrong = changed(folder, found["files"])
    if wrong:
        raise PackageError(
            f"{folder}: changed or missing: {', '.join(wrong)}; remove the folder, and "
            f"materialize {model}/package"
        )
    target.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(folder / name, target / name)) for name in found["files"]], trial


def changed(folder: Path, files: dict[str, str]) -> list[str]:
    """Names of a package's files that are missing, or not as they were built."""
    return [
        name
        for name, digest in files.items()
        if not (folder / name).is_file() or digest_file(folder / name) != digest
    ]


def _build(wheel: Wheel, scratch: Path) -> Made:
    version, folder = wheel.version, scratch / "package"
    folder.mkdir(parents=True)
    schema = describe(version)
    wheel.build(schema, scratch / "project", folder)
    name = f"{version.model}-{version.version}"
    if schema["onnx"] is not None:
        shutil.copyfile(version.bundle / ONNX, folder / f"{name}.onnx")
        shutil.copyfile(version.bundle / SAMPLE, folder / f"{name}.sample.json")
        write_atomic(folder / f"{name}.schema.json", to_json(schema))
    write_archive(version, folder / f"{name}.zip")
    return Made(wheel, folder, {path.name: digest_file(path) for path in files_below(folder)})


def _name(wheel: Wheel, files: dict[str, str]) -> str:
    return f"{wheel.version.model}-{wheel.number}-{digest_json(files)[:12]}"


def _last(registry: Registry, version: Version) -> dict[str, Any] | None:
    records: Sequence[dict[str, Any]] = registry.records(version.model, PACKAGES)
    return next((r for r in reversed(records) if r["digest"] == version.digest), None)
