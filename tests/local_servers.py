"""Local endpoints for one test, all of whose processes end with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from resources.endpoints.base import Request, Target, VersionRef
from resources.endpoints.local import LocalEndpoints, LocalSettings

#: One row that the models of bundles.regression answer with their version.
ASK = Request.of({"data": [{"a": 1, "b": 2}]})


@contextmanager
def local_endpoints(root: Path) -> Iterator[LocalEndpoints]:
    """Endpoints below ``root``; their servers are ended, and none may be left."""
    endpoints = LocalEndpoints(root, timeout=60)
    try:
        yield endpoints
    finally:
        for model, environment in endpoints.known():
            endpoints.stop(model, environment)
        deadline = time.monotonic() + 10
        while (left := processes_of(root)) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert not left, f"servers outlived their endpoint: {left}"


def processes_of(folder: Path, module: str = "mlops_assets.scoring.") -> list[psutil.Process]:
    """Servers of one folder: this test's own, for no other test knows the folder."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            running = process.status() != psutil.STATUS_ZOMBIE
            if running and module in line and str(folder) in line:
                found.append(process)
    return found


def serve(
    endpoints: LocalEndpoints, version: VersionRef, settings: LocalSettings | None = None
) -> None:
    """Deploy a version as the only one of tiny/staging, without samples."""
    with endpoints.open("tiny", "staging", settings or LocalSettings()) as target:
        replace(target, version)


def replace(target: Target, version: VersionRef) -> None:
    """Make a version the only one."""
    staged = target.stage(version)
    target.promote(staged.name, 100)
    for name in target.live():
        if name != staged.name:
            target.discard(name)


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds; fails if it does not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def staging_folder(tmp_path: Path) -> Path:
    """The folder of tiny/staging, of endpoints below ``tmp_path / "endpoints"``."""
    return tmp_path / "endpoints" / "staging" / "tiny"


def answering_version(endpoints: LocalEndpoints) -> int:
    """The version that answers at tiny/staging; its header and its prediction must agree."""
    answer = endpoints.ask("tiny", "staging", ASK)
    assert answer.status == 200, answer.body
    (value,) = answer.json()["predictions"]
    assert answer.headers["x-mlops-version"] == str(round(value - 3) // 1000)
    return int(answer.headers["x-mlops-version"])
