"""The server process of one local endpoint: found again, started, awaited, ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring import processes
from mlops_assets.scoring.generation import Generation, read_acks
from mlops_assets.scoring.keys import KEYS, ensure_keys
from mlops_assets.scoring.supervisor import (
    ALREADY_SERVED,
    HOST,
    LOCK,
    LOG,
    PORT_TAKEN,
    SETTINGS,
    Settings,
    State,
    bind,
    read_state,
    take,
)
from resources.endpoints.base import EndpointError

POLL_SECONDS = 0.01
#: Seconds for the supervisor, which imports next to nothing, to bind its port.
START_SECONDS = 30.0
STOP_SECONDS = 12.0
#: Workers that may die while a generation is waited for: a version can kill who loads it.
MAXIMUM_CRASHES = 3
#: Supervisors started by this process, kept so that an ended one does not stay a zombie.
_started: list[subprocess.Popen[bytes]] = []


class ServerProcess:
    """The supervisor and the workers that serve one folder."""

    def __init__(self, folder: Path, name: str, timeout: float) -> None:
        self.folder = folder
        self.name = name
        #: Seconds that workers may take to follow a generation.
        self.timeout = timeout

    def running(self) -> State | None:
        """The supervisor, if it is alive."""
        for process in _started:
            process.poll()
        state = read_state(self.folder)
        return state if state and processes.is_alive(state.pid, state.created) else None

    def ensure(self, settings: Settings) -> bool:
        """See to it that a supervisor runs, with these settings.

        Returns:
            Whether it had to be started.

        Raises:
            EndpointError: it does not start.
        """
        state = self.running()
        if state is not None and state.settings != settings:
            self.stop()  # the environment's file asks for another port or number of workers
            state = None
        if state is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            ensure_keys(self.folder / KEYS)
            write_atomic(self.folder / SETTINGS, to_json(asdict(settings)))
            self._start(settings)
            return True
        ensure_keys(self.folder / KEYS)
        return False

    def stop(self) -> bool:
        """End the supervisor, which ends its workers; False if none ran."""
        state = self.running()
        return state is not None and processes.end(state.pid, state.created, STOP_SECONDS)

    def wait_for(self, generation: Generation) -> dict[str, str]:
        """Wait until all living workers, at least one, serve a generation.

        Returns:
            The deployments that a worker could not load, and why.

        Raises:
            EndpointError: the server ended, its workers crash, or they took too long.
        """
        deadline = time.monotonic() + self.timeout
        seen: set[int] = set()
        while True:
            acks = [a for a in read_acks(self.folder) if processes.is_alive(a.pid, a.created)]
            alive = {ack.pid for ack in acks}
            seen |= alive
            if len(seen - alive) >= MAXIMUM_CRASHES:
                raise EndpointError(f"{self.name}: its workers crash{self.log_tail()}")
            if acks and all(ack.generation >= generation.number for ack in acks):
                return {name: text for ack in acks for name, text in ack.errors.items()}
            if self.running() is None:
                raise EndpointError(f"{self.name}: the server ended{self.log_tail()}")
            if time.monotonic() >= deadline:
                raise EndpointError(
                    f"{self.name}: no answer from its workers within {self.timeout:.0f} s"
                    f"{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def healthy(self, state: State) -> bool:
        """Whether this server, and not another one on its port, says that it is."""
        with contextlib.suppress(httpx.HTTPError):
            # Plain HTTP on this machine: reading certificates would only take time.
            url = f"http://{HOST}:{state.port}/"
            answer = httpx.get(url, timeout=2, trust_env=False, verify=False)  # noqa: S501
            found = answer.headers.get("x-mlops-endpoint")
            return answer.status_code == 200 and found == state.id
        return False

    def log_tail(self, lines: int = 15) -> str:
        """The end of the server's log, as the end of a message."""
        path = self.folder / LOG
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            tail = file.read().decode(errors="replace").splitlines()[-lines:]
        return "\n".join([f"; the end of {path}:", *tail])

    def _start(self, settings: Settings) -> None:
        deadline = time.monotonic() + START_SECONDS
        process: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            if self.running() is not None:
                return
            if process is not None and process.poll() is not None:
                if process.returncode != ALREADY_SERVED:
                    raise self._failed(process.returncode, settings)
                process = None
            if process is None and not self._is_served():
                self._require_port(settings)
                process = self._spawn()
            # Else a supervisor is about to bind: this one's, or one that a killed run started.
            time.sleep(POLL_SECONDS)
        raise EndpointError(f"{self.name}: no server within {START_SECONDS:.0f} s{self.log_tail()}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Dagster's variables would make a server that outlives its run look like a part of it.
        kept = {n: v for n, v in os.environ.items() if not n.startswith("DAGSTER_")}
        with (self.folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlops_assets.scoring.supervisor", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=kept,
                start_new_session=True,
                close_fds=True,
            )
        _started.append(process)
        return process

    def _is_served(self) -> bool:
        with (self.folder / LOCK).open("w") as lock:
            return not take(lock.fileno(), seconds=0)

    def _require_port(self, settings: Settings) -> None:
        if settings.port is None:
            return
        try:
            bind(settings.port, None).close()
        except OSError as error:
            if not self._own_leftover_holds_it():
                raise self._failed(PORT_TAKEN, settings) from error

    def _own_leftover_holds_it(self) -> bool:
        # Workers whose supervisor was killed; the next supervisor ends them before it binds.
        return any(processes.is_alive(ack.pid, ack.created) for ack in read_acks(self.folder))

    def _failed(self, code: int, settings: Settings) -> EndpointError:
        if code != PORT_TAKEN:
            return EndpointError(
                f"{self.name}: the server ended with exit code {code}{self.log_tail()}"
            )
        return EndpointError(
            f"{self.name}: port {settings.port} is taken by {_holder(settings.port)}; end that, "
            "or set another port for this model in the environment's JSON file "
            "(key local.ports), or none for a free one"
        )


def _holder(port: int | None) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid is not None
            if listens and tuple(connection.laddr)[1:2] == (port,):
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another process"


def read_key(folder: Path) -> str:
    """The primary key of an endpoint's folder; raises EndpointError."""
    try:
        return (folder / KEYS).read_text().split()[0]
    except (FileNotFoundError, IndexError):
        raise EndpointError(f"{folder / KEYS}: no key; deploy to this endpoint first") from None
