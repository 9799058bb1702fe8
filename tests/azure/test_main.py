"""``python -m tests.azure``: for demos; nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.local_servers import eventually


@contextmanager
def _program(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The running program and what it says is to be exported."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.azure"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout
    found: dict[str, str] = {}
    for line in process.stdout:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        found[name] = value
        if line.startswith("# registry"):
            break
    try:
        yield process, found
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_serves_and_takes_all_with_it(
    azure_server: object, tmp_path: Path, number: signal.Signals
) -> None:
    with _program(tmp_path) as (process, exported):
        bundle = exported["SSL_CERT_FILE"]
        context = httpx.create_ssl_context(verify=True, trust_env=False)
        context.load_verify_locations(bundle)
        with httpx.Client(proxy=exported["HTTPS_PROXY"], verify=context) as client:
            assert client.get("https://management.azure.com/").status_code == 401
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("azurite" in " ".join(child.cmdline()) for child in children)
        process.send_signal(number)
        process.wait(90)
        eventually(lambda: not any(child.is_running() for child in children))
        if number is not signal.SIGKILL:
            assert process.returncode == 0
            assert list(tmp_path.iterdir()) == []
