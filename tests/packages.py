"""Registered versions that can be packaged: small bundles with all that a real one tells."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from mlops_assets.files import digest_bytes, digest_file, to_json
from mlops_assets.packaging.schema import describe
from mlops_assets.packaging.wheel import Wheel
from mlops_assets.release import installed_packages
from resources.endpoints.base import VersionRef
from resources.registry import Version
from tests.test_gates import MANIFEST

#: Of the pickles in tests.bundles.
REQUIREMENTS = ("cloudpickle", "numpy", "pandas", "scikit-learn")


def registered(made: VersionRef, **changes: Any) -> Version:
    """A small bundle as the registry would give it, with ``changes`` of its manifest."""
    packages = installed_packages()
    lines = [f"{name}=={packages[name]}\n" for name in REQUIREMENTS]
    (made.bundle / "requirements.txt").write_text("".join(lines))
    (made.bundle / "MODEL_CARD.md").write_text("# tiny\n\nFor tests; “quoted”.\n", "utf-8")
    path = made.bundle / "manifest.json"
    files = {p.name: digest_file(p) for p in made.bundle.iterdir() if p != path}
    own = {**json.loads(path.read_text()), "files": files, "packages": packages}
    text = to_json({**MANIFEST, **own, **changes})
    path.write_text(text)
    return Version("tiny", made.version, digest_bytes(text.encode()), made.bundle)


def built(version: Version, folder: Path, revision: int = 0) -> Path:
    """The version's wheel, in a folder that is not there yet."""
    folder.mkdir(parents=True)
    wheel = Wheel(version, revision)
    return wheel.build(describe(version), folder / "project", folder)


def members(wheel: Path) -> dict[str, bytes]:
    """Name -> content of everything in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
