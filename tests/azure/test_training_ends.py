"""How jobs of Azure ML end that do not simply train: limits, interruptions, faults of Azure."""

import os
import signal
from pathlib import Path

import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from resources.training import TrainingError, TrainingKilledError
from tests.azure.clients import ml_client
from tests.azure.faults import Fault, OperationFault
from tests.azure.server import AzureServer
from tests.azure.trained import SLEEPS, Ran, case, jobs, left, meanwhile, on_jobs, status
from tests.local_servers import eventually
from tests.repository import MODEL_YAML, TRAIN_PY


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that never come are not waited for as long as on Azure."""
    monkeypatch.setattr("dagster._core.pipes.utils.WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 1)


def test_a_job_waits_no_longer_than_it_may(azure: AzureServer, tmp_path: Path) -> None:
    azure.faults.add(OperationFault("PUT .*/jobs/", "endless"))
    ran = Ran(on_jobs(azure, queue_seconds=1), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingKilledError
    assert "longer than queue_seconds of training in profile.json (1 s)" in str(ran.error)
    assert status(azure) == ["Canceled"]
    assert left(azure) == []


def test_training_ends_by_its_own_limit(azure: AzureServer, tmp_path: Path) -> None:
    yaml = MODEL_YAML.replace("timeout_seconds: 60", "timeout_seconds: 3")
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": SLEEPS}, yaml=yaml))
    assert type(ran.error) is TrainingError
    text = str(ran.error)
    assert text.startswith("training was ended after timeout_seconds of model.yaml (3 s)")
    assert "train.py" in text
    assert "sleeps" in ran.lines


def test_azure_ends_a_job_that_nobody_ends(azure: AzureServer, tmp_path: Path) -> None:
    ran = Ran(on_jobs(azure, margin=-56), case(tmp_path, {"train.py": SLEEPS}))
    assert type(ran.error) is TrainingError
    assert "ran longer than its limit (4 s)" in str(ran.error)
    assert status(azure) == ["Canceled"]
    assert azure.record.exchanges("POST .*/cancel") == []


def test_a_job_that_somebody_cancels_leaves_the_attempt_open(
    azure: AzureServer, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SLEEPS}"

    def cancel() -> None:
        eventually(mark.exists, 60)
        ml_client(azure).jobs.begin_cancel(jobs(azure)[0].name)

    thread = meanwhile(cancel)
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": text}))
    thread.join()
    assert type(ran.error) is TrainingKilledError
    assert "was cancelled, by somebody or by Azure" in str(ran.error)
    assert left(azure) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_the_run_stops_the_job(
    azure: AzureServer,
    tmp_path: Path,
    number: int,
) -> None:
    mark = tmp_path / "mark"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SLEEPS}"

    def stop() -> None:
        eventually(mark.exists, 60)
        os.kill(os.getpid(), number)

    thread = meanwhile(stop)
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": text}))
    thread.join()
    assert isinstance(ran.error, DagsterExecutionInterruptedError)
    assert not ran.result.success
    assert "model" not in [event.node_name for event in ran.result.get_step_success_events()]
    assert status(azure) == ["Canceled"]
    assert left(azure) == []


def test_the_next_attempt_ends_the_job_of_a_run_that_was_killed(
    azure: AzureServer, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SLEEPS}"
    child = os.fork()
    if child == 0:  # a process that dies where it stands
        try:
            Ran(on_jobs(azure), case(tmp_path / "killed", {"train.py": text}))
        finally:
            os._exit(1)
    eventually(mark.exists, 60)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert status(azure) == ["Running"]
    assert left(azure)
    ran = Ran(on_jobs(azure), case(tmp_path / "next", {"train.py": TRAIN_PY}))
    assert ran.result.success, ran.log
    assert "was left by a run that was killed" in ran.log
    assert status(azure) == ["Canceled", "Completed"]
    assert left(azure) == []


@pytest.mark.parametrize(("drop", "retries"), [("request", 3), ("answer", 3), ("answer", 0)])
def test_a_connection_lost_while_a_job_is_made_makes_no_second_one(
    azure: AzureServer,
    tmp_path: Path,
    drop: str,
    retries: int,
) -> None:
    found = on_jobs(azure)
    found._clients.__dict__["workspace"] = ml_client(azure, retry_total=retries)
    azure.faults.add(Fault("PUT .*/jobs/", drop=drop))
    ran = Ran(found, case(tmp_path, {"train.py": TRAIN_PY}))
    assert ran.result.success, ran.log
    assert status(azure) == ["Completed"]
    assert len(azure.record.exchanges("PUT .*/jobs/")) == (2 if retries else 1)


def test_a_throttled_or_broken_look_at_the_job_is_repeated(
    azure: AzureServer, tmp_path: Path
) -> None:
    found = on_jobs(azure)
    # Errors that Microsoft's client does not get over by itself.
    found._clients.__dict__["workspace"] = ml_client(azure, retry_total=0)
    where = "GET .*/jobs/"
    azure.faults.add(
        Fault(where, status=429, retry_after=1, times=2),
        Fault(where, status=500, times=2),
        Fault(where, drop="request", times=2),
    )
    ran = Ran(found, case(tmp_path, {"train.py": TRAIN_PY}))
    assert ran.result.success, ran.log
    assert len(azure.record.exchanges(where)) > 6
    assert "cannot be seen at the moment" in ran.log


def test_a_machine_that_was_taken_away_leaves_the_attempt_open(
    azure: AzureServer, tmp_path: Path
) -> None:
    text = "The node was preempted."
    azure.faults.add(OperationFault("PUT .*/jobs/", code="SystemError", message=text))
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingKilledError


def test_a_job_that_does_not_start_says_what_azure_says(azure: AzureServer, tmp_path: Path) -> None:
    azure.faults.add(OperationFault("PUT .*/jobs/", code="ClusterQuota", message="no machine"))
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingError
    assert "failed: ClusterQuota: no machine" in str(ran.error)
    assert left(azure) == []
