"""The two keys of an endpoint: a text file of two lines, readable by its owner alone."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
from pathlib import Path

from mlops_assets.files import write_atomic

KEYS = "keys"
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

    def accepts(self, authorization: bytes | None) -> bool:
        """Whether a header ``Authorization: Bearer KEY`` carries one of the keys."""
        self._follow()
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        # All keys are compared: the time tells neither where a key differs nor which one it is.
        matches = [hmac.compare_digest(key.strip(), own) for own in self._keys]
        return any(matches)

    def _follow(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read_keys(self._path)
        except KeyFileError as error:
            logger.error("%s; the keys read before stay in force", error)

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)  # noqa: PTH116  (once per request)
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_ino, found.st_mode)


def read_keys(path: Path) -> list[bytes]:
    """The keys in a file, the primary one first; raises KeyFileError."""
    try:
        mode = path.stat().st_mode
        lines = path.read_bytes().split()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; the next deployment makes it") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError(f"{path}: others may read it (mode {mode & 0o777:o}); run chmod 600")
    if not lines:
        raise KeyFileError(f"{path}: holds no key; remove it, the next deployment makes two")
    return lines


def ensure_keys(path: Path) -> None:
    """Make two keys if there are none, and take the file away from others' eyes."""
    if not path.is_file() or not path.read_bytes().split():
        write_atomic(path, f"{secrets.token_urlsafe(32)}\n{secrets.token_urlsafe(32)}\n", 0o600)
    path.chmod(0o600)
