"""One server's processes: started, asked, weighed, ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mlops_assets.scoring.supervisor import HOST
from tests.bench.serving.servers import Server

START_SECONDS, STOP_SECONDS = 90.0, 15.0
#: Between two attempts of a server that does not listen yet.
PAUSE_SECONDS = 0.005
#: An attempt that was accepted may wait for this long: some servers listen before they can answer.
ATTEMPT_SECONDS = 2.0
#: Two libraries add up floats in different orders, and ONNX computes in 32 bits.
TOLERANCE = 1e-4


class ServerError(Exception):
    """A server does not start or gives wrong answers; the message names it."""


@dataclass(frozen=True)
class Memory:
    """Megabytes (10^6 bytes) of a server."""

    #: Of the worker: what is resident, and what of that it shares with no other process.
    rss: float
    uss: float
    #: USS of all its processes: what ending it would free.
    all_uss: float


class Running:
    """A server that runs."""

    def __init__(self, server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
        self.server = server
        self.first_answer = math.nan
        self._process = process
        self._log = log

    def wait_for(self, rows: int, expected: list[Any]) -> None:
        """Ask until the answer is right; raises ServerError."""
        deadline = time.monotonic() + START_SECONDS
        last = "no answer"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise self._failed(f"ended with exit code {self._process.returncode}")
            try:
                self._compare(rows, expected)
            except (OSError, http.client.HTTPException) as error:
                last = str(error)
                time.sleep(PAUSE_SECONDS)
            else:
                return
        raise self._failed(f"not ready within {START_SECONDS:.0f} s: {last}")

    def check(self, rows: int, expected: list[Any]) -> None:
        """Ask once; raises ServerError if the answer is not the expected one."""
        try:
            self._compare(rows, expected)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(str(error)) from None

    def memory(self) -> Memory:
        """What its processes hold now; the worker is the one that holds most."""
        found = [process.memory_full_info() for process in self._tree()]
        worker = max(found, key=lambda info: info.uss)
        return Memory(worker.rss / 1e6, worker.uss / 1e6, sum(info.uss for info in found) / 1e6)

    def cpu_seconds(self) -> float:
        """What its processes have computed since they started."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(time.user + time.system for time in times)

    def end(self) -> None:
        """End the server and all that it started."""
        processes = self._tree()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _compare(self, rows: int, expected: list[Any]) -> None:
        status, body = self._ask(rows)
        if status != 200:
            raise http.client.HTTPException(f"status {status}: {body[:500]!r}")
        found = json.loads(body)["predictions"]
        if not same(found, expected):
            raise self._failed(f"answers {found[:5]}, expected {expected[:5]} ({rows} rows)")

    def _ask(self, rows: int) -> tuple[int, bytes]:
        server = self.server
        connection = http.client.HTTPConnection(HOST, server.port, timeout=ATTEMPT_SECONDS)
        try:
            body = server.bodies[rows].read_bytes()
            connection.request("POST", server.path, body, server.headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _failed(self, message: str) -> ServerError:
        tail = self._log.read_text(errors="replace")[-3000:]
        return ServerError(f"{self.server.name}: {message}\n{tail}")


@contextmanager
def started(server: Server, folder: Path, rows: int, expected: list[Any]) -> Iterator[Running]:
    """Start a server and wait for its first right answer; it is ended with the block."""
    log = folder / f"{server.port}.log"
    begin = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command,
            cwd=folder,
            env=server.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    running = Running(server, process, log)
    try:
        running.wait_for(rows, expected)
        running.first_answer = time.perf_counter() - begin
        yield running
    finally:
        running.end()


def same(found: list[Any], expected: list[Any]) -> bool:
    """Whether predictions are the same: labels exactly, numbers within the tolerance."""
    return len(found) == len(expected) and all(
        math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if isinstance(other, float)
        else one == other
        for one, other in zip(found, expected, strict=True)
    )
