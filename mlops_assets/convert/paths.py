"""Paths of v1's files, as the documents name them."""

from __future__ import annotations

import os
from pathlib import Path


def slashes(path: str) -> str:
    """A path from Windows as one from anywhere."""
    return path.replace("\\", "/")


def find(source: Path, path: str) -> Path | None:
    """What a path in the file ``source`` names, if it is there.

    v1 took paths from where its command line was started: beside the file, or in the checkout.
    """
    for start in (source.parent, Path.cwd()):
        try:
            if (start / path).exists():
                return start / path
        except OSError:  # a name longer than any file's
            return None
    return None


def relative(path: Path, folder: Path) -> str:
    """A path as one from ``folder``, with slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()
