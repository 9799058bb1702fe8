"""A virtual environment that holds one wheel and what it depends on, and nothing else.

What it depends on is taken from the platform's own packages, as links, where these are of a
version that will do: that takes a fraction of a second and no network. pip then installs the
wheel, and fetches what is still missing.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterable
from email.parser import BytesParser
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

#: A fetch that takes longer has no network worth the name.
TIMEOUT_SECONDS = 300
#: pip's own; it would try for minutes.
NETWORK = ("--retries", "1", "--timeout", "10")


class InstallError(Exception):
    """The wheel could not be installed; the message is pip's."""


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment of a wheel's own.

    Args:
        wheel: the wheel.
        folder: where the environment comes to lie; absent.

    Returns:
        The environment's interpreter.

    Raises:
        InstallError: something that the wheel depends on is not here and cannot be fetched.
    """
    venv.create(folder, symlinks=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", variables))
    for distribution in _at_hand(_requirements(wheel)):
        _link(distribution, site)
    python = Path(sysconfig.get_path("scripts", "venv", variables)) / "python"
    _pip_install(python, wheel)
    return python


def _requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = BytesParser().parsebytes(archive.read(name))
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def _at_hand(wanted: Iterable[Requirement]) -> list[importlib.metadata.Distribution]:
    """The platform's own packages that are wanted, and what these want in turn."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(requirement, set[str]()) for requirement in wanted]
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        name = canonicalize_name(requirement.name)
        fits = requirement.specifier.contains(distribution.version, prereleases=True)
        if fits and name not in found:
            found[name] = distribution
            lines = distribution.requires or []
            waiting += [(Requirement(line), requirement.extras) for line in lines]
    return list(found.values())


def _link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Put a package's files, and their byte code, into another environment.

    File by file: what pip may yet remove there is a link, and never the platform's own file.
    """
    for file in distribution.files or []:
        if ".." in file.parts:
            continue  # a command, which nobody runs there
        source = Path(str(distribution.locate_file(file)))
        _link_file(source, site / file)
        if source.suffix == ".py":
            _link_file(Path(cache_from_source(source)), Path(cache_from_source(site / file)))


def _link_file(source: Path, link: Path) -> None:
    if source.is_file() and not link.is_symlink():  # byte code is in some packages' own lists
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)


def _pip_install(python: Path, wheel: Path) -> None:
    options = ("--quiet", "--no-input", "--disable-pip-version-check", "--no-compile")
    pip = [sys.executable, "-P", "-m", "pip", "--python", str(python)]
    try:
        done = subprocess.run(
            [*pip, "install", *options, "--only-binary", ":all:", *NETWORK, str(wheel)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(f"pip took longer than {TIMEOUT_SECONDS} s") from None
    if done.returncode:
        marked = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        said = "; ".join(line.removeprefix("ERROR: ") for line in marked)
        raise InstallError(said or f"pip ended with exit code {done.returncode}")
