"""Parts of the living platform killed with SIGKILL during a run: it comes to rest by itself.

The old version answers all the time, the newest good one serves in the end, dead runs are marked
as failed, and nothing waits for them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import dagster as dg
import psutil
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG

from mlops_assets.assets.registered_model import GATES_ATTEMPT
from mlops_assets.runs import PROCESS_TAG
from mlops_assets.wiring import build_resources
from resources.attempts import Attempt
from tests.repository import TRAIN_PY
from tests.system.daemon import Daemon, kill, living
from tests.system.team import make_daemon

Status = dg.DagsterRunStatus
#: Long enough to be killed in the middle.
SLOW_TRAIN_PY = TRAIN_PY.replace("def build(params):\n", "def build(params):\n    time.sleep(5)\n")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The living daemon, after the first release."""
    with living(make_daemon(tmp_path_factory.mktemp("kills"))) as found:
        found.wait_serving(1)
        yield found


@pytest.fixture(autouse=True)
def at_rest(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[None]:
    """Each test begins with a living daemon that has nothing to do."""
    if not daemon.lives:
        daemon.start()
    daemon.wait_rest()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(daemon.tail())


@contextmanager
def released_in_the_end(daemon: Daemon, what: str, failed: int = 1) -> Generator[None]:
    """Push a train.py; in the block somebody is killed, and its version serves all the same.

    Args:
        daemon: at rest.
        what: is done, for what is printed.
        failed: how many runs are marked as failed.
    """
    before, dead = len(daemon.registry.versions("rent")), len(daemon.runs(Status.FAILURE))
    with daemon.asked_all_the_time() as answers:
        daemon.push(f"import time\n{SLOW_TRAIN_PY}\n# {uuid.uuid4()}\n", what)
        yield
        killed = time.monotonic()
        daemon.wait_serving(before + 1)
        print(f"\n{what}: its version serves {time.monotonic() - killed:.1f} s later")
        daemon.wait_rest()
        assert daemon.serving() == (before + 1, before + 1)
    assert answers == {before, before + 1}
    assert len(daemon.registry.versions("rent")) == before + 1
    assert len(daemon.runs(Status.FAILURE)) == dead + failed
    assert {run.status for run in daemon.runs()} <= {Status.FAILURE, Status.SUCCESS}
    assert daemon.find("training.runner") == []


def training(daemon: Daemon) -> psutil.Process:
    """The training process, once it runs."""
    (process,) = daemon.wait("a training process", lambda: daemon.find("training.runner"))
    return process


def worker(daemon: Daemon) -> psutil.Process:
    """The process of the run that goes on."""
    (run,) = daemon.runs(Status.STARTED)
    pid = int(run.tags[PROCESS_TAG].partition("@")[0])
    (process,) = [process for process in daemon.family() if process.pid == pid]
    return process


def test_the_training_process_is_killed(daemon: Daemon) -> None:
    with released_in_the_end(daemon, "training process killed"):
        kill([training(daemon)])


def test_the_run_worker_is_killed(daemon: Daemon) -> None:
    with released_in_the_end(daemon, "run worker killed"):
        child = training(daemon)
        kill([worker(daemon)])
        child.wait(10)


def test_the_run_worker_is_killed_before_the_gates(daemon: Daemon) -> None:
    """Between the version's registration and the question what its gates say."""
    attempts = build_resources(daemon.profile)["attempts"]
    gates = dg.AssetKey(["rent", GATES_ATTEMPT])

    def asked() -> Attempt:
        return attempts.last(gates)

    with released_in_the_end(daemon, "run worker killed before the gates"):
        before, versions = asked(), len(daemon.registry.versions("rent"))
        training(daemon)
        process = worker(daemon)
        while len(daemon.registry.versions("rent")) == versions:
            time.sleep(0.001)
        while asked() == before:
            time.sleep(0.001)
        process.suspend()
        assert not asked().ended
        kill([process])


def test_the_daemon_is_killed(daemon: Daemon) -> None:
    """With the daemon ends all that ``mlops dev`` has started; a run alone goes on to its end."""
    with released_in_the_end(daemon, "daemon killed", failed=0):
        training(daemon)
        kill(daemon.find("dagster._daemon"))
        daemon.wait("the end of mlops dev", lambda: not daemon.lives)
        daemon.start()


def test_everything_is_killed(daemon: Daemon) -> None:
    with released_in_the_end(daemon, "everything killed in a training"):
        training(daemon)
        kill(daemon.family())
        assert [run.status for run in daemon.runs(Status.STARTED)] == [Status.STARTED]
        daemon.start()


def handed_over(daemon: Daemon, status: Status) -> list[dg.DagsterRun]:
    """Runs that are queued; or starting, a code server having been told to."""
    runs = daemon.runs(status)
    return [run for run in runs if status == Status.QUEUED or GRPC_INFO_TAG in run.tags]


@pytest.mark.parametrize("status", [Status.QUEUED, Status.STARTING])
def test_everything_is_killed_before_the_first_step(daemon: Daemon, status: Status) -> None:
    lost = int(status == Status.STARTING)
    with released_in_the_end(daemon, f"everything killed, run {status.value}", lost):
        daemon.wait(f"a run that is {status.value}", lambda: handed_over(daemon, status))
        kill(daemon.family())
        assert daemon.runs(status)
        daemon.start()
