"""Rollouts on real servers: under load, two at once, and killed wherever it may hurt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.rollout import Rollout, RolloutError, Sample, roll_out
from mlops_assets.scoring.generation import Entry, GenerationFile
from resources.endpoints.base import EndpointError, Request, VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.endpoints.process import read_key
from tests.bundles import broken, constant, deadly, regression
from tests.local_servers import eventually, processes_of, serve

PAYLOAD = {"data": [{"a": 1, "b": 2}]}


def _sample(maximum: float = 1e6) -> Sample:
    expect = {"predictions": 1, "minimum": 1000, "maximum": maximum}
    return Sample.model_validate({"name": "one row", "request": PAYLOAD, "expect": expect})


def _deploy(endpoints: LocalEndpoints, version: VersionRef, *samples: Sample) -> Rollout:
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        return roll_out(target, version, samples or [_sample()])


def _shares(endpoints: LocalEndpoints) -> dict[int, int]:
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        return {d.version: d.traffic for d in target.live().values()}


class Client:
    """Asks an endpoint over one kept connection, as fast as it answers."""

    def __init__(self, endpoints: LocalEndpoints, folder: Path) -> None:
        url = endpoints.status("tiny", "staging").url
        assert url is not None
        self._port = int(url.split(":")[2].split("/")[0])
        body = json.dumps(PAYLOAD)
        self._request = (
            f"POST /score HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {read_key(folder)}"
            f"\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self.versions: list[int] = []

    async def ask(self, times: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for _ in range(times):
            await self.once(reader, writer)
        writer.close()

    async def once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        answer = json.loads(await reader.readexactly(int(headers["content-length"])))
        assert " 200 " in head.splitlines()[0], answer
        version = int(headers["x-mlops-version"])
        # Version n answers 1000 n + 3: the header and the number must be of one version.
        assert answer["predictions"] == [pytest.approx(1000 * version + 3)]
        self.versions.append(version)


def test_ten_thousand_requests_during_a_rollout(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    first, second = constant(tmp_path, 1), constant(tmp_path, 2)
    _deploy(endpoints, first)
    client = Client(endpoints, tmp_path / "endpoints" / "staging" / "tiny")

    async def scenario() -> Rollout:
        asking = asyncio.gather(*(client.ask(625) for _ in range(16)))
        while len(client.versions) < 3000:
            await asyncio.sleep(0.01)
        result = await asyncio.to_thread(_deploy, endpoints, second)
        assert not asking.done(), "the rollout ended after the load"
        await asking
        return result

    assert asyncio.run(scenario()).outcome == "deployed"
    counts = Counter(client.versions)
    assert counts.total() == 10_000
    assert set(counts) == {1, 2}
    assert counts[1] >= 3000
    # One worker: once the new version answers, the old one never does again.
    assert client.versions == sorted(client.versions)


def test_a_failing_sample_leaves_the_old_version(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    _deploy(endpoints, regression(tmp_path, 1))
    with pytest.raises(RolloutError, match="sample 'one row': expected at most 1500, found 2003"):
        _deploy(endpoints, regression(tmp_path, 2), _sample(maximum=1500))
    assert _shares(endpoints) == {1: 100}
    with pytest.raises(RolloutError, match=r"version 4 was discarded.* expected at least 1000"):
        _deploy(endpoints, broken(tmp_path, 4))
    assert _shares(endpoints) == {1: 100}
    answer = endpoints.ask("tiny", "staging", Request.of(PAYLOAD))
    assert answer.json()["predictions"] == [pytest.approx(1003)]


def test_a_changed_bundle_leaves_the_old_version(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    _deploy(endpoints, regression(tmp_path, 1))
    changed = regression(tmp_path, 2)
    with (changed.bundle / "model.pkl").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RolloutError, match=r"version 1 serves as before: .*model\.pkl: SHA-256"):
        _deploy(endpoints, changed)
    assert _shares(endpoints) == {1: 100}


def test_a_version_that_kills_its_worker_is_given_up(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    _deploy(endpoints, regression(tmp_path, 1))
    with pytest.raises(RolloutError, match=r"(?s)version 1 serves as before: .*its workers crash"):
        _deploy(endpoints, deadly(tmp_path, 2))
    assert _shares(endpoints) == {1: 100}
    answer = endpoints.ask("tiny", "staging", Request.of(PAYLOAD))
    assert answer.json()["predictions"] == [pytest.approx(1003)]


def test_a_version_that_kills_its_worker_and_was_left_by_a_killed_rollout(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    _deploy(endpoints, regression(tmp_path, 1))
    folder = tmp_path / "endpoints" / "staging" / "tiny"
    endpoints.stop("tiny", "staging")
    left = deadly(tmp_path, 2)
    file = GenerationFile(folder)
    wanted = file.read()
    entry = Entry(str(left.bundle), left.digest, 2)
    file.write(wanted.next({**wanted.deployments, "v2": entry}))
    result = _deploy(endpoints, regression(tmp_path, 3))
    assert (result.outcome, result.previous) == ("deployed", 1)
    assert _shares(endpoints) == {3: 100}


# What a child process is told on its command line; it deploys one version, and may be told to
# kill itself at its n-th touch of the outside: a rename, a request, a start of a process.
CHILD = """
import json, os, signal, sys, subprocess
from pathlib import Path
from mlops_assets.rollout import Sample, roll_out
from resources.endpoints.base import VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.traffic import Traffic
import httpx

task = json.loads(sys.argv[1])
count = 0

def counted(function):
    def wrapper(*arguments, **options):
        touch()
        result = function(*arguments, **options)
        touch()
        return result
    return wrapper

def touch():
    global count
    count += 1
    if count == task["kill_at"]:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = counted(os.replace)
httpx.Client.request = counted(httpx.Client.request)
subprocess.Popen.__init__ = counted(subprocess.Popen.__init__)

version = VersionRef("tiny", task["version"], task["digest"], Path(task["bundle"]))
endpoints = LocalEndpoints(Path(task["root"]), log=print)
with endpoints.open("tiny", "staging", LocalSettings()) as target:
    samples = [Sample.model_validate(task["sample"])]
    traffic = Traffic.model_validate(task["traffic"])
    result = roll_out(target, version, samples, traffic=traffic)
print(result.outcome, count)
"""


#: Copies, then half of the traffic, both watched for a moment, then all.
WATCHED: dict[str, Any] = {
    "mirror_percent": 50,
    "mirror_seconds": 0.1,
    "steps": [{"percent": 50, "seconds": 0.1}],
}


def _child(
    root: Path, version: VersionRef, kill_at: int = 0, traffic: Any = WATCHED
) -> subprocess.Popen[bytes]:
    task = {
        "root": str(root), "version": version.version, "digest": version.digest, "traffic": traffic,
        "bundle": str(version.bundle), "kill_at": kill_at, "sample": _sample().model_dump(),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps(task)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@contextlib.contextmanager
def _asked_all_the_time(client: Client) -> Iterator[Client]:
    """A client in a thread; an answer that is no good fails the test at the end."""
    stop = threading.Event()
    failures: list[BaseException] = []

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", client._port)
        while not stop.is_set():
            await client.once(reader, writer)
            await asyncio.sleep(0.005)
        writer.close()

    def run() -> None:
        try:
            asyncio.run(ask())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield client
    finally:
        stop.set()
        thread.join(20)
    assert not failures


@pytest.mark.long
def test_a_rollout_killed_at_any_point(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    root = tmp_path / "endpoints"
    old, new = regression(tmp_path, 1), regression(tmp_path, 2)
    _deploy(endpoints, old)
    ends: Counter[str] = Counter()
    client = Client(endpoints, root / "staging" / "tiny")
    with _asked_all_the_time(client):
        for kill_at in range(1, 100):
            with _child(root, new, kill_at) as child:
                output, _ = child.communicate(timeout=60)
            if child.returncode == 0:
                assert output.split() == [b"deployed", str(kill_at - 1).encode()], output
                break
            assert child.returncode == -signal.SIGKILL, output
            wanted = {
                e.version: (e.traffic, e.mirror)
                for e in GenerationFile(root / "staging" / "tiny").read().deployments.values()
            }
            ends[str(wanted)] += 1
            # Something serves, whatever happened.
            assert sum(traffic for traffic, _ in wanted.values()) == 100
            started = time.monotonic()
            assert _deploy(endpoints, old).version == 1
            assert time.monotonic() - started < 5  # the dead run holds nobody up
            assert _shares(endpoints) == {1: 100}
    assert kill_at > 20
    assert set(ends) == {
        "{1: (100, 0)}", "{1: (100, 0), 2: (0, 0)}", "{1: (100, 0), 2: (0, 50)}",
        "{1: (50, 0), 2: (50, 0)}", "{1: (0, 0), 2: (100, 0)}", "{2: (100, 0)}",
    }  # fmt: skip
    assert set(client.versions) == {1, 2}
    assert _shares(endpoints) == {2: 100}


@pytest.mark.parametrize("kill_at", [1, 3, 5, 6, 7, 9, 10])
def test_a_first_deployment_killed_at_any_point(
    endpoints: LocalEndpoints, tmp_path: Path, kill_at: int
) -> None:
    root = tmp_path / "endpoints"
    version = regression(tmp_path, 1)
    with _child(root, version, kill_at) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, output
    assert _deploy(endpoints, version).version == 1
    assert _shares(endpoints) == {1: 100}
    assert len(processes_of(root, "scoring.supervisor")) == 1
    answer = endpoints.ask("tiny", "staging", Request.of(PAYLOAD))
    assert answer.json()["predictions"] == [pytest.approx(1003)]


def test_two_rollouts_at_once(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    root = tmp_path / "endpoints"
    _deploy(endpoints, regression(tmp_path, 1))
    versions = [regression(tmp_path, 2), regression(tmp_path, 3)]
    client = Client(endpoints, root / "staging" / "tiny")
    with _asked_all_the_time(client):
        steps = {"steps": [{"percent": 10}, {"percent": 60}]}
        children = [_child(root, version, traffic=steps) for version in versions]
        outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert all(b"deployed" in output for output in outputs)
    assert _shares(endpoints) in ({2: 100}, {3: 100})
    # Traffic was shared while it moved, between neighbours only.
    assert set(client.versions) <= {1, 2, 3}


def test_two_first_deployments_at_once_start_one_server(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    root = tmp_path / "endpoints"
    children = [_child(root, regression(tmp_path, number)) for number in (1, 2)]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert len(processes_of(root, "scoring.supervisor")) == 1
    assert _shares(endpoints) in ({1: 100}, {2: 100})


def test_a_supervisor_killed_during_a_rollout(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    second = regression(tmp_path, 2)
    folder = tmp_path / "endpoints" / "staging" / "tiny"

    def log(line: str) -> None:
        if "asking" in line:
            (supervisor,) = processes_of(folder, "scoring.supervisor")
            supervisor.kill()
            eventually(lambda: not processes_of(folder))

    with (
        endpoints.open("tiny", "staging", LocalSettings()) as target,
        pytest.raises(RolloutError, match=r"version 2 was discarded, .* no server runs"),
    ):
        roll_out(target, second, [_sample()], log=log)
    with pytest.raises(EndpointError, match="no server runs"):
        endpoints.ask("tiny", "staging", Request.of(PAYLOAD))
    result = _deploy(endpoints, second)
    assert (result.outcome, result.previous) == ("deployed", 1)
    assert _shares(endpoints) == {2: 100}
