"""What keeps the training process in bounds: it ends in time, with its parent, and at once."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path

#: Linux: the signal that a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
#: How often the parent is looked for where the system does not tell.
POLL_SECONDS = 1.0
#: What Python's own timer gets to report before the process is ended without it.
REPORT_SECONDS = 3.0
#: What exit functions of libraries get.
EXIT_SECONDS = 10.0
#: Characters of a printed line that reach the log.
LINE_LENGTH = 4000


def variables(parent: int, fonts: Path) -> dict[str, str]:
    """Environment variables that a training process gets beside its own.

    Args:
        parent: id of the process that starts it, and with which it ends.
        fonts: a folder that is kept: matplotlib looks through all fonts where it finds none.
    """
    return {
        "PYTHONHASHSEED": "0",  # the order of sets, which a train.py may rely on unknowingly
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": str(fonts),
        "MLOPS_RUN_PROCESS": str(parent),
    }


def end_with_parent(parent: int) -> None:
    """End this process, without any clean-up, as soon as its parent is gone or interrupts it."""
    # Python's own handler waits for native code to return, and that may never happen.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


@contextlib.contextmanager
def time_limit(seconds: float, output: Path, report: Callable[[str], None]) -> Generator[None]:
    """End this process if the block takes longer.

    Args:
        seconds: from now.
        output: ``timeout.txt`` is left there, with the stack, when Python itself hangs in
            native code and cannot report any more.
        report: told the stack of the main thread, before the process is ended.
    """
    main = threading.main_thread().ident

    def expired() -> None:
        try:
            frame = sys._current_frames().get(main or 0)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            report("".join(traceback.format_stack(frame)) if frame else "")
            _end_children()
        finally:
            os._exit(1)

    timer = threading.Timer(seconds, expired)
    timer.daemon = True
    path = output / "timeout.txt"
    with path.open("w") as file:
        timer.start()
        faulthandler.dump_traceback_later(seconds + REPORT_SECONDS, exit=True, file=file)
        try:
            yield
        finally:
            timer.cancel()
            faulthandler.cancel_dump_traceback_later()
    path.unlink()


def _end_children() -> None:
    """Workers that train.py started would otherwise go on without it."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()


def leave(code: int) -> None:
    """End the process now: exit functions run, but nothing is taken down module by module.

    Taking down pandas and scikit-learn takes half a second, and a thread that train.py left
    running would never let it end.
    """
    late = threading.Timer(EXIT_SECONDS, os._exit, (code,))
    late.daemon = True
    late.start()
    try:
        atexit._run_exitfuncs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Lines(io.TextIOBase):
    """A text stream whose lines go to a logger as they come: for what train.py prints."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = ""
        self._lost = 0
        self._lock = threading.RLock()

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str, /) -> int:
        """Keep the text after its last line end, log the lines."""
        with self._lock:
            *ended, rest = text.split("\n")
            for line in ended:
                self._keep(line)
                self.end()
            self._keep(rest)
        return len(text)

    def _keep(self, text: str) -> None:
        # What a progress bar draws again and again is one line: the last drawing.
        _, again, last = text.removesuffix("\r").rpartition("\r")
        if again:
            self._rest, self._lost = "", 0
        kept = last[: LINE_LENGTH - len(self._rest)]
        self._rest += kept
        self._lost += len(last) - len(kept)

    def end(self) -> None:
        """Log what is kept, with or without a line end. Flushing does not: a line is a line."""
        with self._lock:
            line = self._rest.rstrip()
            if self._lost:
                line += f"… ({self._lost} characters more)"
            self._rest, self._lost = "", 0
            if line.strip():
                self._log(line)


class LogHandler(logging.Handler):
    """Python's logging, record by record, to another logger; levels below INFO are dropped."""

    def __init__(self, to: logging.Logger) -> None:
        super().__init__(logging.INFO)
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        self._to.log(record.levelno, self.format(record))


def format_warning(
    message: Warning | str, category: type[Warning], file: str, line: int, _text: str | None = None
) -> str:
    """A Python warning in one line."""
    return f"{Path(file).name}:{line}: {category.__name__}: {message}\n"
