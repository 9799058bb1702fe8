"""Local endpoints as they are: real processes, real HTTP."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from mlops_assets.scoring.generation import GenerationFile, read_acks
from mlops_assets.scoring.supervisor import bind, read_state
from resources.endpoints.base import Deployment, EndpointError, Request
from resources.endpoints.local import LocalEndpoints, LocalSettings, split_traffic
from resources.endpoints.lock import held
from resources.endpoints.process import read_key
from tests.bundles import broken, classifier, regression
from tests.local_servers import eventually, local_endpoints, processes_of, serve

ASK = Request.of({"data": [{"a": 1, "b": 2}]})


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[LocalEndpoints]:
    with local_endpoints(tmp_path / "endpoints") as found:
        yield found


def _folder(tmp_path: Path) -> Path:
    return tmp_path / "endpoints" / "staging" / "tiny"


def _version(endpoints: LocalEndpoints) -> int:
    answer = endpoints.ask("tiny", "staging", ASK)
    assert answer.status == 200, answer.body
    (value,) = answer.json()["predictions"]
    assert answer.headers["x-mlops-version"] == str(round(value - 3) // 1000)
    return int(answer.headers["x-mlops-version"])


def test_the_five_verbs(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    first, second = regression(tmp_path, 1), regression(tmp_path, 2)
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert target.live() == {}
        assert target.score(None, ASK).status == 503
        assert target.stage(first) == Deployment("v1", 1, first.digest, 0)
        target.promote("v1", 100)
        assert target.stage(second) == Deployment("v2", 2, second.digest, 0)
        assert target.stage(second) == Deployment("v2", 2, second.digest, 0)
        assert target.score(None, ASK).json() == {"predictions": [pytest.approx(1003)]}
        assert target.score("v2", ASK).json() == {"predictions": [pytest.approx(2003)]}
        target.promote("v2", 30)
        assert {name: d.traffic for name, d in target.live().items()} == {"v1": 70, "v2": 30}
        asked = [target.score(None, ASK).headers["azureml-model-deployment"] for _ in range(60)]
        assert set(asked) == {"v1", "v2"}
        target.promote("v2", 100)
        target.discard("v1")
        target.discard("v1")
        assert list(target.live()) == ["v2"]
        assert target.score("v1", ASK).status == 404
        with pytest.raises(EndpointError, match="no deployment 'v1'"):
            target.promote("v1", 50)
        with pytest.raises(EndpointError, match="0 to 100 percent, not 101"):
            target.promote("v2", 101)
    assert _version(endpoints) == 2
    serving = endpoints.serving("tiny", "staging")
    assert serving == Deployment("v2", 2, second.digest, 100)


def test_a_server_is_found_again_and_ended(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert endpoints.known() == []
    unknown = endpoints.status("tiny", "staging")
    assert (unknown.version, unknown.url, unknown.healthy) == (None, None, False)
    assert not endpoints.stop("tiny", "staging")
    serve(endpoints, regression(tmp_path, 1))
    other = LocalEndpoints(tmp_path / "endpoints")  # as another run has it
    assert other.known() == [("tiny", "staging")]
    status = other.status("tiny", "staging")
    assert (status.version, status.healthy, status.key_file) == (1, True, folder / "keys")
    before = read_state(folder)
    with other.open("tiny", "staging", LocalSettings()) as target:
        assert read_state(folder) == before
        assert target.url == status.url
    assert other.stop("tiny", "staging")
    assert not processes_of(folder)
    stopped = other.status("tiny", "staging")
    assert (stopped.version, stopped.healthy, stopped.url) == (1, False, status.url)
    with pytest.raises(EndpointError, match="tiny/staging: no server runs; deploy"):
        other.ask("tiny", "staging", ASK)
    with other.open("tiny", "staging", LocalSettings()) as target:
        assert target.url == status.url
    assert _version(endpoints) == 1


def test_the_server_belongs_to_no_run(
    endpoints: LocalEndpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_RUN_ID", "some run")
    serve(endpoints, regression(tmp_path, 1))
    folder = _folder(tmp_path)
    key = read_key(folder)
    for process in processes_of(folder):
        assert os.getsid(process.pid) != os.getsid(0)
        assert not [name for name in process.environ() if name.startswith("DAGSTER_")]
        assert key not in " ".join(process.cmdline())
        assert Path(f"/proc/{process.pid}/fd/0").readlink() == Path("/dev/null")
        assert Path(f"/proc/{process.pid}/fd/1").readlink() == folder / "server.log"
    (worker,) = processes_of(folder, "scoring.worker")
    assert worker.environ()["OMP_NUM_THREADS"] == "1"
    listening = {c.laddr.ip for c in worker.net_connections("tcp") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    assert key not in (folder / "server.log").read_text()


def test_keys(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    status = endpoints.status("tiny", "staging")
    assert stat.S_IMODE(status.key_file.stat().st_mode) == 0o600
    assert status.url is not None
    for key in status.key_file.read_text().split():
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.post(status.url, content=ASK.body, headers=headers).status_code == 200
    refused = endpoints.ask("tiny", "staging", Request(ASK.body, authorized=False))
    assert refused.status == 401
    status.key_file.chmod(0o644)
    with endpoints.open("tiny", "staging", LocalSettings()):
        assert stat.S_IMODE(status.key_file.stat().st_mode) == 0o600
    status.key_file.unlink()
    with pytest.raises(EndpointError, match="keys: no key; deploy to this endpoint first"):
        endpoints.ask("tiny", "staging", ASK)


def test_a_worker_that_is_killed_comes_back(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 3))
    folder = _folder(tmp_path)
    generation = GenerationFile(folder).read()
    (before,) = processes_of(folder, "scoring.worker")
    before.send_signal(signal.SIGKILL)
    before.wait(5)
    assert _version(endpoints) == 3  # the connection waited for the next worker
    (after,) = read_acks(folder)
    assert after.pid != before.pid
    assert (after.generation, after.errors) == (generation.number, {})
    log = (folder / "server.log").read_text()
    assert f"worker {before.pid} ended with -9" in log


def test_two_workers_follow_together(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    settings = LocalSettings(workers=2)
    serve(endpoints, regression(tmp_path, 1), settings)
    folder = _folder(tmp_path)
    eventually(lambda: len(read_acks(folder)) == 2)
    serve(endpoints, regression(tmp_path, 2), settings)
    acks = read_acks(folder)
    assert len({ack.pid for ack in acks}) == 2
    assert {ack.generation for ack in acks} == {GenerationFile(folder).read().number}
    assert {_version(endpoints) for _ in range(20)} == {2}


def test_a_supervisor_that_is_killed_takes_its_workers_along_and_comes_back(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    serve(endpoints, regression(tmp_path, 1))
    folder = _folder(tmp_path)
    url = endpoints.status("tiny", "staging").url
    (supervisor,) = processes_of(folder, "scoring.supervisor")
    supervisor.send_signal(signal.SIGKILL)
    eventually(lambda: not processes_of(folder))
    assert not endpoints.status("tiny", "staging").healthy
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert target.url == url
        assert _version(endpoints) == 1
    assert endpoints.status("tiny", "staging").healthy


def test_open_waits_for_workers_that_a_killed_supervisor_left(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    settings = LocalSettings(port=_free_port())
    serve(endpoints, regression(tmp_path, 1), settings)
    folder = _folder(tmp_path)
    (worker,) = processes_of(folder, "scoring.worker")
    (supervisor,) = processes_of(folder, "scoring.supervisor")
    worker.suspend()  # it cannot notice, and holds the port
    supervisor.kill()
    supervisor.wait(5)
    with endpoints.open("tiny", "staging", settings) as target:
        assert target.url == f"http://127.0.0.1:{settings.port}/score"
        assert _version(endpoints) == 1
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def _free_port() -> int:
    """A free port below those that the system hands out, which other tests take meanwhile."""
    while True:
        with contextlib.suppress(OSError), bind(random.randrange(15_000, 30_000), None) as free:
            return free.getsockname()[1]


def test_a_fixed_port_and_a_change_of_it(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    first, second = _free_port(), _free_port()
    serve(endpoints, regression(tmp_path, 1), LocalSettings(port=first))
    assert endpoints.status("tiny", "staging").url == f"http://127.0.0.1:{first}/score"
    with endpoints.open("tiny", "staging", LocalSettings(port=second)) as target:
        assert target.url == f"http://127.0.0.1:{second}/score"
    assert _version(endpoints) == 1
    assert len(processes_of(_folder(tmp_path), "scoring.supervisor")) == 1


def test_a_fixed_port_in_use_names_who_and_where(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    with bind(None, None) as taken:
        port = taken.getsockname()[1]
        started = time.monotonic()
        with (
            pytest.raises(EndpointError) as caught,
            endpoints.open("tiny", "staging", LocalSettings(port=port)),
        ):
            raise AssertionError("opened")
        assert time.monotonic() - started < 5
    message = str(caught.value)
    assert f"tiny/staging: port {port} is taken by process {os.getpid()}" in message
    assert "key local.ports" in message
    assert not processes_of(_folder(tmp_path))
    serve(endpoints, regression(tmp_path, 1), LocalSettings(port=port))  # the mend


def test_a_port_that_was_lost_is_replaced(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    state = read_state(_folder(tmp_path))
    assert state is not None
    endpoints.stop("tiny", "staging")
    with bind(state.port, None), endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert str(state.port) not in target.url
        assert _version(endpoints) == 1
        # Whoever else answers on the old port is not taken for the endpoint.
    now = read_state(_folder(tmp_path))
    assert now is not None
    assert now.id == state.id


def test_a_stranger_on_the_port_is_not_healthy(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    with endpoints.open("tiny", "staging", LocalSettings()):
        pass
    with endpoints.open("tiny", "production", LocalSettings()):
        pass
    staging, production = _folder(tmp_path), _folder(tmp_path).parents[1] / "production" / "tiny"
    eventually(lambda: endpoints.status("tiny", "production").healthy)
    eventually(lambda: endpoints.status("tiny", "staging").healthy)
    state = json.loads((staging / "state.json").read_text())
    state["port"] = json.loads((production / "state.json").read_text())["port"]
    (staging / "state.json").write_text(json.dumps(state))
    assert not endpoints.status("tiny", "staging").healthy


def test_a_version_that_cannot_be_loaded_changes_nothing(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    serve(endpoints, regression(tmp_path, 1))
    bad = regression(tmp_path, 2)
    (bad.bundle / "model.pkl").write_bytes(b"tampered")
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        with pytest.raises(EndpointError, match=r"version 2 cannot be loaded: .*model\.pkl: SHA-"):
            target.stage(bad)
        assert list(target.live()) == ["v1"]
    assert _version(endpoints) == 1


def test_a_bundle_that_is_lost_while_it_serves(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    serve(endpoints, version)
    (version.bundle / "model.pkl").unlink()
    endpoints.stop("tiny", "staging")
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert target.score(None, ASK).status == 503
        with pytest.raises(EndpointError, match=r"model\.pkl: No such file"):
            target.stage(version)
        assert list(target.live()) == ["v1"]  # it has the traffic: nothing is forgotten
        target.promote(target.stage(regression(tmp_path, 2)).name, 100)
    assert _version(endpoints) == 2


def test_a_registry_made_anew_may_reuse_a_version(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    old, new = regression(tmp_path / "old", 1), classifier(tmp_path / "new", 1)
    serve(endpoints, old)
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        staged = target.stage(new)
        assert staged.name == f"v1-{new.digest[:8]}"
        assert target.score(None, ASK).status == 200


def test_a_damaged_generation_is_named(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    (_folder(tmp_path) / "generation.json").write_text("{")
    with (
        pytest.raises(EndpointError, match=r"generation\.json: not a generation"),
        endpoints.open("tiny", "staging", LocalSettings()),
    ):
        raise AssertionError("opened")
    assert endpoints.ask("tiny", "staging", ASK).status == 200  # the server goes on


def test_a_server_that_dies_during_a_rollout_is_an_error_with_its_log(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        target.stage(regression(tmp_path, 1))
        for process in processes_of(_folder(tmp_path)):
            process.kill()
        with pytest.raises(EndpointError, match=r"(?s)the server ended; the end of .*generation 1"):
            target.stage(regression(tmp_path, 2))
        with pytest.raises(EndpointError, match="no server runs"):
            target.score("v1", ASK)


def test_a_worker_that_hangs_is_an_error_with_its_log(tmp_path: Path) -> None:
    with local_endpoints(tmp_path / "endpoints") as endpoints:
        serve(endpoints, regression(tmp_path, 1))
        (worker,) = processes_of(_folder(tmp_path), "scoring.worker")
        worker.suspend()
        hasty = LocalEndpoints(tmp_path / "endpoints", timeout=0.5)
        with hasty.open("tiny", "staging", LocalSettings()) as target:
            with pytest.raises(EndpointError, match=r"version 2 cannot be loaded: .*no answer"):
                target.stage(regression(tmp_path, 2))
            worker.resume()


def test_a_supervisor_that_cannot_start_shows_its_log(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    folder = _folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "state.json").mkdir()
    with (
        pytest.raises(EndpointError, match=r"(?s)the server ended with exit code 1; the end of"),
        endpoints.open("tiny", "staging", LocalSettings()),
    ):
        raise AssertionError("opened")


def test_health_stays_quick_while_a_large_batch_is_scored(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    serve(endpoints, classifier(tmp_path))
    url = endpoints.status("tiny", "staging").url
    assert url is not None
    batch = Request.of({"data": [{"size": i % 90, "colour": "red"} for i in range(100_000)]})
    with ThreadPoolExecutor(1) as pool, httpx.Client() as client:
        scoring = pool.submit(endpoints.ask, "tiny", "staging", batch)
        times: list[float] = []
        while not scoring.done():
            started = time.perf_counter()
            assert client.get(url.removesuffix("score")).status_code == 200
            times.append(time.perf_counter() - started)
        answer = scoring.result()
    assert answer.status == 200
    assert len(answer.json()["predictions"]) == 100_000
    assert len(times) > 3
    assert max(times) < answer.seconds / 2


def test_real_http_is_held_to_the_same_limits(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, broken(tmp_path))
    status = endpoints.status("tiny", "staging")
    assert status.url is not None
    headers = {"authorization": f"Bearer {read_key(_folder(tmp_path))}"}
    chunks = (b" " * 2**16 for _ in range(200))
    with httpx.Client(headers=headers) as client:
        assert client.post(status.url, content=chunks).status_code == 413
        assert client.post(status.url, content=b" " * (8 * 2**20 + 1)).status_code == 413
        assert client.post(status.url, content=b"{").status_code == 400
        assert client.get(status.url).status_code == 405
        assert client.get(status.url, headers={"x-request-id": "i" * 101}).status_code == 431
        failed = client.post(status.url, content=b'{"data": [[7, 1]]}', headers={"traceid": "t9"})
        assert failed.status_code == 500
        assert "secret" not in failed.text
        assert "Traceback" not in failed.text
    log = _folder(tmp_path) / "server.log"
    eventually(lambda: "RuntimeError: secret detail" in log.read_text())
    assert "'t9' failed" in log.read_text()
    assert _raw(status.url, b"NONSENSE\r\n\r\n").startswith(b"HTTP/1.1 400")


def _raw(url: str, data: bytes) -> bytes:
    port = int(url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(data)
        return connection.recv(4096)


def test_a_lock_says_who_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.endpoints.lock.REPORT_SECONDS", 0.1)
    path = tmp_path / "lock"
    lines: list[str] = []
    acquired = threading.Event()

    def wait() -> None:
        with held(path, "endpoint tiny/staging", log=lines.append) as got:
            assert got
            acquired.set()

    with held(path, "endpoint tiny/staging"):
        with held(path, "endpoint tiny/staging", timeout=0.05) as second:
            assert not second
        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: len(lines) > 1)
        (path.with_name("lock.holder")).unlink()
        eventually(lambda: "just taken" in lines[-1])
        assert not acquired.is_set()
    thread.join(5)
    assert acquired.is_set()
    assert f"waiting for endpoint tiny/staging: held by process {os.getpid()} for 0 s" in lines[0]


def test_stop_does_not_wait_for_a_rollout_that_hangs(
    endpoints: LocalEndpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.endpoints.local.STOP_WAIT_SECONDS", 0.1)
    with endpoints.open("tiny", "staging", LocalSettings()):
        assert endpoints.stop("tiny", "staging")
    assert not processes_of(_folder(tmp_path))


@pytest.mark.parametrize(
    ("shares", "percent", "expected"),
    [
        ({"new": 0}, 100, {"new": 100}),
        ({"old": 100, "new": 0}, 10, {"old": 90, "new": 10}),
        ({"a": 50, "b": 50, "new": 0}, 33, {"a": 34, "b": 33, "new": 33}),
        ({"a": 70, "b": 10, "new": 20}, 100, {"a": 0, "b": 0, "new": 100}),
        ({"old": 0, "new": 100}, 40, {"old": 0, "new": 40}),
    ],
)
def test_the_others_share_the_rest(
    shares: dict[str, int], percent: int, expected: dict[str, int]
) -> None:
    assert split_traffic(shares, "new", percent) == expected


def test_nothing_is_logged_above_info(
    endpoints: LocalEndpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        serve(endpoints, regression(tmp_path, 1))
        _version(endpoints)
    assert caplog.text == ""
    assert psutil.pid_exists(read_acks(_folder(tmp_path))[0].pid)
    log = (_folder(tmp_path) / "server.log").read_text()
    assert "WARNING" not in log
    assert "ERROR" not in log
