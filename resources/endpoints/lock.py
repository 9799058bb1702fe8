"""One deployer per endpoint: a lock that dies with its holder, and says who that is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path

import filelock

from mlops_assets.files import write_atomic

#: Seconds between two lines about who is waited for.
REPORT_SECONDS = 10.0
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def held(
    path: Path,
    what: str,
    timeout: float | None = None,
    log: Callable[[str], None] = logger.info,
) -> Generator[bool]:
    """Hold a lock file.

    Args:
        path: the lock; ``<path>.holder`` beside it names its holder's process.
        what: what is locked, for the log.
        timeout: seconds to wait; None waits for ever.
        log: told every ten seconds who is waited for.

    Yields:
        Whether the lock is held; False only after the timeout.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not a singleton and not per thread: two deployers in one process exclude each other too.
    lock = filelock.FileLock(path, thread_local=False)
    holder = path.with_name(f"{path.name}.holder")
    acquired = _acquire(lock, holder, what, timeout, log)
    try:
        if acquired:
            # For who waits, no more: on a full disk servers must still be ended.
            with contextlib.suppress(OSError):
                write_atomic(holder, json.dumps({"pid": os.getpid(), "since": time.time()}))
        yield acquired
    finally:
        if acquired:
            holder.unlink(missing_ok=True)
            lock.release()


def _acquire(
    lock: filelock.BaseFileLock,
    holder: Path,
    what: str,
    timeout: float | None,
    log: Callable[[str], None],
) -> bool:
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = REPORT_SECONDS if deadline is None else deadline - time.monotonic()
        try:
            lock.acquire(timeout=max(0.0, min(REPORT_SECONDS, left)), poll_interval=0.05)
            return True
        except filelock.Timeout:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            log(f"waiting for {what}: held by {_describe(holder)}")


def _describe(holder: Path) -> str:
    try:
        value = json.loads(holder.read_bytes())
        return f"process {value['pid']} for {time.time() - value['since']:.0f} s"
    except (FileNotFoundError, ValueError, KeyError):
        return "a process that has just taken it"
