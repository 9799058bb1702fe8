"""What keeps the training process in bounds: it ends in time, and with its parent."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

#: Linux: the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
#: How often the parent is looked for where the system does not tell.
POLL_SECONDS = 1.0
#: What Python's own timer gets to report before the process is ended without it.
REPORT_SECONDS = 3.0


def end_with_parent(parent: int) -> None:
    """End this process, without any clean-up, as soon as its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def end_in_time(seconds: float, output: Path, report: Callable[[str], None]) -> None:
    """End this process after so many seconds.

    Args:
        seconds: from now.
        output: ``timeout.txt`` is written there, with the stack, when Python itself hangs in
            native code and cannot report any more.
        report: told the stack of the main thread, before the process is ended.
    """
    main = threading.main_thread().ident

    def expired() -> None:
        frame = sys._current_frames().get(main or 0)
        report("".join(traceback.format_stack(frame)) if frame else "")
        os._exit(1)

    timer = threading.Timer(seconds, expired)
    timer.daemon = True
    timer.start()
    file = (output / "timeout.txt").open("w")
    faulthandler.dump_traceback_later(seconds + REPORT_SECONDS, exit=True, file=file)


class Lines:
    """A text stream whose lines go to a logger as they come: for what train.py prints."""

    encoding = "utf-8"

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = ""

    def write(self, text: str) -> int:
        """Keep the text up to its last line end, log the lines."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._log(line)
        return len(text)

    def flush(self) -> None:
        """Log what has no line end yet."""
        if self._rest.strip():
            self._log(self._rest)
        self._rest = ""

    def isatty(self) -> bool:
        """No terminal: progress bars print lines."""
        return False


class LogHandler(logging.Handler):
    """Python's logging, line by line."""

    def __init__(self, log: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        self._log(self.format(record))
