"""What workers and the capture process agree on: blocks of records, and where they are sent."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from mlops_assets.scoring.capture.settings import SOCKET

#: A record: time in Unix nanoseconds, request id, source, status, seconds if known, body, answer.
Record = tuple[int, bytes, int, int, float | None, bytes, bytes]
#: A record's source where no deployment answered; else its place in the sources of the block.
NO_SOURCE = -1
#: Bytes at most of one block.
MAXIMUM_BLOCK = 64 * 2**20
#: What comes before a block: its length.
_LENGTH = struct.Struct(">I")
_decode = msgspec.msgpack.Decoder(tuple[list[Any], list[Record]]).decode
_encode = msgspec.msgpack.Encoder().encode


class BrokenError(Exception):
    """What was received is no block."""


class TooLargeError(Exception):
    """A block that nobody would take."""


def block(sources: Sequence[Sequence[Any]], records: Sequence[Record]) -> bytes:
    """A block to send.

    Args:
        sources: name, version, digest and bundle of each deployment that records name.
        records: at least one.

    Raises:
        TooLargeError: it is more than MAXIMUM_BLOCK.
    """
    content = _encode((sources, records))
    if len(content) > MAXIMUM_BLOCK:
        raise TooLargeError
    return _LENGTH.pack(len(content)) + content


def cut(received: bytearray) -> tuple[list[Any], list[Record]]:
    """Cut the whole blocks off the beginning of what was received.

    Returns:
        The sources of the last block, which a worker has added to since the first, and the
        records of all.

    Raises:
        BrokenError: it cannot be cut.
    """
    start = 0
    sources: list[Any] = []
    records: list[Record] = []
    while len(received) - start >= _LENGTH.size:
        first = start + _LENGTH.size
        end = first + _LENGTH.unpack_from(received, start)[0]
        if end - first > MAXIMUM_BLOCK:
            raise BrokenError
        if len(received) < end:
            break
        try:
            sources, more = _decode(memoryview(received)[first:end])
        except msgspec.MsgspecError:
            raise BrokenError from None
        records += more
        start = end
    del received[:start]
    return sources, records


class short_path:  # noqa: N801  (used as a function is)
    """The socket's address, where the folder's own path is too long for one: 107 bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None

    def __enter__(self) -> str:
        """The address, good for as long as the block lasts."""
        path = str(self._folder / SOCKET)
        if len(path.encode()) <= 100:
            return path
        self._descriptor = os.open(self._folder, os.O_RDONLY)
        return f"/proc/self/fd/{self._descriptor}/{SOCKET}"

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
