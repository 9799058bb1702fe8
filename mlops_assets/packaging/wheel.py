"""A version as a wheel: ``from diabetes_model import predict``.

The same version, built by the same platform, gives the same bytes: the only time in it is the
commit's.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.errors import UserError
from mlops_assets.files import to_json
from mlops_assets.packaging.sources import write_interface, write_runtime
from mlops_assets.scoring.predictor import MANIFEST, MODELS, SAMPLE
from resources.registry import Version

CARD, SCHEMA, REQUIREMENTS = "MODEL_CARD.md", "schema.json", "requirements.txt"
#: The server that ``python -m ... serve`` starts needs these as well.
SERVE = ("msgspec", "prometheus-client", "psutil", "uvicorn[standard]")
#: The oldest numpy that what scores was tried with.
NUMPY = "numpy>=2.0"
BUILD = "import sys, hatchling.build; hatchling.build.build_wheel(sys.argv[1])"
TIMEOUT_SECONDS = 300

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "{version}"
description = "Version {number} of the model {model}, to embed in an application"
readme = "MODEL_CARD.md"
requires-python = "{python}"
# An index of its own takes it; the public one refuses it.
classifiers = ["Private :: Do Not Upload", "Typing :: Typed"]
dependencies = {dependencies}

[project.optional-dependencies]
serve = {serve}

[tool.hatch.build]
# Where this folder lies is no reason to leave anything out.
ignore-vcs = true

[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


class WheelError(UserError):
    """The wheel cannot be built; the message is the back end's."""


@dataclass(frozen=True)
class Wheel:
    """What a wheel is called, and what it is of."""

    version: Version
    #: Counts the wheels of one version: the platform's code in it changes, the model does not.
    revision: int

    @property
    def distribution(self) -> str:
        """Its name in an index."""
        return self.version.model.replace("_", "-") + "-model"

    @property
    def package(self) -> str:
        """The name that it is imported by."""
        return f"{self.version.model}_model"

    @property
    def number(self) -> str:
        """``7.0.0`` for version 7."""
        return f"{self.version.version}.0.{self.revision}"

    @property
    def file(self) -> str:
        """The wheel's file name."""
        return f"{self.package}-{self.number}-py3-none-any.whl"

    def build(self, schema: dict[str, Any], scratch: Path, target: Path) -> Path:
        """Build the wheel; nothing is fetched for it.

        Args:
            schema: content of its ``schema.json``.
            scratch: an empty folder for the project that it is built from.
            target: folder of the wheel.

        Raises:
            WheelError: the back end refuses the project.
        """
        self._write_project(schema, scratch)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("HATCH_", "DAGSTER_"))}
        moment = dt.datetime.fromisoformat(self.version.manifest.source.time)
        done = subprocess.run(
            [sys.executable, "-P", "-c", BUILD, str(target)],
            cwd=scratch,
            env={**kept, "SOURCE_DATE_EPOCH": str(int(moment.timestamp()))},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise WheelError(f"{self.file} cannot be built: {_raised(done.stderr)}")
        return target / self.file

    def _write_project(self, schema: dict[str, Any], folder: Path) -> None:
        package = folder / self.package
        bundle = package / "bundle"
        bundle.mkdir(parents=True)
        write_runtime(package)
        write_interface(package, schema, self.distribution, self.number)
        # What is loaded to predict and to serve, and the card; the rest stays in the registry.
        model = MODELS[self.version.manifest.serving.format]
        for name in (MANIFEST, model, SAMPLE, CARD):
            shutil.copyfile(self.version.bundle / name, bundle / name)
        (bundle / SCHEMA).write_text(to_json(schema), "utf-8")
        shutil.copyfile(bundle / CARD, folder / CARD)
        project = _PYPROJECT.format(
            distribution=self.distribution,
            version=self.number,
            number=self.version.version,
            model=self.version.model,
            package=self.package,
            python=_python(self.version),
            dependencies=json.dumps(dependencies(self.version)),
            serve=json.dumps(_serve()),
        )
        (folder / "pyproject.toml").write_text(project, "utf-8")


def dependencies(version: Version) -> list[str]:
    """What the wheel needs to predict.

    ONNX is read by every later runtime, and was compared with the estimator under the one that is
    named. A pickle is for the very packages that it was written with.
    """
    if version.manifest.serving.format == "onnx":
        return [NUMPY, f"onnxruntime>={version.manifest.packages['onnxruntime']}"]
    return (version.bundle / REQUIREMENTS).read_text("utf-8").split()


def _serve() -> list[str]:
    """What serving needs, in the releases that the platform itself serves with, or later ones."""
    return [f"{name}>={importlib.metadata.version(name.partition('[')[0])}" for name in SERVE]


def _python(version: Version) -> str:
    if version.manifest.serving.format == "onnx":
        return ">=3.11"
    # Functions of the model's own lie in the pickle as byte code, which each Python has its own of.
    return f"=={'.'.join(version.manifest.python.split('.')[:2])}.*"


def _raised(stderr: str) -> str:
    """The exception below a traceback, in one line."""
    lines = stderr.splitlines()
    begins = [number for number, line in enumerate(lines) if line and not line.startswith(" ")]
    return " ".join(line.strip() for line in lines[begins[-1] :]) if begins else "no message"
