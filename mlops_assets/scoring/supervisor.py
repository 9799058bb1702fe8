"""``python -m mlops_assets.scoring.supervisor FOLDER`` keeps an endpoint's workers alive.

Our own and not uvicorn's Multiprocess: that one restarts a crashing worker without pause, kills
one that is busy for five seconds, and its workers outlive it. Here the workers are plain
processes that inherit the listening socket, so a connection made while the only worker is being
restarted waits in the socket's queue and is answered; a pipe tells them when the supervisor is
gone.

It writes ``state.json`` itself, once it is bound, and holds ``serving.lock`` for life: whoever
started it may be killed at any moment without leaving a server that nobody finds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring import processes
from mlops_assets.scoring.capture.settings import PROCESS, CaptureSettings
from mlops_assets.scoring.generation import ack_path, read_acks
from mlops_assets.scoring.keys import KEYS
from mlops_assets.scoring.logs import log_to_stderr
from mlops_assets.scoring.metrics import COUNTS

HOST = "127.0.0.1"
SETTINGS, STATE, LOCK, LOG = "settings.json", "state.json", "serving.lock", "server.log"
#: Exit codes that whoever started the supervisor understands.
ALREADY_SERVED, PORT_TAKEN = 3, 4
MAXIMUM_LOG = 4 * 2**20
POLL_SECONDS = 0.1
#: A worker that crashes at once is started again after this long, and twice as long each time.
FIRST_PAUSE, LONGEST_PAUSE, HEALTHY_AFTER = 0.1, 10.0, 30.0
GRACE_SECONDS = 8.0
#: For who captures, however long the workers took.
LEAST_GRACE_SECONDS = 2.0
BIND_SECONDS = 2.0
logger = logging.getLogger("supervisor")


class ListenError(Exception):
    """A port that cannot be had; says why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an endpoint is to be served; written by whoever starts the supervisor."""

    #: A fixed port, or None: the last one if it is free, else any.
    port: int | None = None
    workers: int = 1
    #: The address that is listened on.
    host: str = HOST
    #: File of the keys, below the endpoint's folder; None leaves them to who stands before it.
    keys: str | None = KEYS
    #: Pages of these origins may ask from a browser.
    cors_origins: tuple[str, ...] = ()
    #: A log line for every request.
    access_log: bool = False
    #: When the server ends by itself, in seconds since 1970; None for never.
    ends: float | None = None
    #: What of the requests is kept; None for nothing.
    capture: CaptureSettings | None = None

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Settings:
        """Read them from JSON; raises TypeError."""
        origins: list[str] = value.pop("cors_origins", [])
        capture = value.pop("capture", None)
        return replace(
            cls(**value),
            cors_origins=tuple(origins),
            capture=None if capture is None else CaptureSettings.from_dict(capture),
        )


@dataclass(frozen=True, slots=True)
class State:
    """A running supervisor."""

    id: str
    pid: int
    created: float
    port: int
    settings: Settings


def read_state(folder: Path) -> State | None:
    """The supervisor that was last started, running or not."""
    try:
        value: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        settings = Settings.from_dict(value.pop("settings"))
        return State(**value, settings=settings)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_settings(folder: Path) -> Settings:
    """How the endpoint of a folder is to be served."""
    return Settings.from_dict(json.loads((folder / SETTINGS).read_bytes()))


class Supervisor:
    """Binds the port and keeps the workers alive."""

    def __init__(
        self, folder: Path, settings: Settings, failed: Callable[[], bool] = lambda: False
    ) -> None:
        """What serves a folder.

        Args:
            folder: the endpoint's.
            settings: how it is served.
            failed: asked now and then; True ends the server.
        """
        self._folder = folder
        self._settings = settings
        self._failed = failed
        self._workers: list[_Child] = []
        self._capture: list[_Child] = []
        self._ending = False

    def run(self) -> bool:
        """Serve until SIGTERM or SIGINT, until its time is over, or until it has failed.

        Returns:
            Whether it was told to end.

        Raises:
            ListenError: the port cannot be had.
        """
        before = read_state(self._folder)
        self._end_leftovers()
        listening = self._bind(before.port if before else None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        state = State(
            before.id if before else secrets.token_hex(8),
            os.getpid(),
            processes.created(),
            listening.getsockname()[1],
            self._settings,
        )
        write_atomic(self._folder / STATE, to_json(asdict(state)))
        logger.info("serving on %s:%d", self._settings.host, state.port)
        # Nobody writes into the pipe; it closes when this process ends, however it does.
        reading, _writing = os.pipe()
        socket_, alive = str(listening.fileno()), str(reading)
        options = ("--socket", socket_, "--alive", alive, "--identity", state.id)
        self._workers = [
            _Child(self._folder, "worker", options, (listening.fileno(), reading))
            for _ in range(self._settings.workers)
        ]
        if self._settings.capture is not None:
            capture = _Child(self._folder, "capture", ("--alive", alive), (reading,))
            self._capture = [capture]
        while not (self._ending or self._failed() or self._is_over()):
            for child in (*self._capture, *self._workers):
                child.keep()
            bound_log(self._folder / LOG)
            time.sleep(POLL_SECONDS)
        self._stop_workers()
        logger.info("ended")
        return self._ending

    def _bind(self, preferred: int | None) -> socket.socket:
        """Bind the port; one that a server of ours has just let go may be held a little longer."""
        deadline = time.monotonic() + BIND_SECONDS
        while True:
            try:
                return bind(self._settings.port, preferred, self._settings.host)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                    place = f"port {self._settings.port} of {self._settings.host}"
                    raise ListenError(f"{place}: {error.strerror}") from None
                time.sleep(POLL_SECONDS)

    def _is_over(self) -> bool:
        ends = self._settings.ends
        return ends is not None and time.time() >= ends

    def _end(self, *_: Any) -> None:
        self._ending = True

    def _end_leftovers(self) -> None:
        """End workers of a supervisor that was killed: they may still hold the port."""
        for ack in read_acks(self._folder):
            processes.end(ack.pid, ack.created, grace=3)
            ack_path(self._folder, ack.pid).unlink(missing_ok=True)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((self._folder / PROCESS).read_bytes())
            processes.end(found["pid"], found["created"], grace=3)

    def _stop_workers(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        # Who captures ends last: the workers hand on what they have.
        for children in (self._workers, self._capture):
            for child in children:
                child.ask_to_end()
            for child in children:
                child.wait(max(deadline, time.monotonic() + LEAST_GRACE_SECONDS))


class _Child:
    """A place that is always to hold one running process."""

    def __init__(
        self, folder: Path, module: str, options: Sequence[str], descriptors: Sequence[int]
    ) -> None:
        self._folder = folder
        self._module = module
        self._options = options
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._not_before = 0.0
        self._pause = FIRST_PAUSE

    def keep(self) -> None:
        """Start the process if it does not run, unless it just crashed."""
        if self._process is not None and self._process.poll() is not None:
            self._crashed(self._process)
        if self._process is None and time.monotonic() >= self._not_before:
            self._process = self._start()
            self._started = time.monotonic()

    def ask_to_end(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _crashed(self, process: subprocess.Popen[bytes]) -> None:
        lived = time.monotonic() - self._started
        self._pause = FIRST_PAUSE if lived > HEALTHY_AFTER else self._pause
        logger.error(
            "%s %d ended with %s after %.1f s; another one in %.1f s",
            self._module, process.pid, process.returncode, lived, self._pause,
        )  # fmt: skip
        self._not_before = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        ack_path(self._folder, process.pid).unlink(missing_ok=True)
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        module = f"mlops_assets.scoring.{self._module}"
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(self._folder), *self._options],
            stdin=subprocess.DEVNULL,
            pass_fds=self._descriptors,
            # Small models lose more to threads than they win; workers are the parallelism.
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        )


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def bind(port: int | None, preferred: int | None, host: str = HOST) -> socket.socket:
    """A listening socket on the fixed port, else on the preferred one, else on any free one.

    It listens at once: connections wait for the first worker instead of being refused.

    Raises:
        OSError: the fixed port is taken, or the address is none of this machine's.
    """
    for candidate in [port] if port is not None else [preferred or 0, 0]:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, candidate))
            listening.listen(2048)
        except OSError as error:
            listening.close()
            if port is not None or candidate == 0 or error.errno != errno.EADDRINUSE:
                raise
            continue
        listening.set_inheritable(True)
        return listening
    raise AssertionError("the system always has a free port, or an error")


def bound_log(path: Path) -> None:
    """Move a log that grew too large aside; all who write append, so it may be truncated."""
    if path.is_file() and path.stat().st_size > MAXIMUM_LOG:
        older = path.with_suffix(".log.1")
        older.write_bytes(path.read_bytes())
        os.truncate(path, 0)


def main() -> int:
    """Serve the endpoint of a folder, unless another supervisor does."""
    log_to_stderr()
    folder = Path(sys.argv[1])
    with (folder / LOCK).open("w") as lock:
        if not take(lock.fileno(), seconds=2):
            logger.info("another supervisor serves %s", folder)
            return ALREADY_SERVED
        # Counters begin with the server, as Prometheus expects.
        shutil.rmtree(folder / COUNTS, ignore_errors=True)
        settings = read_settings(folder)
        try:
            Supervisor(folder, settings).run()
        except ListenError as error:
            logger.error("%s", error)
            return PORT_TAKEN
        return 0


def take(descriptor: int, seconds: float) -> bool:
    """Take an exclusive lock; waits a moment, for others take it briefly to see who lives."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
