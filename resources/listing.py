"""What lies below a folder, on a local disk or behind any fsspec file system, in one listing."""

from __future__ import annotations

import hashlib
import math
import os
import stat
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from upath import UPath


class StorageError(Exception):
    """Data that cannot be found or read; the message names the place and the mend."""


class MissingFolderError(StorageError):
    """There is no such folder."""


class StoredFile(NamedTuple):
    """One file of a data location."""

    #: The folder it was listed from; the file itself where ``within`` is empty.
    place: UPath
    #: Bytes.
    size: int
    #: Another one when the content is another one: the blob's etag, or size and date.
    version: str = ""
    #: Path below ``place``, with slashes.
    within: str = ""
    #: Unix seconds of the last change of content, name or date; infinite if nobody knows.
    changed: float = 0.0

    @property
    def path(self) -> UPath:
        """Where to read it."""
        return self.place / self.within if self.within else self.place

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name


def fingerprint(files: Iterable[StoredFile]) -> str:
    """SHA-256 over names below the location, versions and sizes; the files' order is no part."""
    parts = [f"{f.within or f.place.name}\0{f.version}\0{f.size}\n" for f in files]
    # A name may be any bytes on a disk.
    return hashlib.sha256("".join(sorted(parts)).encode("utf-8", "surrogatepass")).hexdigest()


def newest(files: Iterable[StoredFile]) -> str:
    """When the last change was, ISO 8601 in UTC; a date in the future counts as now."""
    latest = min(max((f.changed for f in files), default=0.0), time.time())
    return datetime.fromtimestamp(latest, UTC).isoformat(timespec="seconds")


def list_files(place: UPath, suffixes: Iterable[str] = ("",)) -> list[StoredFile]:
    """Every file below a folder whose name ends in one of ``suffixes``, in no order.

    Hidden files and folders are passed over: uploaders write under such names before they
    rename. Links are followed; broken ones are passed over.

    Raises:
        MissingFolderError: there is no such folder.
        StorageError: the listing failed half-way, or what it found kept vanishing.
    """
    endings = tuple(suffixes)
    list_once = _local_files if isinstance(place, os.PathLike) else _remote_files
    gone = ""
    for _ in range(2):
        try:
            return list_once(place, endings)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not place.is_dir():
                raise MissingFolderError(f"no folder {place}; create it") from None
            gone = str(error.filename or error)
        except OSError as error:
            raise StorageError(
                f"{place}: listing failed at {error.filename or place}: "
                f"{error.strerror or error}; nothing was taken"
            ) from None
    raise StorageError(
        f"{place}: {gone!r} vanished while the folder was listed, twice in succession; wait until "
        "nothing is moved there, or write under hidden names and rename"
    )


# -- local disks


class _Folder(NamedTuple):
    """A folder still to be listed."""

    path: str
    #: Path below the root with a slash at its end; empty for the root.
    within: str
    #: Real paths of the links on the way there.
    links: frozenset[str]


def _local_files(place: UPath, endings: tuple[str, ...]) -> list[StoredFile]:
    """Raises OSError where any part of the listing fails."""
    found: list[StoredFile] = []
    folders = [_Folder(place.path, "", frozenset())]
    while folders:
        folder = folders.pop()
        with os.scandir(folder.path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    continue
                if entry.is_file(follow_symlinks=False):
                    if name.endswith(endings):
                        found.append(_local_file(place, folder.within + name, entry.stat()))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(_Folder(entry.path, f"{folder.within}{name}/", folder.links))
                elif entry.is_symlink() and (status := _link_status(entry.path)):
                    if stat.S_ISDIR(status.st_mode):
                        folders += _linked(folder, entry)
                    elif stat.S_ISREG(status.st_mode) and name.endswith(endings):
                        found.append(_local_file(place, folder.within + name, status))
    return found


def _local_file(place: UPath, within: str, status: os.stat_result) -> StoredFile:
    version = f"{status.st_size}-{status.st_mtime_ns}"
    # A copy that keeps dates, or a rename, shows in ctime alone.
    changed = max(status.st_mtime, status.st_ctime)
    return StoredFile(place, status.st_size, version, within, changed)


def _link_status(path: str) -> os.stat_result | None:
    """What a link leads to; None if nowhere."""
    try:
        return os.stat(path)  # noqa: PTH116  (a Path per file takes longer than all else)
    except PermissionError:
        raise
    except OSError:
        return None


def _linked(folder: _Folder, link: os.DirEntry[str]) -> list[_Folder]:
    """The folder behind a link; none where it leads back to where we come from."""
    target, here = os.path.realpath(link.path), os.path.realpath(folder.path)
    if target in folder.links or f"{here}/".startswith(f"{target.rstrip('/')}/"):
        return []
    return [_Folder(link.path, f"{folder.within}{link.name}/", folder.links | {target})]


# -- all others


def _remote_files(place: UPath, endings: tuple[str, ...]) -> list[StoredFile]:
    """Raises StorageError or OSError where any part of the listing fails."""
    try:
        fs: Any = place.fs
        fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = _find(fs, place.path)
        base = fs._strip_protocol(place.path).strip("/")  # noqa: SLF001  (fsspec has no other)
    except OSError:
        raise
    except Exception as error:
        # Each file system raises exceptions of its own.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StorageError(f"{place}: listing failed: {reason}; nothing was taken") from None
    files: list[StoredFile] = []
    for name, info in found.items():
        within = name.strip("/")[len(base) :].strip("/")
        hidden = any(part.startswith(".") for part in within.split("/"))
        if within.endswith(endings) and within and not hidden and info["type"] == "file":
            files.append(_remote_file(place, within, info))
    if not files and not place.is_dir():
        raise FileNotFoundError(place)
    return files


def _find(fs: Any, path: str) -> dict[str, dict[str, Any]]:
    """Name -> facts of all below; blob storage does it in one go, others folder by folder."""
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    kind, name, base = type(fs), "find", AbstractFileSystem
    if isinstance(fs, AsyncFileSystem):
        name, base = "_find", AsyncFileSystem
    if getattr(kind, name) is not getattr(base, name):
        listed: Any = fs.find(path, detail=True)
        return listed
    # fsspec's own way leaves out, without a word, the folders that it cannot read.
    found: dict[str, dict[str, Any]] = {}
    folders = [path]
    while folders:
        folder = folders.pop()
        for info in fs.ls(folder, detail=True):
            if info["type"] == "directory" and info["name"].rstrip("/") != folder.rstrip("/"):
                folders.append(info["name"])
            else:
                found[info["name"]] = info
    return found


def _remote_file(place: UPath, within: str, info: dict[str, Any]) -> StoredFile:
    size = int(info["size"] or 0)
    names = ("last_modified", "LastModified", "modified", "mtime", "updated", "created")
    date = next((info[name] for name in names if info.get(name)), None)
    if isinstance(date, datetime):
        changed = date.timestamp()
    else:
        changed = float(date) if isinstance(date, int | float) else math.inf
    etag = info.get("etag") or info.get("ETag")
    return StoredFile(place, size, str(etag or f"{size}-{date}"), within, changed)
