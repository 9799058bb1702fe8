"""The Dockerfile, read, and followed on this machine where no builder of images is at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from resources.environment import checkout


@dataclass
class Stage:
    """What stands between two FROM lines."""

    base: str
    #: (instruction, its arguments), in order.
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every instruction of that name."""
        return [arguments for name, arguments in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        """The arguments of the only instruction of that name."""
        (arguments,) = self.all(instruction)
        return arguments

    def command(self, instruction: str) -> list[str]:
        """A command in the form of a JSON list: no shell stands before it."""
        found = self.one(instruction)
        return json.loads(found[found.index("[") :])

    def variables(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = [pair.split("=", 1) for line in self.all("ENV") for pair in line.split()]
        return dict(pairs)


def read(path: Path | None = None) -> list[Stage]:
    """The stages of a Dockerfile; before the first FROM stands a stage without a base."""
    text = (path or checkout() / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    stages = [Stage("")]
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip():
            continue
        instruction, arguments = line.split(None, 1)
        if instruction == "FROM":
            stages.append(Stage(arguments))
        else:
            stages[-1].steps.append((instruction, arguments))
    return stages


def follow(stage: Stage, root: Path, **arguments: str) -> None:
    """Do what a stage says below ``root``: copy its files, run its commands.

    ``python`` is a copy of the interpreter that this one's environment was made from, for the
    user of the image may not reach that one.
    """
    base = root / "base"
    _copy_python(base)
    given: dict[str, str] = {}
    for name, value in stage.steps:
        if name == "ARG":
            argument, _, default = value.partition("=")
            given[argument] = arguments.get(argument, default)
        elif name == "COPY":
            *sources, target = value.split()
            for source in sources:
                _copy(checkout() / source, _below(root, target))
        elif name == "RUN":
            here = re.sub(r"(/opt/mlops|/locks)", lambda m: f"{root}{m[0]}", value)
            path = f"{base / 'bin'}:{os.environ['PATH']}"
            kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "COV_"))}
            subprocess.run(
                ["sh", "-e", "-c", here],
                check=True,
                env={**kept, **given, "PATH": path, **libraries(root)},
                cwd=root,
            )
        else:
            raise AssertionError(f"{name}: not followed here")


def libraries(root: Path) -> dict[str, str]:
    """The variable with which the copied interpreter finds its own library."""
    return {"LD_LIBRARY_PATH": f"{root}/base/lib"}


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file out of the build."""
    found = False
    for line in (checkout() / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!")).replace(r"\*", "[^/]*")
            if re.match(rf"{pattern}(/|$)", path):
                found = not line.startswith("!")
    return found


def _copy_python(to: Path) -> None:
    """An interpreter with the standard library and pip."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(sys.base_prefix)
    for folder in ("bin", "lib"):
        (to / folder).mkdir(parents=True)
    shutil.copy(own / "bin" / version, to / "bin" / "python")
    for library in own.glob("lib/libpython*"):
        shutil.copy(library, to / "lib" / library.name)

    def left_out(folder: str, names: list[str]) -> set[str]:
        if Path(folder).name == "site-packages":
            return {name for name in names if not name.startswith("pip")}
        return {"test", "idlelib", "tkinter"} & set(names)

    shutil.copytree(own / "lib" / version, to / "lib" / version, ignore=left_out)


def _below(root: Path, path: str) -> str:
    return f"{root}{path}"


def _copy(source: Path, target: str) -> None:
    to = Path(target)
    to.mkdir(parents=True, exist_ok=True)
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        if path.is_file() and not ignored(path.relative_to(checkout()).as_posix()):
            place = to / (path.name if source.is_file() else path.relative_to(source))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
