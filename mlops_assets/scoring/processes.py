"""Is that process still the one that was started? A pid alone may long be somebody else's."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

#: Seconds that a start time may differ: the system derives it from a clock that can be set.
TOLERANCE = 2.0
POLL_SECONDS = 0.02


def created(pid: int | None = None) -> float:
    """When a process was started, in seconds since the epoch; this one by default."""
    return psutil.Process(os.getpid() if pid is None else pid).create_time()


def is_alive(pid: int, started: float) -> bool:
    """Whether the process of that pid and start time is running; a zombie is not."""
    return find(pid, started) is not None


def find(pid: int, started: float) -> psutil.Process | None:
    """The running process of that pid and start time."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) <= TOLERANCE
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def end(pid: int, started: float, grace: float) -> bool:
    """Ask a process to end, and kill it after ``grace`` seconds; False if it was not running."""
    process = find(pid, started)
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        if not _ended(pid, started, grace):
            process.kill()
            _ended(pid, started, grace)
    return True


def _ended(pid: int, started: float, seconds: float) -> bool:
    """Wait for a process that may be somebody else's child, which nobody may ever reap."""
    deadline = time.monotonic() + seconds
    while is_alive(pid, started):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
