"""Locks among machines, with holders that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from resources.azure import leases
from resources.azure.leases import LeaseLostError, held
from tests.azure.faults import Fault
from tests.azure.platforms import clients
from tests.azure.server import AzureServer
from tests.local_servers import eventually

#: The shortest that Azure takes.
SECONDS = 15
HOLDER = """
import json, sys, time
from resources.azure import leases
from resources.azure.clients import AzureClients
from resources.azure.settings import AzureSettings
leases._host = lambda: sys.argv[2]
clients = AzureClients(AzureSettings.model_validate(json.loads(sys.argv[1])))
with leases.held(clients, "test", "the test", print, 15) as lease:
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def _holder(azure: AzureServer, host: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, on this machine or another one."""
    settings = clients(azure).settings.model_dump_json(by_alias=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, settings, host], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_one_at_a_time(azure: AzureServer) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def hold(_: int) -> None:
        nonlocal inside, most
        with held(clients(azure), "test", "the test", seconds=SECONDS) as lease:
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.1)
            lease.check()
            with lock:
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(6)))
    assert most == 1


def test_another_lock_is_another(azure: AzureServer) -> None:
    with held(clients(azure), "test", "the test"), held(clients(azure), "other", "other"):
        pass


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once(
    azure: AzureServer,
) -> None:
    said: list[str] = []
    with _holder(azure, leases._host()) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        with held(clients(azure), "test", "the test", said.append, SECONDS) as lease:
            assert time.monotonic() - began < 5
            lease.check()
    assert said == ["the test: the process that held it was killed; taking over"]


def test_the_lock_of_a_process_that_lives_is_waited_for(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "REPORT_SECONDS", 1.0)
    said: list[str] = []
    with _holder(azure, leases._host()) as process:
        threading.Timer(18, process.terminate).start()  # longer than one lease: it is renewed
        began = time.monotonic()
        with held(clients(azure), "test", "the test", said.append, SECONDS):
            assert time.monotonic() - began >= 17
    assert any(f"held by process {process.pid} on " in line for line in said)


def test_the_lock_of_a_killed_process_elsewhere_ends_with_its_lease(azure: AzureServer) -> None:
    said: list[str] = []
    with _holder(azure, "elsewhere/boot/space") as process:
        process.kill()
        began = time.monotonic()
        with held(clients(azure), "test", "the test", said.append, SECONDS):
            assert 8 < time.monotonic() - began < SECONDS + 5
    assert all("elsewhere" in line for line in said)


def test_a_process_that_slept_too_long_is_told(azure: AzureServer) -> None:
    blob = clients(azure).container.get_blob_client("locks/test")
    with held(clients(azure), "test", "the test", seconds=SECONDS) as lease:
        lease.check()
        from azure.storage.blob import BlobLeaseClient

        BlobLeaseClient(blob).break_lease(0)  # pyright: ignore[reportArgumentType]
        taken = blob.acquire_lease(SECONDS)
        eventually(lambda: lease._lost is not None, SECONDS)
        with pytest.raises(LeaseLostError, match="the test: the lock was lost"):
            lease.check()
    taken.renew()  # not released by who had lost it


def test_a_lease_that_cannot_be_renewed_is_given_up_in_time(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(clients(azure), "test", "the test", seconds=SECONDS) as lease:
        azure.faults.add(Fault("PUT .*locks/test.*comp=lease", 503, times=None))
        began = time.monotonic()
        while time.monotonic() - began < SECONDS + 1:
            try:
                lease.check()
            except LeaseLostError:
                break
            time.sleep(0.1)
        assert SECONDS - 1 < time.monotonic() - began < SECONDS + 1
        azure.faults.clear()


def test_a_holder_that_is_not_known_yet_is_not_taken_for_the_killed_one_before(
    azure: AzureServer,
) -> None:
    """Between taking the lease and signing, the lock names the one before, who is gone."""
    with _holder(azure, leases._host()) as process:
        process.kill()
        process.wait()
        gone = process.pid
    assert not psutil.pid_exists(gone)
    blob = clients(azure).container.get_blob_client("locks/test")
    seen = blob.get_blob_properties()
    assert leases._is_gone(seen.metadata)
    with held(clients(azure), "test", "the test", seconds=SECONDS) as lease:
        assert not leases._broken(blob, str(seen.etag))  # who looked before must not break it
        lease.check()
    lease = blob.acquire_lease(SECONDS)
    assert leases._broken(blob, str(blob.get_blob_properties().etag))
    assert not leases._signed(blob, lease)  # broken before it was signed: taken anew


@pytest.mark.parametrize("drop", ["request", "answer"])
def test_a_connection_that_drops_while_the_lock_is_taken(azure: AzureServer, drop: str) -> None:
    with held(clients(azure), "test", "the test"):
        pass
    azure.faults.add(Fault("PUT .*locks/test.*comp=lease", drop=drop))  # pyright: ignore[reportArgumentType]
    began = time.monotonic()
    with held(clients(azure), "test", "the test") as lease:
        lease.check()
    assert time.monotonic() - began < 5
