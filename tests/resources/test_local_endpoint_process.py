"""The server of a local endpoint as a process: ports, supervisor, lock, restarts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from mlops_assets.scoring.generation import GenerationFile, read_acks
from mlops_assets.scoring.supervisor import bind, read_state
from resources.endpoints.base import EndpointError
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.endpoints.lock import held
from resources.endpoints.process import read_key
from tests.bundles import regression
from tests.local_servers import (
    ASK,
    answering_version,
    eventually,
    local_endpoints,
    processes_of,
    serve,
    staging_folder,
)


def test_a_server_is_found_again_and_ended(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    folder = staging_folder(tmp_path)
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
    assert answering_version(endpoints) == 1


def test_the_server_belongs_to_no_run(
    endpoints: LocalEndpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_RUN_ID", "some run")
    serve(endpoints, regression(tmp_path, 1))
    folder = staging_folder(tmp_path)
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


def test_a_worker_that_is_killed_comes_back(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 3))
    folder = staging_folder(tmp_path)
    generation = GenerationFile(folder).read()
    (before,) = processes_of(folder, "scoring.worker")
    before.send_signal(signal.SIGKILL)
    before.wait(5)
    assert answering_version(endpoints) == 3  # the connection waited for the next worker
    (after,) = read_acks(folder)
    assert after.pid != before.pid
    assert (after.generation, after.errors) == (generation.number, {})
    log = (folder / "server.log").read_text()
    assert f"worker {before.pid} ended with -9" in log


def test_two_workers_follow_together(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    settings = LocalSettings(workers=2)
    serve(endpoints, regression(tmp_path, 1), settings)
    folder = staging_folder(tmp_path)
    eventually(lambda: len(read_acks(folder)) == 2)
    serve(endpoints, regression(tmp_path, 2), settings)
    acks = read_acks(folder)
    assert len({ack.pid for ack in acks}) == 2
    assert {ack.generation for ack in acks} == {GenerationFile(folder).read().number}
    assert {answering_version(endpoints) for _ in range(20)} == {2}


def test_a_supervisor_that_is_killed_takes_its_workers_along_and_comes_back(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    serve(endpoints, regression(tmp_path, 1))
    folder = staging_folder(tmp_path)
    url = endpoints.status("tiny", "staging").url
    (supervisor,) = processes_of(folder, "scoring.supervisor")
    supervisor.send_signal(signal.SIGKILL)
    eventually(lambda: not processes_of(folder))
    assert not endpoints.status("tiny", "staging").healthy
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert target.url == url
        assert answering_version(endpoints) == 1
    assert endpoints.status("tiny", "staging").healthy


def test_open_waits_for_workers_that_a_killed_supervisor_left(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    settings = LocalSettings(port=_free_port())
    serve(endpoints, regression(tmp_path, 1), settings)
    folder = staging_folder(tmp_path)
    (worker,) = processes_of(folder, "scoring.worker")
    (supervisor,) = processes_of(folder, "scoring.supervisor")
    worker.suspend()  # it cannot notice, and holds the port
    supervisor.kill()
    supervisor.wait(5)
    with endpoints.open("tiny", "staging", settings) as target:
        assert target.url == f"http://127.0.0.1:{settings.port}/score"
        assert answering_version(endpoints) == 1
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
    assert answering_version(endpoints) == 1
    assert len(processes_of(staging_folder(tmp_path), "scoring.supervisor")) == 1


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
    assert not processes_of(staging_folder(tmp_path))
    serve(endpoints, regression(tmp_path, 1), LocalSettings(port=port))  # the mend


def test_a_port_that_was_lost_is_replaced(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    state = read_state(staging_folder(tmp_path))
    assert state is not None
    endpoints.stop("tiny", "staging")
    with bind(state.port, None), endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert str(state.port) not in target.url
        assert answering_version(endpoints) == 1
        # Whoever else answers on the old port is not taken for the endpoint.
    now = read_state(staging_folder(tmp_path))
    assert now is not None
    assert now.id == state.id


def test_a_stranger_on_the_port_is_not_healthy(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    with endpoints.open("tiny", "staging", LocalSettings()):
        pass
    with endpoints.open("tiny", "production", LocalSettings()):
        pass
    staging, production = (
        staging_folder(tmp_path),
        staging_folder(tmp_path).parents[1] / "production" / "tiny",
    )
    eventually(lambda: endpoints.status("tiny", "production").healthy)
    eventually(lambda: endpoints.status("tiny", "staging").healthy)
    state = json.loads((staging / "state.json").read_text())
    state["port"] = json.loads((production / "state.json").read_text())["port"]
    (staging / "state.json").write_text(json.dumps(state))
    assert not endpoints.status("tiny", "staging").healthy


def test_a_server_that_dies_during_a_rollout_is_an_error_with_its_log(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        target.stage(regression(tmp_path, 1))
        for process in processes_of(staging_folder(tmp_path)):
            process.kill()
        with pytest.raises(EndpointError, match=r"(?s)the server ended; the end of .*generation 1"):
            target.stage(regression(tmp_path, 2))
        with pytest.raises(EndpointError, match="no server runs"):
            target.score("v1", ASK)


def test_a_worker_that_hangs_is_an_error_with_its_log(tmp_path: Path) -> None:
    with local_endpoints(tmp_path / "endpoints") as endpoints:
        serve(endpoints, regression(tmp_path, 1))
        (worker,) = processes_of(staging_folder(tmp_path), "scoring.worker")
        worker.suspend()
        hasty = LocalEndpoints(tmp_path / "endpoints", timeout=0.5)
        with hasty.open("tiny", "staging", LocalSettings()) as target:
            with pytest.raises(EndpointError, match=r"version 2 cannot be loaded: .*no answer"):
                target.stage(regression(tmp_path, 2))
            worker.resume()


def test_a_supervisor_that_cannot_start_shows_its_log(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    folder = staging_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "state.json").mkdir()
    with (
        pytest.raises(EndpointError, match=r"(?s)the server ended with exit code 1; the end of"),
        endpoints.open("tiny", "staging", LocalSettings()),
    ):
        raise AssertionError("opened")


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
    assert not processes_of(staging_folder(tmp_path))


def test_nothing_is_logged_above_info(
    endpoints: LocalEndpoints, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        serve(endpoints, regression(tmp_path, 1))
        answering_version(endpoints)
    assert caplog.text == ""
    assert psutil.pid_exists(read_acks(staging_folder(tmp_path))[0].pid)
    log = (staging_folder(tmp_path) / "server.log").read_text()
    assert "WARNING" not in log
    assert "ERROR" not in log
