"""Unpacks a bundle's archive as if it were hostile: bounded, and inside its folder alone."""

from __future__ import annotations

import gzip
import itertools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

#: Bytes unpacked at a time.
CHUNK = 1 << 20
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
#: The record that ends a .zip: what is skipped, bytes of the list of files, bytes of a comment.
ZIP_END = struct.Struct("<12sI4xH")
ZIP64_LOCATOR_BYTES = 20
#: On average, of one file in that list.
ZIP_ENTRY_BYTES = 1024
#: Bytes of what a .tar says of one file.
TAR_HEADERS = 1 << 20


class ArchiveError(Exception):
    """An archive that is not unpacked, and why."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an archive may take, on its way and unpacked."""

    #: For the whole download, and for the network to stand still.
    seconds: float = 300
    stall_seconds: float = 30
    #: Bytes of the archive, and of all that it holds.
    archive: int = 2 << 30
    unpacked: int = 4 << 30
    files: int = 10_000


def unpack(archive: Path, to: Path, bounds: Bounds) -> None:
    """Unpack a .zip or a .tar.gz.

    Args:
        archive: the file; its content says what it is.
        to: an empty folder.
        bounds: what it may hold.

    Raises:
        ArchiveError: it holds more, or anything but regular files inside the folder.
    """
    with archive.open("rb") as file:
        start = file.read(4)
    members = _zip if start == ZIP else _tar if start[:2] == GZIP else None
    if members is None:
        raise ArchiveError("neither a .zip nor a .tar.gz")
    try:
        _write(members(archive, bounds), to, bounds)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise ArchiveError(f"a damaged archive: {error}") from None
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or packed unheard of
        raise ArchiveError(f"an archive that cannot be unpacked: {error}") from None
    except (OSError, ValueError) as error:
        raise ArchiveError(f"cannot be unpacked: {error}") from None


@dataclass(frozen=True, slots=True)
class _Member:
    """A regular file in an archive."""

    name: str
    open: Callable[[], IO[bytes]]


def _write(members: Iterator[_Member], to: Path, bounds: Bounds) -> None:
    left = bounds.unpacked
    for member in members:
        target = to / _inside(member.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Exclusive: a name that comes twice would replace what was unpacked.
        with member.open() as source, target.open("xb") as file:
            # What a header says of a size is worth nothing.
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ArchiveError(f"holds more than {bounds.unpacked} bytes")
                file.write(chunk)


def _inside(name: str) -> PurePosixPath:
    """A member's name as a path below the folder it is unpacked to."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ArchiveError(f"holds {ascii(name)[:80]}, which is no name inside a folder")
    return path


def _zip(archive: Path, bounds: Bounds) -> Iterator[_Member]:
    _require_small_directory(archive, bounds)
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        _require_few(len(entries), bounds)
        for entry in entries:
            kind = entry.external_attr >> 28  # the file type of a Unix mode; 0 where there is none
            if entry.is_dir():
                continue
            if kind not in (0, 8):
                raise ArchiveError(f"holds {ascii(entry.filename)[:80]}, which is no regular file")

            def read(entry: zipfile.ZipInfo = entry) -> IO[bytes]:
                return opened.open(entry)

            yield _Member(entry.filename, read)


def _require_small_directory(archive: Path, bounds: Bounds) -> None:
    """Refuse a long list of files: zipfile reads all of it before anybody can count them."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - ZIP_END.size - ZIP64_LOCATOR_BYTES))
        end = file.read()
    locator, record = end[: -ZIP_END.size], end[-ZIP_END.size :]
    if len(record) < ZIP_END.size or not record.startswith(b"PK\5\6"):
        raise ArchiveError("a .zip that is cut off, or has a comment")
    _, size, comment = ZIP_END.unpack(record)
    if comment or locator.startswith(b"PK\6\7") or size > ZIP_ENTRY_BYTES * bounds.files:
        raise ArchiveError(f"a .zip with a comment, or with more than {bounds.files} files")


def _tar(archive: Path, bounds: Bounds) -> Iterator[_Member]:
    with gzip.open(archive) as packed:
        source: Any = _Bounded(packed)
        # As a stream: no more is unpacked than is asked for.
        with tarfile.open(fileobj=source, mode="r|") as opened:
            for count in itertools.count(1):
                source.left = TAR_HEADERS  # tarfile keeps them in memory, as long as they say
                entry = opened.next()
                source.left = bounds.unpacked + TAR_HEADERS
                if entry is None:
                    return
                _require_few(count, bounds)
                if entry.isdir():
                    continue
                if not entry.isreg():
                    raise ArchiveError(f"holds {ascii(entry.name)[:80]}, which is no regular file")

                def read(entry: tarfile.TarInfo = entry) -> IO[bytes]:
                    content = opened.extractfile(entry)
                    assert content is not None  # a regular file
                    return content

                yield _Member(entry.name, read)


class _Bounded:
    """A stream that ends with an error when more than ``left`` bytes are read."""

    def __init__(self, source: gzip.GzipFile) -> None:
        self._source = source
        self.left = TAR_HEADERS

    def read(self, size: int) -> bytes:
        """As a file's."""
        data = self._source.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ArchiveError("holds more, or has longer names, than it may")
        return data


def _require_few(count: int, bounds: Bounds) -> None:
    if count > bounds.files:
        raise ArchiveError(f"holds more than {bounds.files} files")
