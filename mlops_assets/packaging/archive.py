"""A version's bundle as one file: what a container fetches by its URL."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

from mlops_assets.files import digest_bytes, digest_file, files_below, read_json
from resources.endpoints.base import VersionRef
from resources.registry import Version

#: The earliest date that a zip file can hold: the same version gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(version: Version | VersionRef, path: Path) -> None:
    """Zip a bundle, not deflated: the same version gives the same bytes on every machine."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in files_below(version.bundle):
            name = f"{_root(version)}/{file.relative_to(version.bundle).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes())


def differing_files(path: Path, version: Version) -> list[str]:
    """Unpack an archive elsewhere and name what is not as the registry's manifest says."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        root = Path(folder) / _root(version)
        manifest = (root / "manifest.json").read_bytes()
        if digest_bytes(manifest) != version.digest:
            return ["manifest.json"]
        files = read_json(root / "manifest.json")["files"]
        return [
            n for n, d in files.items() if not (root / n).is_file() or digest_file(root / n) != d
        ]


def _root(version: Version | VersionRef) -> str:
    return f"{version.model}-{version.version}"
