"""The platform with its real daemon: ``mlops dev`` on a clone of its own, and people beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import dagster as dg
import psutil
import pytest

from mlops_assets.files import write_atomic
from mlops_assets.samples import load_samples
from mlops_assets.wiring import build_resources
from resources.endpoints.base import EndpointError, Request
from resources.environment import Profile, load_profile
from resources.registry import Registry
from resources.serving import Serving
from tests.repository import Repository
from tests.test_page import free_port

T = TypeVar("T")

#: Generous: the machine may be busy with others.
PATIENCE_SECONDS = 180.0


@dataclass
class Daemon:
    """A team's repository, the checkout that the platform runs from, and all its state."""

    folder: Path
    #: The data scientist's clone; what is pushed from it goes to ``origin``.
    clone: Repository
    #: Of the processes, beside this one's.
    variables: dict[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def platform(self) -> Path:
        """The checkout that the code location is loaded from."""
        return self.folder / "platform"

    @property
    def log(self) -> Path:
        """What ``mlops dev`` printed."""
        return self.folder / "daemon.log"

    @cached_property
    def profile(self) -> Profile:
        return load_profile({"MLOPS_HOME": str(self.home)}, self.platform)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's records; only to be read."""
        return dg.DagsterInstance.from_config(str(self.home / "dagster"))

    @property
    def registry(self) -> Registry:
        registry = build_resources(self.profile)["registry"]
        assert isinstance(registry, Registry)
        return registry

    @property
    def environment(self) -> dict[str, str]:
        """Of every process; MLOPS_HOME tells which are ours."""
        ours = ("MLOPS_", "DAGSTER_", "COV_", "COVERAGE_", "PYTHON", "GIT_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return {
            **kept,
            "PYTHONPATH": str(self.platform),
            "MLOPS_HOME": str(self.home),
            "MLOPS_REPOSITORY": str(self.folder / "origin.git"),
            **self.variables,
        }

    def start(self) -> None:
        """Start ``mlops dev``, in a session of its own."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlops_assets.cli", "dev", "--port", str(free_port())],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def lives(self) -> bool:
        """Whether ``mlops dev`` runs."""
        return self.process is not None and self.process.poll() is None

    def mlops(self, *arguments: str) -> str:
        """Run ``mlops``; what it printed. Fails the test with what it said if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "mlops_assets.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"mlops {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def push(self, train_py: str, message: str) -> tuple[str, float]:
        """Push another train.py of ``rent``; the commit, and when it had arrived (Unix seconds)."""
        commit = self.clone.train_py(train_py, message)
        self.clone.git("push", "--quiet", "origin", "main")
        return commit, time.time()

    def data(self, text: str, name: str) -> float:
        """Drop a file into the data location of ``rent``; when it lay there (Unix seconds)."""
        write_atomic(self.home / "storage" / "rent" / name, text)
        return time.time()

    def processes(self) -> list[psutil.Process]:
        """Every process that was started with our state folder, endpoints' servers too."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("MLOPS_HOME") == str(self.home):
                    found.append(process)
        return [p for p in found if p.pid != os.getpid()]

    def family(self) -> list[psutil.Process]:
        """``mlops dev`` and its descendants: page, daemon, code servers, runs, trainings."""
        assert self.process
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def find(self, *words: str) -> list[psutil.Process]:
        """Those of the family whose command line has all the words."""
        found: list[psutil.Process] = []
        for process in self.family():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if all(word in line for word in words):
                    found.append(process)
        return found

    def end(self) -> None:
        """End everything; what does not end in order is killed."""
        subprocess.run(
            [sys.executable, "-m", "mlops_assets.cli", "stop"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        self.__dict__.pop("instance", None)
        kill(self.processes())
        if self.process:
            self.process.wait(PATIENCE_SECONDS)

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """Runs, the oldest first; of these statuses, or all."""
        wanted = dg.RunsFilter(statuses=statuses) if statuses else None
        return list(reversed(self.instance.get_runs(wanted)))

    def ticks(self, sensor: str = "automation") -> int:
        """How many ticks of a sensor have ended."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == sensor:
                found = self.instance.get_ticks(state.instigator_origin_id, state.selector_id)
                return sum(tick.end_timestamp is not None for tick in found)
        return 0

    def serves(self, environment: str) -> int | None:
        """The version that answers in an environment."""
        answer = self.ask(environment)
        return answer if isinstance(answer, int) else None

    def ask(self, environment: str) -> object:
        """Ask an endpoint its first sample: the version that answers, or what came instead."""
        samples = load_samples(self.profile.samples_of("rent", environment))
        request = Request.of(samples[0].request)
        try:
            answer = Serving(self.profile).ask("rent", environment, request)
        except EndpointError as error:
            return str(error)
        return int(answer.headers["x-mlops-version"]) if answer.status == 200 else answer

    def serving(self) -> tuple[int | None, int | None]:
        """What answers in staging and in production."""
        return self.serves("staging"), self.serves("production")

    def wait(self, what: str, found: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        """Wait until something is found; fails the test with the end of the log otherwise."""
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds:g} s: {what}\n{self.tail()}")
            time.sleep(0.05)
        return value

    def wait_serving(self, version: int) -> None:
        """Wait until a version serves in staging and in production."""
        both = (version, version)
        self.wait(f"version {version} in staging and production", lambda: self.serving() == both)

    def wait_rest(self, ticks: int = 3) -> None:
        """Wait until no run goes on, nor is asked for in so many ticks more."""
        while True:
            self.wait("the end of all runs", self._rests)
            before, wanted = len(self.runs()), self.ticks() + ticks
            self.wait(f"{ticks} ticks", lambda wanted=wanted: self.ticks() >= wanted)
            if self._rests() and len(self.runs()) == before:
                return

    def _rests(self) -> bool:
        return all(run.is_finished for run in self.runs())

    def tail(self, lines: int = 60) -> str:
        """The end of the log, and every run, for who looks into a failure."""
        log = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        runs = [f"{r.run_id[:8]} {r.status.value} {sorted(r.tags.items())}" for r in self.runs()]
        return "\n".join([*log[-lines:], "runs:", *runs, f"serving: {self.serving()}"])

    @contextmanager
    def asked_all_the_time(self, environment: str = "production") -> Generator[set[object]]:
        """Ask an endpoint every 0.1 s; the versions that answered, and what was no answer."""
        answers, ending = set[object](), threading.Event()

        def ask() -> None:
            last = False
            while not last:
                last = ending.wait(0.1)  # and once more after that
                answers.add(self.ask(environment))

        client = threading.Thread(target=ask)
        client.start()
        try:
            yield answers
        finally:
            ending.set()
            client.join()


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to all of them; returns when they are gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


@contextmanager
def living(daemon: Daemon) -> Generator[Daemon]:
    """The daemon, started; it ends with all its processes."""
    try:
        daemon.start()
        yield daemon
    except BaseException:
        print(daemon.tail(200))
        raise
    finally:
        daemon.end()
