"""The looks at this machine: what the platform needs wherever its endpoints are."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from resources.endpoints.local import LocalEndpoints
from resources.environment import Profile
from resources.findings import Finding

#: Oldest that is tried.
PYTHON, GIT = (3, 11), (2, 20)
#: Bytes: below the first nothing can be released, below the second it is soon so.
LEAST_BYTES, FEW_BYTES = 200 * 1024**2, 2 * 1024**3


def look(profile: Profile) -> Iterator[Finding]:
    """What is wrong with this machine."""
    yield from _python()
    yield from _git()
    yield from _state(profile)
    yield from _ports(profile)


def _python() -> Iterator[Finding]:
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        yield Finding("error", "python", f"is {sys.version.split()[0]}", f"use {wanted} or newer")


def _git() -> Iterator[Finding]:
    try:
        said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        yield Finding("error", "git", "cannot be started", "install it")
        return
    version = re.search(r"(\d+)\.(\d+)", said.stdout)
    if version is None or (int(version[1]), int(version[2])) < GIT:
        wanted = ".".join(map(str, GIT))
        yield Finding("warning", "git", f"is '{said.stdout.strip()}'", f"use {wanted} or newer")


def _state(profile: Profile) -> Iterator[Finding]:
    place = f"state folder {profile.home}"
    mend = "make room, or set MLOPS_HOME to another folder"
    try:
        profile.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=profile.home):
            free = shutil.disk_usage(profile.home).free
    except OSError as error:
        yield Finding("error", place, f"cannot be written ({error.strerror})", mend)
        return
    if free < FEW_BYTES:
        left = f"{free / 1024**2:.0f} MB are left on its disk"
        yield Finding("error" if free < LEAST_BYTES else "warning", place, left, mend)


def _ports(profile: Profile) -> Iterator[Finding]:
    """Fixed ports of local endpoints that somebody else listens on."""
    endpoints = LocalEndpoints(profile.home / "endpoints")
    for environment in profile.environments:
        for model, port in environment.local.ports.items():
            if environment.target != "local" or endpoints.status(model, environment.name).healthy:
                continue
            with socket.socket() as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    tried.bind(("127.0.0.1", port))
                except OSError as error:
                    yield Finding(
                        "error",
                        f"{profile.file_of(environment.name)}: local.ports.{model}",
                        f"port {port} is taken ({error.strerror})",
                        "choose another, or end what listens there",
                    )
