"""An endpoint at full load through updates, a bad canary and a killed worker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlops_assets.rollout import RolloutError, Sample, roll_out
from mlops_assets.scoring.generation import read_acks
from resources.endpoints.base import VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.endpoints.process import read_key
from resources.traffic import Traffic
from tests.bundles import exported, regression, tried
from tests.local_servers import eventually, local_endpoints, serve, staging_folder

#: Seconds of full load; `MLOPS_SOAK_SECONDS=180` is the long way.
SECONDS = float(os.environ.get("MLOPS_SOAK_SECONDS", "30"))
CONNECTIONS = 8
#: Bytes by which a worker may have grown since it was warm.
GROWTH = 12 * 2**20
SETTINGS = LocalSettings(workers=2)
SAMPLE = Sample.model_validate({"name": "one row", "request": {"data": [{"a": 1, "b": 2}]}})


class Clients:
    """Ask without a pause; a connection that is lost is made anew, and counted."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        body = json.dumps({"data": [{"a": 1, "b": 2}]})
        self._request = (
            f"POST /score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        #: (version, status) -> answers.
        self.answers: Counter[tuple[str, str]] = Counter()
        self.lost: list[float] = []
        self._stop = False
        self._thread = threading.Thread(target=asyncio.run, args=(self._all(),))

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(CONNECTIONS)))

    async def _one(self, number: int) -> None:
        # One after another: of connections that come together one worker would take all.
        await asyncio.sleep(number / 10)
        while not self._stop:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                while not self._stop:
                    writer.write(self._request)
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                    first, *lines = head.splitlines()
                    headers = dict(line.split(": ", 1) for line in lines if line)
                    await reader.readexactly(int(headers["content-length"]))
                    version = headers.get("x-mlops-version", "none")
                    self.answers[version, first.split()[1]] += 1
            except (asyncio.IncompleteReadError, ConnectionError):
                self.lost.append(time.monotonic())
            finally:
                writer.close()


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[LocalEndpoints]:
    with local_endpoints(tmp_path / "endpoints") as found:
        yield found


def _sizes(folder: Path) -> dict[int, int]:
    return {ack.pid: psutil.Process(ack.pid).memory_info().rss for ack in read_acks(folder)}


def _deploy(endpoints: LocalEndpoints, version: VersionRef, traffic: Traffic) -> None:
    with endpoints.open("tiny", "staging", SETTINGS) as target:
        roll_out(target, version, [SAMPLE], traffic=traffic)


@pytest.mark.timeout(400)
def test_full_load_through_all_that_happens(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    folder = staging_folder(tmp_path)
    # From its pickle: what pandas takes once is no growth.
    serve(endpoints, regression(tmp_path, 1), SETTINGS)
    status = endpoints.status("tiny", "staging")
    assert status.url is not None
    port = int(status.url.split(":")[2].split("/")[0])
    steps = Traffic.model_validate({"steps": [{"percent": 10, "seconds": 60}]})
    began = time.monotonic()
    with Clients(port, read_key(folder)) as clients:
        time.sleep(SECONDS / 6)
        for number in (2, 3):
            _deploy(endpoints, exported(tmp_path, number), Traffic())
        warm = _sizes(folder)
        time.sleep(SECONDS / 6)
        # Slow, so that it is found without a request that fails.
        with pytest.raises(RolloutError, match="version 4 was discarded, version 3 serves"):
            _deploy(endpoints, tried(tmp_path, 4, seconds=0.02), steps)
        time.sleep(SECONDS / 6)
        assert not clients.lost
        connected = {pid: _connections(pid, port) for pid in warm}
        killed, kept = sorted(connected, key=lambda pid: -connected[pid])
        assert connected[killed] > 0
        os.kill(killed, signal.SIGKILL)
        moment = time.monotonic()
        eventually(lambda: len(_alive(folder)) == 2 and killed not in _alive(folder))
        time.sleep(SECONDS / 6)
        _deploy(endpoints, exported(tmp_path, 5), Traffic())
        time.sleep(max(1.0, began + SECONDS - time.monotonic()))
        ends = _sizes(folder)
    elapsed = time.monotonic() - began
    total = sum(clients.answers.values())
    growth = ends[kept] - warm[kept]
    print(
        f"\n{total} requests in {elapsed:.0f} s, {total / elapsed:.0f}/s: {dict(clients.answers)}; "
        f"{len(clients.lost)} of {CONNECTIONS} connections lost with the killed worker; the other "
        f"grew by {growth / 2**20:.1f} MB to {ends[kept] / 2**20:.1f} MB"
    )
    # What was in flight on the killed process is lost with it, one request per connection.
    assert len(clients.lost) == connected[killed]
    assert all(0 <= lost - moment < 5 for lost in clients.lost)
    assert {status for _, status in clients.answers} == {"200"}
    assert {version for version, _ in clients.answers} == set("12345")
    assert growth < GROWTH


def _connections(pid: int, port: int) -> int:
    """How many clients a worker has."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in found)


def _alive(folder: Path) -> list[int]:
    return [ack.pid for ack in read_acks(folder) if psutil.pid_exists(ack.pid)]
