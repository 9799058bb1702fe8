"""A worker's own part; tests/resources/test_local_endpoint_process.py kills and replaces them."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from mlops_assets.scoring.generation import read_acks
from mlops_assets.scoring.supervisor import HOST, read_state
from resources.endpoints.local import LocalSettings
from resources.endpoints.process import read_key
from tests.bundles import regression
from tests.local_servers import ASK, eventually, local_endpoints, serve, staging_folder

CONNECTIONS = 64
#: Within these a worker that is started anew has also begun to listen.
START_SECONDS = 1.5


def test_of_many_clients_that_come_at_once_none_waits_for_all_others(tmp_path: Path) -> None:
    with local_endpoints(tmp_path / "endpoints") as endpoints, ExitStack() as stack:
        serve(endpoints, regression(tmp_path, 1))
        folder = staging_folder(tmp_path)
        state, (ack,) = read_state(folder), read_acks(folder)
        assert state is not None
        request = _request(read_key(folder))
        os.kill(ack.pid, signal.SIGSTOP)  # so that all are there when it looks
        try:
            clients = [
                stack.enter_context(socket.create_connection((HOST, state.port)))
                for _ in range(CONNECTIONS)
            ]
            for client in clients:
                client.sendall(request)
        finally:
            os.kill(ack.pid, signal.SIGCONT)
        answered = _until_all_are_answered(clients, request)
    assert max(answered.values()) < CONNECTIONS / 4


def test_a_worker_that_starts_holds_up_no_other(tmp_path: Path) -> None:
    """They share the listening socket: one that made it wait would make all others wait in it."""
    with local_endpoints(tmp_path / "endpoints") as endpoints:
        serve(endpoints, regression(tmp_path, 1), LocalSettings(workers=2))
        folder = staging_folder(tmp_path)
        state, request = read_state(folder), _request(read_key(folder))
        assert state is not None

        def ready() -> set[int]:
            return {ack.pid for ack in read_acks(folder) if ack.generation}

        eventually(lambda: len(ready()) == 2)
        for ended in ready():
            os.kill(ended, signal.SIGKILL)
            until = time.monotonic() + START_SECONDS
            while time.monotonic() < until or len(ready() - {ended}) < 2:
                with socket.create_connection((HOST, state.port), timeout=10) as client:
                    client.sendall(request)
                    with suppress(ConnectionResetError):  # it was the killed one's
                        assert client.recv(65536)[:12] in (b"HTTP/1.1 200", b"")


def _until_all_are_answered(
    clients: list[socket.socket], request: bytes
) -> dict[socket.socket, int]:
    """Each asks again when it has its answer; how many each has when the last has its first."""
    answered, received = dict.fromkeys(clients, 0), dict.fromkeys(clients, b"")
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while not all(answered.values()):
            ready = selector.select(timeout=30)
            assert ready, f"{list(answered.values()).count(0)} have no answer"
            for key, _ in ready:
                client = key.fileobj
                assert isinstance(client, socket.socket)
                received[client] += client.recv(65536)
                if received[client].endswith(b"}"):
                    assert received[client].startswith(b"HTTP/1.1 200")
                    received[client] = b""
                    answered[client] += 1
                    client.sendall(request)
    return answered


def _request(key: str) -> bytes:
    head = f"POST /score HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(ASK.body)}\r\n\r\n".encode() + ASK.body
