"""The supervisor's parts; tests/resources/test_local_endpoint_process.py kills real ones."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlops_assets.scoring import processes
from mlops_assets.scoring.supervisor import MAXIMUM_LOG, bind, bound_log, read_state, take


def test_a_taken_fixed_port_is_an_error_and_a_preferred_one_is_not() -> None:
    with bind(None, None) as taken:
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(OSError, match="in use") as caught:
            bind(port, None)
        assert caught.value.errno == errno.EADDRINUSE
        with bind(None, port) as other:
            assert other.getsockname()[1] != port
    with bind(None, port) as again:
        assert again.getsockname()[1] == port


def test_connections_wait_for_the_first_worker() -> None:
    with bind(None, None) as listening, socket.create_connection(listening.getsockname(), 1):
        pass


def test_a_log_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    bound_log(path)
    with path.open("ab") as writer:
        writer.write(b"x" * MAXIMUM_LOG)
        writer.flush()
        bound_log(path)
        assert path.stat().st_size == MAXIMUM_LOG
        writer.write(b"y")
        writer.flush()
        bound_log(path)
        writer.write(b"z")
        writer.flush()
    assert path.read_bytes() == b"z"
    assert (tmp_path / "server.log.1").stat().st_size == MAXIMUM_LOG + 1


def test_one_process_holds_a_lock(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        assert take(first.fileno(), 0)
        started = time.monotonic()
        assert not take(second.fileno(), 0.1)
        assert time.monotonic() - started >= 0.1
        fcntl.flock(first.fileno(), fcntl.LOCK_UN)
        assert take(second.fileno(), 0)


@pytest.mark.parametrize("text", ["", "{}", '{"settings": {}}', '{"settings": {"x": 1}}', "[]"])
def test_a_state_that_is_none(tmp_path: Path, text: str) -> None:
    assert read_state(tmp_path) is None
    (tmp_path / "state.json").write_text(text)
    assert read_state(tmp_path) is None


def test_a_process_is_known_by_pid_and_start_time() -> None:
    own = processes.created()
    assert processes.is_alive(os.getpid(), own)
    assert not processes.is_alive(os.getpid(), own - 10)  # the pid was somebody else's then
    assert not processes.end(os.getpid(), own - 10, grace=0)


def test_a_process_that_will_not_end_is_killed() -> None:
    script = "import signal as s, time; s.signal(15, s.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        started = processes.created(child.pid)
        assert processes.end(child.pid, started, grace=0.2)
        child.wait(5)
        assert not processes.is_alive(child.pid, started)
