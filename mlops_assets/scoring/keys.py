"""The keys of an endpoint: a text file of two lines, readable by its owner alone."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from hmac import compare_digest
from pathlib import Path
from time import monotonic
from typing import Literal

from mlops_assets.files import write_atomic

KEYS = "keys"
#: Azure's names of the two lines.
Role = Literal["primary", "secondary"]
#: Seconds that a key which was taken away may still be accepted; a new one is at once.
FOLLOW_SECONDS = 0.5
logger = logging.getLogger(__name__)


class KeyFileError(Exception):
    """A key file that others can read, or without keys; names the file and the mend."""


class KeyFile:
    """The keys that a server accepts; follows the file when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the keys; raises KeyFileError."""
        self._path = path
        self._seen = self._stamp()
        self._keys = read_keys(path)
        self._next_look = monotonic() + FOLLOW_SECONDS

    def accepts(self, authorization: bytes | None) -> bool:
        """Whether a header ``Authorization: Bearer KEY`` carries one of the keys."""
        if authorization is None or authorization[:7].lower() != b"bearer ":
            return False
        if monotonic() >= self._next_look:
            self._follow()
        key = authorization[7:].strip()
        # Whoever has a key that was made just now does not wait for the next look.
        return self._is_known(key) or (self._follow() and self._is_known(key))

    def _is_known(self, key: bytes) -> bool:
        # All keys are compared: the time tells neither where a key differs nor which one it is.
        known = False
        for own in self._keys:
            known |= compare_digest(key, own)
        return known

    def _follow(self) -> bool:
        """Read the file if it changed; returns whether other keys are in force now."""
        self._next_look = monotonic() + FOLLOW_SECONDS
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._keys = read_keys(self._path)
        except KeyFileError as error:
            logger.error("%s; the keys read before stay in force", error)
            return False
        return True

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)  # noqa: PTH116  (twice a second, and per refused request)
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_ino, found.st_mode)


def read_keys(path: Path) -> list[bytes]:
    """The keys in a file, the primary one first; raises KeyFileError."""
    try:
        found = path.stat()
        lines = path.read_bytes().split()
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}; it holds a key a line, two of them"
        ) from None
    # A file of another owner is a secret mounted for us: it is ours by its group.
    own = found.st_uid == os.geteuid()
    if found.st_mode & (stat.S_IRWXO | (stat.S_IRWXG if own else stat.S_IWGRP)):
        mode, mend = stat.S_IMODE(found.st_mode), "run chmod 600" if own else "mount it with 440"
        raise KeyFileError(f"{path}: others may read it (mode {mode:o}); {mend}")
    if not lines:
        raise KeyFileError(f"{path}: holds no key; it is a key a line, two of them")
    return lines


def ensure_keys(path: Path) -> None:
    """Make two keys if there are none, and take the file away from others' eyes."""
    if not path.is_file() or not path.read_bytes().split():
        write_keys(path, [new_key(), new_key()])
    path.chmod(0o600)


def rotate(path: Path, role: Role) -> None:
    """Make a new key in the place of one; the other one stays. One caller at a time.

    Raises:
        KeyFileError: the file is not there, or not readable.
    """
    primary, *others = read_keys(path)
    secondary = others[0] if others else new_key()
    kept = [new_key(), secondary] if role == "primary" else [primary, new_key()]
    write_keys(path, kept)


def new_key() -> bytes:
    """A key of 256 random bits."""
    return secrets.token_urlsafe(32).encode()


def write_keys(path: Path, keys: list[bytes]) -> None:
    """Write a file of keys for its owner alone."""
    write_atomic(path, b"".join(key + b"\n" for key in keys), 0o600)
