"""Files that are whole or absent: nothing is ever written in place."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Write ``data`` under a temporary name, flush it to disk, then rename; parents are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    content = data.encode() if isinstance(data, str) else data
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_exclusive(path: Path, data: bytes | str) -> bool:
    """Write a file that must not exist yet; False, and nothing changed, if it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    write_atomic(temporary, data)
    try:
        os.link(temporary, path)  # a link, unlike a rename, fails where the name is taken
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def sync_tree(folder: Path) -> None:
    """Flush every file below ``folder`` to disk, before the folder itself is renamed."""
    for path in files_below(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below ``folder``, sorted by path."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def matching(folder: Path, pattern: str) -> list[Path]:
    """What is below a folder by a pattern; whatever is removed meanwhile is no error."""
    found: list[Path] = []
    with suppress(FileNotFoundError):
        found.extend(folder.glob(pattern))
    return found


def remove_tree(folder: Path) -> None:
    """Remove a folder and all below it; an absent one is no error."""
    shutil.rmtree(folder, ignore_errors=True)


def digest_bytes(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value in one canonical spelling: sorted keys, no spaces."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def read_json(path: Path) -> Any:
    """The JSON value in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def to_json(value: Any) -> str:
    """JSON as people read it, in a stable order of keys."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
