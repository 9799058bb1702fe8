"""A run in a process of its own that asks, before each step towards the outside, whether to go on.

The processes are forked from one that has imported everything, and so is the training process:
they do what they do in earnest, they only do not take seconds to start.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: Dagster's events at which a run may stand still for any time; no lock is held there.
EVENTS = (
    *("PIPELINE_START", "PIPELINE_SUCCESS", "PIPELINE_FAILURE", "STEP_START", "STEP_OUTPUT"),
    *("ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "STEP_SUCCESS", "STEP_FAILURE"),
)
#: Nothing that a run does takes longer.
HANGS_SECONDS = 60.0
PRELOADED = (
    *("tests.stepped_run", "mlops_assets.definitions", "mlops_assets.training.job"),
    *("mlops_assets.training.compare", "mlops_assets.snapshots", "mlops_assets.contract"),
    *(
        "mlops_assets.monitoring.monitor",
        "sklearn.linear_model",
        "sklearn.dummy",
        "sklearn.compose",
    ),
    *("sklearn.preprocessing", "sklearn.pipeline", "matplotlib.pyplot", "pandas", "duckdb"),
    *("dagster._core.pipes.subprocess", "dagster._core.execution.api"),
)


@dataclass(frozen=True)
class Point:
    """A step that a run is about to take, or has just taken."""

    name: str
    #: Whether it may stand still there while others go on.
    still: bool


@dataclass(frozen=True)
class Task:
    """What a process needs to know to work on a run that was asked for."""

    root: str
    home: str
    repository: str
    instance: str
    run_id: str
    assets: Sequence[str]


class SteppedRun:
    """One run; stands still until it is told to go on."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        self.task = task
        self._here, there = context.Pipe()
        self._process = context.Process(target=work, args=(there, task), daemon=True)
        self._process.start()
        there.close()
        #: Where it stands; None once it has ended.
        self.point: Point | None = self._next()

    def go(self) -> None:
        """On to the next point."""
        assert self.point is not None
        self._here.send("go")
        self.point = self._next()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()
        self.point = None

    def _next(self) -> Point | None:
        try:
            if self._here.poll(HANGS_SECONDS):
                point: Point = self._here.recv()
                return point
        except (EOFError, ConnectionResetError):
            self._process.join(HANGS_SECONDS)
            assert self._process.exitcode == 0, f"ended with {self._process.exitcode}"
            return None
        raise AssertionError(f"{self.task.assets} hangs after {self.point}")


def work(connection: Connection, task: Task) -> None:
    """Be the process of a run."""
    import dagster as dg
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run

    from mlops_assets.definitions import build_definitions
    from resources.environment import load_profile

    logging.disable(logging.CRITICAL)
    sys.stdout = sys.stderr = io.StringIO()
    variables = {"MLOPS_HOME": task.home, "MLOPS_REPOSITORY": task.repository}
    profile = load_profile(variables, Path(task.root))
    keys = {dg.AssetKey(["rent", name]) for name in task.assets}
    job = build_definitions(profile).resolve_implicit_global_asset_job_def()
    subset = job.get_subset(asset_selection=keys)

    def point(name: str, still: bool = False) -> None:
        connection.send(Point(name.replace(task.home, ""), still))
        connection.recv()

    watch(point)
    with dg.DagsterInstance.from_config(task.instance) as instance:
        run = instance.get_run_by_id(task.run_id)
        assert run is not None
        execute_run(InMemoryJob(subset), run, instance, raise_on_error=False)
    # What Python would take down now is the forked copy of another process.
    connection.close()
    os._exit(0)


def watch(point: Callable[..., None]) -> None:
    """Put a point before and after everything that a killed run may leave half done."""
    import dagster as dg
    from dagster._core.pipes import subprocess as pipes

    from resources import verification
    from resources.git import GitSource
    from resources.storage import Storage
    from resources.training import LocalTraining

    def around(owner: Any, name: str, what: Callable[..., str], still: bool = False) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            said = what(*arguments)
            # A comparison is made while the endpoint is held.
            stands = still and not said.startswith("compare")
            point(f"before {said}", stands)
            result = original(*arguments, **options)
            point(f"after {said}", stands)
            return result

        setattr(owner, name, call)

    for owner, name in ((os, "rename"), (os, "link"), (Path, "replace")):
        around(owner, name, lambda *paths, name=name: f"{name} {paths[-1]}")
    around(
        subprocess.Popen,
        "_execute_child",
        lambda *a: f"start {' '.join(map(str, a[1]))[-80:]}",
    )
    around(GitSource, "resolve", lambda *_: "resolve the commit", still=True)
    around(Storage, "settled", lambda *_: "list the files", still=True)
    around(LocalTraining, "run", lambda *a: f"{a[2]['mode']} in a process", still=True)
    pipes.Popen = trained  # pyright: ignore[reportAttributeAccessIssue]
    verification._start = verified  # pyright: ignore[reportAttributeAccessIssue]
    original = dg.DagsterInstance.handle_new_event

    def event(self: Any, entry: Any, **options: Any) -> Any:
        kind = entry.dagster_event.event_type_value if entry.dagster_event else ""
        if kind not in EVENTS:
            return original(self, entry, **options)
        point(f"before {kind} {entry.step_key or ''}", True)
        result = original(self, entry, **options)
        point(f"after {kind} {entry.step_key or ''}", True)
        return result

    dg.DagsterInstance.handle_new_event = event  # pyright: ignore[reportAttributeAccessIssue]


class Forked:
    """A process that is forked instead of started; as much of Popen as is asked of it."""

    returncode: int | None = None

    def __init__(self, main: Callable[[], int], cwd: str, env: dict[str, str]) -> None:
        (asks, self._asks), (self._answers, answers) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.dup2(asks, 0)
                os.dup2(answers, 1)
                for end in (self._asks, self._answers):
                    os.close(end)
                sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
                sys.stderr = os.fdopen(2, "w")
                os.chdir(cwd)
                os.environ.clear()
                os.environ.update(env)
                code = main()
                sys.stdout.flush()
            finally:
                os._exit(code)
        os.close(asks)
        os.close(answers)

    def wait(self, **_: Any) -> int:
        """Until it has ended; its exit code."""
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        for end in (self._asks, self._answers):
            os.close(end)
        return self.returncode

    def communicate(self, question: bytes = b"", **_: Any) -> Any:
        """Write to it, and read what it answers."""
        os.write(self._asks, question)
        os.set_blocking(self._answers, True)
        found = b""
        while part := os.read(self._answers, 2**16):
            found += part
        self.wait()
        return found, b""

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


def trained(command: Sequence[str], cwd: str, env: dict[str, str], **_: Any) -> Forked:
    """The training process."""
    from mlops_assets.training import runner

    return Forked(lambda: runner.main(command[-1]), cwd, env)


def verified() -> Forked:
    """The process that verifies a version."""
    from mlops_assets.scoring import verify

    def main() -> int:
        sys.argv = ["verify", "--wait"]
        return verify.main()

    return Forked(main, str(Path.cwd()), dict(os.environ))
