"""Dagster's page as a process of this state folder: started by `make dev`, ended by `make stop`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from mlops_assets.errors import UserError
from mlops_assets.files import read_json, to_json, write_atomic
from mlops_assets.runs import is_running, process_name
from resources.environment import Profile

#: Dagster's own default.
PORT = 3000
#: How long the page and its code servers may take to end, in seconds.
GRACE_SECONDS = 20.0


class PageError(UserError):
    """The page cannot be served; the message says why, and the mend."""


def serve(profile: Profile, port: int | None = None) -> int:
    """Run ``dagster dev`` until it ends; returns its exit code.

    Raises:
        PageError: it runs already, or the port that was asked for is taken.
    """
    running = _running(profile)
    if running:
        raise PageError(f"the page runs already: http://127.0.0.1:{running['port']}")
    port = _free_port(port)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(profile.root / "workspace.yaml")]
    # In the background of a script SIGINT is ignored, and what we start would inherit that: it
    # could not be ended in order. A group of its own: Ctrl-C reaches it through us, once.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "-h", "127.0.0.1", "-p", str(port)],
        cwd=profile.home,  # beside our dagster.yaml, Dagster would warn that it is not the one used
        env={
            "MLOPS_PAGE": f"http://127.0.0.1:{port}",  # unless people reach it by another name
            **os.environ,
            "MLOPS_PROFILE": profile.name,
        },
        start_new_session=True,
    )
    name = process_name(process.pid)
    write_atomic(_file(profile), to_json({"process": name, "port": port}))
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # pyright: ignore[reportUnknownLambdaType]
    try:
        return process.wait()
    except KeyboardInterrupt:
        _end(name)
        return 0
    finally:
        _file(profile).unlink(missing_ok=True)


def stop(profile: Profile) -> list[str]:
    """End the page of this state folder; names what was ended."""
    running = _running(profile)
    if not running:
        return []
    _end(str(running["process"]))
    _file(profile).unlink(missing_ok=True)
    return [f"page on port {running['port']}"]


def _file(profile: Profile) -> Path:
    return profile.home / "page.json"


def _running(profile: Profile) -> dict[str, object] | None:
    path = _file(profile)
    if not path.is_file():
        return None
    found: dict[str, object] = read_json(path)
    return found if is_running(str(found["process"])) else None


def _end(name: str) -> None:
    """End the page with all that it started: webserver, daemon, code servers."""
    if not is_running(name):
        return
    process = psutil.Process(int(name.partition("@")[0]))
    family = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _free_port(wanted: int | None) -> int:
    for port in (wanted or PORT, *(() if wanted else (0,))):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise PageError(f"port {wanted} is taken; leave --port out to take a free one")
