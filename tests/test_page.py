"""Dagster's page as a process, beside runs on the same state."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from mlops_assets.files import read_json
from mlops_assets.page import PageError, serve
from resources.environment import checkout, load_profile


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`mlops dev` as a script starts it in the background: with SIGINT ignored."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlops_assets.cli", "dev", "--port", str(port)],
        cwd=checkout(),
        env={**os.environ, "MLOPS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


def wait_for(url: str) -> httpx.Response:
    deadline = time.monotonic() + 90
    while True:
        try:
            return httpx.get(url, trust_env=False, timeout=5)
        except httpx.HTTPError:
            assert time.monotonic() < deadline, "the page does not answer"
            time.sleep(0.3)


def test_the_page_is_served_and_ended_with_all_that_it_started(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    with running(home, port) as process:
        info = wait_for(f"http://127.0.0.1:{port}/server_info").json()
        assert "dagster_webserver_version" in info
        query = "{ assetNodes { assetKey { path } } }"
        url = f"http://127.0.0.1:{port}/graphql"
        answer = httpx.post(url, json={"query": query}, trust_env=False, timeout=60).json()
        paths = [node["assetKey"]["path"] for node in answer["data"]["assetNodes"]]
        assert ["penguins", "production_endpoint"] in paths
        family = psutil.Process(process.pid).children(recursive=True)
        assert read_json(home / "page.json")["port"] == port
        stopped = subprocess.run(
            [sys.executable, "-m", "mlops_assets.cli", "stop"],
            cwd=checkout(),
            env={**os.environ, "MLOPS_HOME": str(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert stopped.stdout == f"ended: page on port {port}\n"
        process.wait(10)
        assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert not (home / "page.json").exists()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    profile = load_profile({"MLOPS_HOME": str(tmp_path)})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PageError, match=f"port {port} is taken; leave --port out"):
            serve(profile, port)
