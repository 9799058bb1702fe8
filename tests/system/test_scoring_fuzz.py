"""Twenty thousand requests that nobody should send, and clients that nobody should be."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import psutil

from mlops_assets.scoring.connections import Limits
from tests.bundles import exported_classifier
from tests.scoring.bodies import INFER, SCORE, Fuzz
from tests.scoring.raw_client import HEALTH, Client, Worker, post, worker

REQUESTS = 20_000
#: Bytes by which a worker may have grown after all of them: allocators keep a little.
GROWTH = 16 * 2**20
IDLE = 5_000
ROW: dict[str, Any] = {"size": 3.5, "colour": "red"}


def test_requests_that_nobody_should_send(tmp_path: Path) -> None:
    version = exported_classifier(tmp_path, ranges="warn")
    sizes: list[int] = []
    with worker(tmp_path / "endpoint", version, Limits()) as server:
        process = psutil.Process(server.process.pid)

        def look(count: int) -> None:
            if count % 500 == 0:
                assert server.ask(HEALTH).body == b"Healthy"
                sizes.append(process.memory_info().rss)

        fuzz = Fuzz(server.port, look)
        fuzz.run(REQUESTS)
        assert server.healthy()
        assert b"Traceback" not in server.log.read_bytes()
    print(f"\n{fuzz.statuses.total()} requests: {dict(fuzz.statuses)}; RSS ", end="")
    print(f"{sizes[3] / 2**20:.1f} MB after 2,000, {sizes[-1] / 2**20:.1f} MB at the end")
    for path in (SCORE, INFER):
        assert fuzz.answered(path, 200) > 0.1
        assert fuzz.answered(path, 400) > 0.4
    assert fuzz.statuses.total() >= REQUESTS * 0.9  # hypothesis leaves out what it has asked
    assert sizes[-1] - sizes[3] < GROWTH


def _times(server: Worker, count: int = 300) -> list[float]:
    """Milliseconds of each score of a newcomer, sorted."""
    client = server.client()
    found: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        client.send(post(json.dumps({"data": [ROW]}).encode()))
        assert client.answer().status == 200
        found.append(1000 * (time.perf_counter() - started))
    return sorted(found)


def test_others_are_served_beside_clients_that_nobody_should_be(tmp_path: Path) -> None:
    """One byte a second, answers that nobody takes, thousands who say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 1000), hard))
    version = exported_classifier(tmp_path)
    limits = Limits(request=3, answer=3)
    try:
        with worker(tmp_path / "endpoint", version, limits) as server:
            alone = _times(server)
            idle = [server.client() for _ in range(IDLE)]
            deaf = [server.client(buffer=4096) for _ in range(4)]
            batch = post(json.dumps({"data": [ROW] * 3000}).encode())
            for client in deaf:
                client.send(batch, batch, batch)
            dripping = [server.client() for _ in range(20)]
            request = post(json.dumps({"data": [ROW]}).encode())
            for second in range(4):
                _drip(dripping, request[second : second + 1])
                crowd = _times(server)
                time.sleep(1)
            assert server.healthy()
            assert server.refused("timeout") == len(dripping)
            assert not any(client.has_ended() for client in idle)
            print(
                f"\np50 and p99 of a score alone {alone[150]:.2f}, {alone[297]:.2f} ms; beside "
                f"{IDLE} idle, {len(dripping)} slow, {len(deaf)} deaf clients "
                f"{crowd[150]:.2f}, {crowd[297]:.2f} ms"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _drip(clients: list[Client], byte: bytes) -> None:
    for client in clients:
        if not client.has_ended():
            client.send(byte)
