"""What is captured where processes are killed, a disk is full, or nobody takes what is sent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlops_assets.scoring.capture.sender import MAXIMUM_BYTES
from mlops_assets.scoring.supervisor import read_state
from tests.bundles import keyed
from tests.local_servers import eventually, processes_of
from tests.scoring.capturing import BODY, Capturing, Load, capturing
from tests.test_bad_ground import fill

#: What may be lost by a kill, in seconds.
LOST = 1.0


def _missing(server: Capturing, load: Load, killed: tuple[float, float]) -> list[str]:
    """Requests that are lost, and were answered more than a second before a kill or after it.

    Args:
        server: what captured them.
        load: what was answered.
        killed: Unix seconds before and after the kill.
    """
    kept = {row["mlops_request"] for row in server.rows()}
    first, last = killed
    return [
        identity
        for identity, at in load.answered.items()
        if not first - LOST <= at <= last and identity not in kept
    ]


def _once(server: Capturing) -> None:
    found = [(row["mlops_request"], row["mlops_row"]) for row in server.rows()]
    assert len(found) == len(set(found))


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    with capturing(tmp_path, keyed(tmp_path, 1), workers=2, rotate_seconds=0.4) as server:
        with Load(server).running() as load:
            time.sleep(1.5)
            worker = processes_of(server.folder, "scoring.worker ")[0]
            before = time.time()
            worker.kill()
            killed = (before, time.time() + 0.1)
            time.sleep(1.5)
        server.stop()
        assert not _missing(server, load, killed)
        _once(server)
    assert len(load.answered) > 200


@pytest.mark.parametrize("rotate", [0.4, 3600.0])
def test_a_capture_process_that_is_killed(tmp_path: Path, rotate: float) -> None:
    with capturing(tmp_path, keyed(tmp_path, 1), rotate_seconds=rotate) as server:
        with Load(server).running() as load:
            time.sleep(1.5)
            first = server.process("capture")
            before = time.time()
            first.kill()
            psutil.wait_procs([first], 5)
            killed = (before, time.time())
            eventually(lambda: processes_of(server.folder, "scoring.capture ") != [])
            time.sleep(2.5)
            server.rows()  # whatever is there can be read
        assert server.process("capture").pid != first.pid
        server.stop()
        assert not _missing(server, load, killed)
        _once(server)


@pytest.mark.parametrize("rotate", [0.4, 3600.0])
def test_everything_is_killed_at_once(tmp_path: Path, rotate: float) -> None:
    version = keyed(tmp_path, 1)
    with capturing(tmp_path, version, workers=2, rotate_seconds=rotate) as server:
        with Load(server).running() as load:
            time.sleep(2.2)
            processes = processes_of(server.folder)
            start = time.time()
            for process in processes:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.1)
            killed = (start, time.time())
        assert not processes_of(server.folder)
        server.rows()
        before = {p: p.stat().st_mtime_ns for p in server.captured.rglob("*.parquet")}
        with capturing(tmp_path, version, workers=2, rotate_seconds=rotate) as again:
            again.stop()
        assert not _missing(server, load, killed)
        _once(server)
        assert not [*server.folder.glob("spool/*")]
        # A finished file is never touched again.
        assert all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with capturing(tmp_path, keyed(tmp_path, 1), rotate_seconds=3600.0) as server:
        with Load(server).running() as load:
            time.sleep(1)
            state = read_state(server.folder)
            assert state is not None
            os.kill(state.pid, signal.SIGKILL)
            eventually(lambda: not processes_of(server.folder))
        # They have ended by themselves, and lost nothing.
        kept = {row["mlops_request"] for row in server.rows()}
        assert load.answered.keys() <= kept


def test_half_a_record_is_cut_off(tmp_path: Path) -> None:
    version = keyed(tmp_path, 1)
    with capturing(tmp_path, version, rotate_seconds=3600.0) as server:
        for number in range(3):
            server.client().score(BODY, str(number))
            time.sleep(0.6)
        for process in processes_of(server.folder):
            process.kill()
        (spool,) = server.folder.glob("spool/*.spool")
        with spool.open("r+b") as file:
            file.truncate(spool.stat().st_size - 1)
        (server.folder / "spool" / "2026-01-01T000000-00.spool").write_bytes(b"\0" * 100)
        with capturing(tmp_path, version) as again:
            eventually(lambda: not [*server.folder.glob("spool/*")])
            assert [row["mlops_request"] for row in again.rows()] == ["0", "1"]


def test_a_deaf_capture_process(tmp_path: Path) -> None:
    """Requests go on as fast, what is not taken is counted, and memory stays where it is."""
    with capturing(tmp_path, keyed(tmp_path, 1)) as server:
        client = server.client()
        large = {"data": [{"a": 1.0 + n / 3, "b": 2} for n in range(1000)]}
        for number in range(100):  # the worker's memory after some work
            client.score(large, f"warm-{number}")
        eventually(lambda: server.metric("mlops_captured_total")[""] == 100)
        capture, worker = server.process("capture"), server.process("worker")

        def seconds() -> float:
            took: list[float] = []
            for number in range(200):
                started = time.perf_counter()
                assert client.score(large, f"r{number}")[0] == 200
                took.append(time.perf_counter() - started)
            return sorted(took)[len(took) // 2]

        heard, before = seconds(), worker.memory_info().rss
        capture.suspend()
        deaf = min(seconds() for _ in range(3))
        assert deaf < 1.5 * heard + 0.002
        (dropped,) = server.metric("mlops_capture_dropped_total").values()
        assert dropped > 100
        assert worker.memory_info().rss - before < 4 * MAXIMUM_BYTES
        capture.resume()
        eventually(
            lambda: (
                server.metric("mlops_captured_total")[""]
                + sum(server.metric("mlops_capture_dropped_total").values())
                == 100 + 800
            )
        )
        client.score(BODY, "last")
        server.stop()
        kept = {row["mlops_request"] for row in server.rows()}
        assert "last" in kept


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    options = f"size=2m,uid={os.geteuid()}"
    subprocess.run([*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run([*root, "umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, small: Path) -> None:
    """The spool's disk: requests go on, rows are dropped and counted, and then kept again."""
    with capturing(small, keyed(tmp_path, 1), rotate_seconds=0.3) as server:
        with Load(server, threads=1).running() as load:
            time.sleep(0.5)
            eventually(lambda: server.rows() != [])
            eventually(lambda: _dropped_while_full(server, load, small), 60)
            freed = time.time() + 6
            eventually(lambda: time.time() > freed + 1)
        server.stop()
        rows = {row["mlops_request"] for row in server.rows()}
        after = [identity for identity, at in load.answered.items() if at > freed]
        assert after
        assert set(after) <= rows
        assert not [*server.folder.glob("spool/*")]
    _is_sound(server)


def _dropped_while_full(server: Capturing, load: Load, disk: Path) -> bool:
    """Fill the disk for a while, and free it; whoever writes may not have had its turn in that."""
    filler = fill(disk, 0)
    asked = len(load.answered)
    eventually(lambda: len(load.answered) > asked + 300)
    server.rows()
    time.sleep(2)
    filler.unlink()
    time.sleep(2)  # the count itself waits for room
    return '{reason="disk"}' in server.metric("mlops_capture_dropped_total")


def test_a_store_that_takes_nothing(tmp_path: Path, small: Path) -> None:
    """Another disk for the files: the spool keeps what it can, and gives it when it may."""
    with capturing(
        tmp_path, keyed(tmp_path, 1), store=small / "store", rotate_seconds=0.3
    ) as server:
        filler = fill(small, 0)
        with Load(server, threads=1).running() as load:
            eventually(lambda: len([*server.folder.glob("spool/*.spool")]) >= 2)
        log = server.folder / "server.log"
        eventually(lambda: "No space left on device" in log.read_text())
        assert server.rows() == []
        filler.unlink()
        eventually(lambda: {r["mlops_request"] for r in server.rows()} >= load.answered.keys(), 20)
        assert server.metric("mlops_capture_dropped_total") == {}
    _is_sound(server)


def test_what_waits_for_a_store_is_bounded(tmp_path: Path, small: Path) -> None:
    megabytes = 0.1
    options = {"store": small / "store", "rotate_seconds": 0.3, "rotate_megabytes": megabytes}
    with capturing(tmp_path, keyed(tmp_path, 1), **options) as server:  # pyright: ignore[reportArgumentType]
        fill(small, 0)
        body = {"data": [{"a": n / 7, "b": n % 10} for n in range(1000)]}
        client = server.client()
        for number in range(200):
            client.score(body, str(number))
            time.sleep(0.01)
        eventually(lambda: '{reason="store"}' in server.metric("mlops_capture_dropped_total"))
        waiting = sum(path.stat().st_size for path in server.folder.glob("spool/*"))
        assert waiting < (16 * megabytes + 2) * 2**20  # and what is in memory at that moment
    _is_sound(server)


def _is_sound(server: Capturing) -> None:
    """Every file that is left can be read."""
    server.rows()
    assert not [*server.captured.rglob("*.tmp")]
