"""Servers that capture, what they have kept, and clients that know what they sent."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.supervisor import read_state
from resources.endpoints.base import VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.endpoints.process import read_key
from tests.local_servers import eventually, local_endpoints, processes_of, serve, staging_folder

BODY = {"data": [{"a": 1, "b": 2}]}


@dataclass
class Capturing:
    """An endpoint of version 1 of ``tiny`` that captures."""

    endpoints: LocalEndpoints
    #: The endpoint's.
    folder: Path
    #: Of the Parquet files.
    captured: Path

    @property
    def port(self) -> int:
        state = read_state(self.folder)
        assert state is not None
        return state.port

    def client(self) -> Client:
        return Client(self.port, read_key(self.folder))

    def stop(self) -> None:
        """End the server as people do: all files are finished then."""
        self.endpoints.stop("tiny", "staging")

    def rows(self) -> list[dict[str, Any]]:
        """All captured rows, in the order of their time; every file must be readable."""
        return rows_below(self.captured)

    def process(self, module: str) -> psutil.Process:
        (found,) = processes_of(self.folder, f"scoring.{module} ")
        return found

    def metric(self, name: str) -> dict[str, float]:
        """Labels -> the value of a metric."""
        text = self.client().ask("GET", "/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return {k.removeprefix(name): float(v) for k, v in (x.rsplit(" ", 1) for x in lines)}


def rows_below(folder: Path) -> list[dict[str, Any]]:
    """All rows of the Parquet files below a folder."""
    tables = [pq.read_table(path) for path in sorted(folder.rglob("*.parquet"))]
    found = [row for table in tables for row in table.to_pylist()]
    return sorted(found, key=lambda row: (row["mlops_time"], row["mlops_row"] or 0))


@contextmanager
def capturing(
    root: Path, version: VersionRef, workers: int = 1, store: Path | None = None, **capture: Any
) -> Iterator[Capturing]:
    """A server that captures; none of its processes outlives the block."""
    captured = store or root / "captured" / "staging" / "tiny"
    wanted = {"rotate_seconds": 0.5, **capture}
    settings = LocalSettings(workers=workers, capture=CaptureSettings(str(captured), **wanted))
    with local_endpoints(root / "endpoints") as endpoints:
        serve(endpoints, version, settings)
        found = Capturing(endpoints, staging_folder(root), captured)
        eventually(lambda: (found.folder / "capture.sock").exists())
        yield found


class Client:
    """One connection that is kept."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._key = key

    def ask(
        self, method: str = "POST", path: str = "/score", body: Any = None, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of an answer; the body goes as JSON, bytes go as they are."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(
            method, path, data, {"authorization": f"Bearer {self._key}", **named}
        )
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def score(self, body: Any, identity: str) -> tuple[int, Any]:
        status, answer = self.ask(body=body, x_request_id=identity)
        return status, json.loads(answer)


@dataclass
class Load:
    """Requests with ids of their own, one after another on each of some connections."""

    server: Capturing
    threads: int = 2
    #: Id -> Unix seconds of its answer.
    answered: dict[str, float] = field(default_factory=dict[str, float])
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        client = self.server.client
        threads = [
            threading.Thread(target=self._run, args=(number, client()))
            for number in range(self.threads)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def rate(self, seconds: float) -> float:
        """Answers per second, for some seconds from now."""
        before, started = len(self.answered), time.perf_counter()
        time.sleep(seconds)
        return (len(self.answered) - before) / (time.perf_counter() - started)

    def _run(self, number: int, client: Client) -> None:
        count = 0
        while not self._stop.is_set():
            identity = f"{number}-{count}"
            count += 1
            try:
                status, _ = client.ask(body=BODY, x_request_id=identity)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
                try:  # the port is kept, by this worker or the next
                    client = self.server.client()
                except (AssertionError, OSError):
                    return
                continue
            assert status == 200
            self.answered[identity] = time.time()
