"""The capture process of an endpoint: ``python -m mlops_assets.scoring.capture FOLDER ...``.

Started by the supervisor, with the reading end of a pipe: when that closes the supervisor is gone,
and this process ends as the workers do. It has a tenth of their claim to the processor: where
requests need all of it, rows are dropped.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import selectors
import signal
import socket
import sys
import time
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring import processes
from mlops_assets.scoring.capture.settings import PROCESS, SOCKET
from mlops_assets.scoring.capture.wire import BrokenError, cut, short_path
from mlops_assets.scoring.capture.writer import Writer
from mlops_assets.scoring.logs import log_to_stderr
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.supervisor import read_settings

#: Seconds between two looks at what is to be appended; what is lost by a kill is not older.
FLUSH_SECONDS = 0.25
#: Seconds after each read in which more gathers: many requests in one piece cost less, here and in
#: the workers, which need not wake who is not waiting.
GATHER_SECONDS = 0.05
#: Between two looks of the workers at what is counted here.
COUNT_SECONDS = 1.0
#: Bytes read at a time.
READ_BYTES = 2**18
#: Seconds for workers that are about to end to hand on what they have.
GRACE_SECONDS = 6.0
NICE = 10
logger = logging.getLogger("capture")


class Receiver:
    """Takes blocks from the workers of one endpoint."""

    def __init__(self, folder: Path, writer: Writer, alive: int) -> None:
        """Listen.

        Args:
            folder: the endpoint's.
            writer: is given the blocks.
            alive: a descriptor that closes when the supervisor is gone.
        """
        self.writer = writer
        self._selector = selectors.DefaultSelector()
        self._alive = alive
        self._listening = _listen(folder)
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        self._selector.register(alive, selectors.EVENT_READ, None)
        self._connections = 0
        # Kept: a new one each time is a memory of its own, which the kernel clears first.
        self._read = memoryview(bytearray(READ_BYTES))
        self.ending = False

    def wait(self, seconds: float) -> bool:
        """Take what comes within some seconds, once; whether there surely is more."""
        more = False
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._listening:
                self._accept()
            elif key.fileobj == self._alive:
                self._selector.unregister(self._alive)
                self.ending = True
            else:
                more |= self._receive(key)
        return more

    @property
    def connected(self) -> bool:
        """Whether a worker may have something to hand on."""
        return self._connections > 0

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, bytearray())
        self._connections += 1

    def _receive(self, key: selectors.SelectorKey) -> bool:
        connection: Any = key.fileobj
        try:
            read = connection.recv_into(self._read)
        except BlockingIOError:
            return False
        except OSError:
            read = 0
        received: bytearray = key.data
        received += self._read[:read]
        try:
            self.writer.take(*cut(received))
        except BrokenError:
            read = 0
        if not read:  # half a block of a worker that was killed is lost with it
            self._selector.unregister(connection)
            connection.close()
            self._connections -= 1
        return read == READ_BYTES


def _listen(folder: Path) -> socket.socket:
    (folder / SOCKET).unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with short_path(folder) as path:
            listening.bind(path)
    finally:
        os.umask(before)
    listening.listen(64)
    listening.setblocking(False)
    return listening


def run(folder: Path, alive: int) -> None:
    """Capture until told to end."""
    settings = read_settings(folder).capture
    assert settings is not None
    metrics = Metrics(folder)
    receiver = Receiver(folder, Writer(folder, settings, metrics), alive)
    flushed = counted = 0.0

    def end(*_: object) -> None:
        receiver.ending = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not receiver.ending:
        if not receiver.wait(FLUSH_SECONDS):
            time.sleep(GATHER_SECONDS)
        now = time.monotonic()
        if now - flushed >= FLUSH_SECONDS:
            receiver.writer.flush()
            flushed = now
        if now - counted >= COUNT_SECONDS:
            _count(metrics)
            counted = now
    receiver.wait(0)  # who has just connected
    deadline = time.monotonic() + GRACE_SECONDS
    while receiver.connected and time.monotonic() < deadline:
        receiver.wait(0.02)
    receiver.writer.close()
    _count(metrics)


def _count(metrics: Metrics) -> None:
    try:
        metrics.write()
    except OSError:  # a full disk: the sums stay in memory
        return


class _WithoutPandas(MetaPathFinder):
    """pyarrow imports it with the first array if it can: half a second and 60 MB for nothing."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse it; all else is found as ever."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError("not in this process", name=fullname)


def main() -> None:
    """Capture for the endpoint of a folder."""
    parser = argparse.ArgumentParser(prog="python -m mlops_assets.scoring.capture")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alive", type=int, required=True)
    options = parser.parse_args()
    log_to_stderr()
    os.nice(NICE)
    sys.meta_path.insert(0, _WithoutPandas())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    folder: Path = options.folder
    with (folder / f"{PROCESS}.lock").open("w") as lock:
        # One that a killed supervisor has left may be at its last lines.
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        own = {"pid": os.getpid(), "created": processes.created()}
        write_atomic(folder / PROCESS, to_json(own))
        run(folder, options.alive)


if __name__ == "__main__":
    main()
