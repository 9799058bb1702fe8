"""Batches on a disk before they are a Parquet file, and how they become one.

A spool file is records of a length, a checksum and an Arrow stream with one batch. It is appended
to; whatever ends the process leaves at most half a record at its end, which a reader cuts off. A
Parquet file has its name when it is complete, or not at all.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.files import matching

#: Length and CRC-32 of what follows.
_HEAD = struct.Struct(">II")
SUFFIX, PARQUET, TEMPORARY = ".spool", ".parquet", ".tmp"
_DAY, _TIME = "%Y-%m-%d", "%H%M%S"


class Spool:
    """One file that is appended to."""

    def __init__(self, folder: Path, first: float) -> None:
        """Make a file.

        Args:
            folder: where to.
            first: Unix seconds of its first row; its name, and that of its Parquet file, begin so.

        Raises:
            OSError: it cannot be made.
        """
        moment = dt.datetime.fromtimestamp(first, dt.UTC)
        name = f"{moment:{_DAY}}T{moment:{_TIME}}-{secrets.token_hex(6)}{SUFFIX}"
        self.path = folder / name
        # Rows of people: for whoever runs the server alone.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(self.path, flags, 0o600)
        #: Bytes of whole records.
        self.size = 0

    def append(self, batch: pa.RecordBatch) -> None:
        """Append a batch, whole or not at all; raises OSError."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        payload = sink.getvalue()
        head = _HEAD.pack(payload.size, zlib.crc32(payload))
        try:
            for data in (memoryview(head), memoryview(payload)):
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(head) + payload.size

    def close(self) -> None:
        """Append no more."""
        os.close(self._descriptor)


def batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a spool file up to the first that is not whole."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum = _HEAD.unpack(head)
            payload = file.read(length)
            if not length or len(payload) != length or zlib.crc32(payload) != checksum:
                return
            with pa.ipc.open_stream(payload) as reader:
                yield from reader


def finish(spool: Path, folder: Path) -> Path | None:
    """Make a Parquet file of a spool file, which is removed.

    Args:
        spool: as ``Spool`` wrote it, or what a process that was killed has left of it.
        folder: of the Parquet files.

    Returns:
        The file; None where there was no row.

    Raises:
        OSError: it cannot be written; the spool file is still there.
    """
    day, _, rest = spool.name.removesuffix(SUFFIX).partition("T")
    path = folder / day / f"{rest}{PARQUET}"
    # If it is there whoever made it was killed before this spool was removed.
    made = path.exists() or _write(spool, path)
    spool.unlink()
    return path if made else None


def _write(spool: Path, path: Path) -> bool:
    found = batches(spool)
    first = next(found, None)
    if first is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            # The stubs take only a boolean.
            repeated: Any = _repeated(first.schema)
            with pq.ParquetWriter(
                file, first.schema, compression="zstd", use_dictionary=repeated
            ) as writer:
                writer.write_table(pa.Table.from_batches([first, *found]))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return True


def _repeated(schema: pa.Schema) -> list[str]:
    """Columns that a dictionary makes smaller; looking for one in numbers and ids costs more."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return [name for name in texts if name != "mlops_request"]


def _sync(folder: Path) -> None:
    """Let a name outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tidy(folder: Path, keep_days: int, now: float) -> None:
    """Remove what a killed process has left half-written, and days that are no longer kept.

    Args:
        folder: of the Parquet files.
        keep_days: how many days are kept beside today.
        now: Unix seconds.
    """
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    for day in [*folder.glob("[0-9]*-[0-9]*-[0-9]*")]:
        with suppress(ValueError):
            age = today - dt.datetime.strptime(day.name, _DAY).replace(tzinfo=dt.UTC).date()
            old = age.days > keep_days
            for path in matching(day, "*" if old else f".*{TEMPORARY}"):
                path.unlink(missing_ok=True)
            if old:
                with suppress(OSError):
                    day.rmdir()
