"""A full disk under the state folder."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CHAIN, Platform
from tests.repository import TRAIN_PY


@pytest.fixture
def small_disk(released: Platform) -> Iterator[Platform]:
    """The state on a file system of its own, with little room left."""
    home = released.profile.home
    aside = home.with_name("aside")
    home.rename(aside)
    home.mkdir()
    root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    options = f"size=4m,uid={os.geteuid()}"
    subprocess.run([*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(home)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(home)], check=True)
        yield released
    finally:
        (home / "filler").unlink(missing_ok=True)
        released.serving.stop()
        subprocess.run([*root, "umount", "--lazy", str(home)], check=True)


def fill(home: Path, leave: int) -> Path:
    """Take all room of a file system but so many bytes."""
    path = home / "filler"
    # Without a buffer: one that could not be written would be written once more at the end.
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 65536):
            pass
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - leave))
    return path


@pytest.mark.parametrize("room", [0, 150_000])
def test_a_full_disk_loses_nothing(small_disk: Platform, room: int) -> None:
    home = small_disk.profile.home
    assert small_disk.materialize(*CHAIN[3:]), small_disk.failures
    small_disk.repository.train_py(TRAIN_PY + "\n# the next\n")
    filler = fill(home, room)
    assert not small_disk.materialize(*CHAIN)
    assert "No space left on device" in small_disk.failures
    assert small_disk.serves("staging") == small_disk.serves("production") == 1
    assert small_disk.registry.version("rent", 1).mismatched() == []
    filler.unlink()
    assert small_disk.materialize(*CHAIN), small_disk.failures
    assert small_disk.serves("production") == 2


def test_servers_end_on_a_full_disk(small_disk: Platform) -> None:
    assert small_disk.materialize("staging_endpoint"), small_disk.failures
    fill(small_disk.profile.home, 0)
    assert small_disk.serving.stop() == ["rent/staging"]
