"""Standalone servers for one test: started as a container would, and ended with it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.scoring.supervisor import read_state

COMMAND = [sys.executable, "-P", "-m", "mlops_assets.scoring"]
KEYS = {"MLOPS_PRIMARY_KEY": "first", "MLOPS_SECONDARY_KEY": "second"}


@dataclass(frozen=True)
class Standalone:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    port: int
    state: Path

    def ask(
        self, path: str = "/score", body: Any = None, key: str | None = "first"
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, body and headers of an answer."""
        return ask(self.port, path, body, key)


def ask(
    port: int, path: str, body: Any = None, key: str | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    """Ask a port of this machine; the body goes, and what comes back is read, as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        content = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content, dict(answer.headers)
    finally:
        connection.close()


@contextmanager
def standalone(state: Path, *arguments: str | Path, **variables: str) -> Iterator[Standalone]:
    """A server on a free port; it has answered that it is ready."""
    command = [*COMMAND, *map(str, arguments), "--port", "0", "--state", str(state)]
    state.mkdir(parents=True, exist_ok=True)
    with (state / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(variables), stderr=log)
    try:
        yield Standalone(process, wait_ready(process, state), state)
    finally:
        process.terminate()
        process.wait(20)


def wait_ready(process: subprocess.Popen[bytes], state: Path) -> int:
    """Wait for a server's first answer; returns its port."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, (state / "log").read_text()
        found = read_state(state)
        if found is not None and found.pid == process.pid:
            assert ask(found.port, "/")[0] == 200  # waits in the queue for the first worker
            return found.port
        time.sleep(0.01)
    raise AssertionError("no server")


def refused(*arguments: str | Path, **variables: str) -> tuple[int, str]:
    """Exit code and the one line that says why, of a server that does not start."""
    command: Sequence[str] = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(variables), capture_output=True, check=False, timeout=60
    )
    lines = [line for line in done.stderr.decode().splitlines() if not line.startswith("{")]
    assert done.returncode != 0
    assert done.returncode == 2 or len(lines) == 1, lines
    return done.returncode, lines[-1]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's variables without those that speak to a server, and some more."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("MLOPS_", "AZUREML_"))}
    return {**kept, **variables}
