"""Training through jobs of Azure ML: the jobs really run, and leave what a process here leaves."""

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree
from typing import Any

import dagster as dg
import pytest
from azure.ai.ml.entities import AmlCompute
from dagster._core.errors import DagsterExecutionInterruptedError

from mlops_assets.files import files_below, read_json
from mlops_assets.training.remote import rank_of
from resources.azure import training_job
from resources.azure.blobs import Blobs
from resources.azure.clients import AzureClients
from resources.azure.settings import AzureSettings
from resources.azure.training import AzureMLTraining
from resources.training import LocalTraining, Training, TrainingError, TrainingKilledError
from tests.azure.clients import ml_client
from tests.azure.faults import Fault, OperationFault
from tests.azure.job_identity import CLIENT_ID
from tests.azure.server import ACCOUNT, GROUP, LOCATION, WORKSPACE, AzureServer
from tests.local_servers import eventually
from tests.repository import MODEL_YAML, TRAIN_PY
from tests.training.requests import Case, make_case

CONTAINER = "mlops"


class Ran:
    """One run of a training resource inside a run of Dagster's."""

    def __init__(self, training: Training, case: Case) -> None:
        """Run the request of a case; what it raises is kept."""
        self.error: BaseException | None = None

        @dg.asset
        def model(context: dg.AssetExecutionContext):
            try:
                training.run(context, case.request, case.output)
            except BaseException as error:
                self.error = error
                raise
            yield dg.MaterializeResult()

        with dg.DagsterInstance.ephemeral() as instance:
            self.result = dg.materialize([model], instance=instance, raise_on_error=False)
            logs = instance.all_logs(self.result.run_id)
            self.lines = [entry.user_message for entry in logs]

    @property
    def log(self) -> str:
        """All lines of the run's log."""
        return "\n".join(self.lines)


@pytest.fixture
def training(azure: AzureServer) -> Callable[..., AzureMLTraining]:
    """Make the resource: ``training(queue_seconds=1, poll_seconds=0.1)``."""

    def make(root: Path | None = None, margin: float = 60, **given: Any) -> AzureMLTraining:
        settings = AzureSettings.model_validate(
            {
                "subscription_id": azure.subscription,
                "resource_group": GROUP,
                "workspace": WORKSPACE,
                "location": LOCATION,
                "storage": {"account": ACCOUNT, "container": CONTAINER},
                "training": given,
            }
        )
        where = root or Path(__file__).parents[2]
        clients = AzureClients(settings)
        return AzureMLTraining.of(clients, root=str(where), poll_seconds=0.2, margin_seconds=margin)

    return make


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that never come are not waited for as long as on Azure."""
    monkeypatch.setattr("dagster._core.pipes.utils.WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 1)


def case(folder: Path, files: dict[str, str], **given: Any) -> Case:
    """A request with an identity, as the asset makes it."""
    found = make_case(folder / "work", files, **given)
    found.request["identity"] = "0123456789abcdef" * 4
    return found


def left(azure: AzureServer) -> list[str]:
    """Blobs of jobs that are still there."""
    client = azure.blob.client().get_container_client(CONTAINER)
    return [b.name for b in client.list_blobs(name_starts_with="training/")]


def jobs(azure: AzureServer) -> list[Any]:
    """All jobs of the workspace."""
    return azure.cloud.every("/workspaces/jobs")


def status(azure: AzureServer) -> list[str]:
    """Of each job."""
    return [job.hidden["run"].status for job in jobs(azure)]


def without_seconds(evidence: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in evidence.items() if name != "seconds"}


def test_a_job_leaves_what_a_process_here_leaves(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    there, here = (case(tmp_path / n, {"train.py": "print('so far')\n" + TRAIN_PY}) for n in "ab")
    ran = Ran(training(), there)
    assert ran.result.success, ran.log
    assert Ran(LocalTraining(), here).result.success
    assert without_seconds(there.evidence) == without_seconds(here.evidence)
    names = [{str(p.relative_to(c.output)) for p in files_below(c.output)} for c in (there, here)]
    assert names[0] == names[1]
    assert (there.output / "sample.json").read_bytes() == (here.output / "sample.json").read_bytes()
    assert "so far" in ran.lines
    assert "training on " in ran.log
    assert "https://ml.azure.com/runs/" in ran.log
    assert status(azure) == ["Completed"]
    assert left(azure) == []


def test_a_job_has_a_managed_identity_or_that_of_its_starter(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    made = AmlCompute(name="cpu-cluster", size="Standard_DS3_v2", max_instances=2)
    ml_client(azure).compute.begin_create_or_update(made).wait()
    on_cluster = training(compute="cpu-cluster", client_id=CLIENT_ID)
    for number, found in enumerate((training(), on_cluster)):
        ran = Ran(found, case(tmp_path / str(number), {"train.py": TRAIN_PY}))
        assert ran.result.success, ran.log
    kinds = [job.properties["identity"]["identityType"] for job in jobs(azure)]
    assert kinds == ["UserIdentity", "Managed"]
    serverless, cluster = (job.properties["computeId"] for job in jobs(azure))
    assert serverless is None
    assert cluster.endswith("/computes/cpu-cluster")


def test_an_identity_without_rights_is_told_which_it_needs(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    azure.faults.add(Fault("GET .*/context.json", status=403, times=None))
    ran = Ran(training(), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingError
    assert "give it the role Storage Blob Data Contributor" in str(ran.error)


def test_files_that_came_damaged_are_not_taken(
    training: Callable[..., AzureMLTraining], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Blobs.download

    def damaged(blobs: Blobs, name: str, path: Path) -> str:
        found = download(blobs, name, path)
        return "0" * 64 if path.name == "model.pkl" else found

    monkeypatch.setattr(Blobs, "download", damaged)
    ran = Ran(training(), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingKilledError
    assert str(ran.error).endswith("model.pkl came damaged")


def test_a_snapshot_with_other_bytes_is_not_trained_on(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    found = case(tmp_path, {"train.py": TRAIN_PY})
    snapshot = Path(found.request["snapshot"])
    name = f"artifacts/snapshots/{snapshot.parent.name}/{snapshot.name}"
    resource = training()
    resource._clients.container.upload_blob(name, bytes(snapshot.stat().st_size))
    ran = Ran(resource, found)
    assert str(ran.error) == "the snapshot came to the job with other bytes"


def test_the_second_job_finds_the_environment_and_the_snapshot(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    one = case(tmp_path / "one", {"train.py": TRAIN_PY})
    assert Ran(training(), one).result.success
    again = case(tmp_path / "two", {"train.py": TRAIN_PY})
    kept = tmp_path / "snapshots" / "abc" / "data.parquet"
    kept.parent.mkdir(parents=True)
    Path(again.request["snapshot"]).rename(kept)
    again.request["snapshot"] = str(kept)
    name = f"artifacts/snapshots/abc/{kept.name}"
    azure.blob.client().get_blob_client(CONTAINER, name).upload_blob(kept.read_bytes())
    ran = Ran(training(), again)
    assert ran.result.success, ran.log
    made = azure.record.exchanges("PUT .*/environments/mlops-training/versions/")
    assert len(made) == 1
    first, second = (job.properties["inputs"]["snapshot"]["uri"] for job in jobs(azure))
    assert "/mlops/training/" in first
    assert second == f"https://{ACCOUNT}.blob.core.windows.net/{CONTAINER}/{name}"


def test_two_versions_are_compared(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    found = case(tmp_path, {"train.py": TRAIN_PY})
    assert Ran(LocalTraining(), found).result.success
    version = found.bundle()
    for name in ("champion", "candidate"):
        bundle = tmp_path / name
        copytree(found.output, bundle)
        found.request[name] = {**version, "bundle": str(bundle)}
    rmtree(found.output)
    found.output.mkdir()
    found.request["mode"] = "compare"
    del found.request["spec"]
    ran = Ran(training(), found)
    assert ran.result.success, ran.log
    comparison = read_json(found.output / "comparison.json")
    assert comparison["status"] == "compared"
    assert comparison["metrics"]["r2"]["difference"] == {"value": 0, "lower": 0, "upper": 0}
    assert left(azure) == []


def test_a_train_py_that_raises_says_where(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    text = "def build(params):\n    raise ValueError('no more')\n"
    found = case(tmp_path, {"train.py": text})
    ran = Ran(training(), found)
    assert type(ran.error) is TrainingError
    assert str(ran.error).splitlines()[0] == "train.py:2: ValueError: no more"
    assert "raise ValueError" in str(ran.error)
    assert found.error["kind"] == "raised"
    assert status(azure) == ["Failed"]
    assert left(azure) == []


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("import os\ndef build(params):\n    os._exit(3)\n", TrainingError, "exit code 3"),
        (
            "import os, signal\ndef build(params):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
            TrainingError,
            "ended by SIGSEGV",
        ),
        (
            "import os, signal\ndef build(params):\n    print('before', flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n",
            TrainingKilledError,
            "ended by SIGKILL; the machine may have run out of memory",
        ),
    ],
)
def test_a_process_that_ends_without_a_word(
    training: Callable[..., AzureMLTraining],
    tmp_path: Path,
    text: str,
    kind: type[TrainingError],
    message: str,
) -> None:
    ran = Ran(training(), case(tmp_path, {"train.py": text}))
    assert type(ran.error) is kind
    assert message in str(ran.error)
    assert ("before" in ran.lines) == ("before" in text)


def test_a_job_that_does_not_start_says_what_azure_says(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    azure.faults.add(OperationFault("PUT .*/jobs/", code="ClusterQuota", message="no machine"))
    ran = Ran(training(), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingError
    assert "failed: ClusterQuota: no machine" in str(ran.error)
    assert left(azure) == []


def test_a_machine_that_was_taken_away_leaves_the_attempt_open(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    text = "The node was preempted."
    azure.faults.add(OperationFault("PUT .*/jobs/", code="SystemError", message=text))
    ran = Ran(training(), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingKilledError


def test_a_job_that_breaks_before_training_shows_its_last_lines(
    azure: AzureServer,
    training: Callable[..., AzureMLTraining],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / "mlops_assets"
    copytree(training_job.PLATFORM, broken, ignore=ignore_patterns("models", "__pycache__"))
    (broken / "training" / "remote.py").write_text("raise ImportError('no such module')\n")
    monkeypatch.setattr(training_job, "PLATFORM", broken)
    (tmp_path / "requirements.lock").write_text("")
    ran = Ran(training(tmp_path), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingError
    assert "User process exited with status code 1" in str(ran.error)
    assert "ImportError: no such module" in str(ran.error)
    assert "ImportError: no such module" in ran.lines
    assert left(azure) == []


def test_a_job_waits_no_longer_than_it_may(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    azure.faults.add(OperationFault("PUT .*/jobs/", "endless"))
    ran = Ran(training(queue_seconds=1), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingKilledError
    assert "longer than queue_seconds of training in profile.json (1 s)" in str(ran.error)
    assert status(azure) == ["Canceled"]
    assert left(azure) == []


SLEEPS = "import time\ndef build(params):\n    print('sleeps')\n    time.sleep(100)\n"


def test_training_ends_by_its_own_limit(
    training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    yaml = MODEL_YAML.replace("timeout_seconds: 60", "timeout_seconds: 3")
    ran = Ran(training(), case(tmp_path, {"train.py": SLEEPS}, yaml=yaml))
    assert type(ran.error) is TrainingError
    text = str(ran.error)
    assert text.startswith("training was ended after timeout_seconds of model.yaml (3 s)")
    assert "train.py" in text
    assert "sleeps" in ran.lines


def test_azure_ends_a_job_that_nobody_ends(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    ran = Ran(training(margin=-56), case(tmp_path, {"train.py": SLEEPS}))
    assert type(ran.error) is TrainingError
    assert "ran longer than its limit (4 s)" in str(ran.error)
    assert status(azure) == ["Canceled"]
    assert azure.record.exchanges("POST .*/cancel") == []


def meanwhile(do: Callable[[], None]) -> threading.Thread:
    """Do something in a thread."""
    thread = threading.Thread(target=do)
    thread.start()
    return thread


def test_a_job_that_somebody_cancels_leaves_the_attempt_open(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SLEEPS}"

    def cancel() -> None:
        eventually(mark.exists, 60)
        ml_client(azure).jobs.begin_cancel(jobs(azure)[0].name)

    thread = meanwhile(cancel)
    ran = Ran(training(), case(tmp_path, {"train.py": text}))
    thread.join()
    assert type(ran.error) is TrainingKilledError
    assert "was cancelled, by somebody or by Azure" in str(ran.error)
    assert left(azure) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_the_run_stops_the_job(
    azure: AzureServer,
    training: Callable[..., AzureMLTraining],
    tmp_path: Path,
    number: int,
) -> None:
    mark = tmp_path / "mark"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SLEEPS}"

    def stop() -> None:
        eventually(mark.exists, 60)
        os.kill(os.getpid(), number)

    thread = meanwhile(stop)
    ran = Ran(training(), case(tmp_path, {"train.py": text}))
    thread.join()
    assert isinstance(ran.error, DagsterExecutionInterruptedError)
    assert not ran.result.success
    assert "model" not in [event.node_name for event in ran.result.get_step_success_events()]
    assert status(azure) == ["Canceled"]
    assert left(azure) == []


def test_the_next_attempt_ends_the_job_of_a_run_that_was_killed(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n{SLEEPS}"
    child = os.fork()
    if child == 0:  # a process that dies where it stands
        try:
            Ran(training(), case(tmp_path / "killed", {"train.py": text}))
        finally:
            os._exit(1)
    eventually(mark.exists, 60)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert status(azure) == ["Running"]
    assert left(azure)
    ran = Ran(training(), case(tmp_path / "next", {"train.py": TRAIN_PY}))
    assert ran.result.success, ran.log
    assert "was left by a run that was killed" in ran.log
    assert status(azure) == ["Canceled", "Completed"]
    assert left(azure) == []


@pytest.mark.parametrize(("drop", "retries"), [("request", 3), ("answer", 3), ("answer", 0)])
def test_a_connection_lost_while_a_job_is_made_makes_no_second_one(
    azure: AzureServer,
    training: Callable[..., AzureMLTraining],
    tmp_path: Path,
    drop: str,
    retries: int,
) -> None:
    found = training()
    found._clients.__dict__["workspace"] = ml_client(azure, retry_total=retries)
    azure.faults.add(Fault("PUT .*/jobs/", drop=drop))
    ran = Ran(found, case(tmp_path, {"train.py": TRAIN_PY}))
    assert ran.result.success, ran.log
    assert status(azure) == ["Completed"]
    assert len(azure.record.exchanges("PUT .*/jobs/")) == (2 if retries else 1)


def test_a_throttled_or_broken_look_at_the_job_is_repeated(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    found = training()
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


def test_nothing_secret_is_sent_and_whom_the_job_belongs_to_can_be_seen(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    found = case(tmp_path, {"train.py": TRAIN_PY})
    ran = Ran(training(), found)
    assert ran.result.success, ran.log
    job = jobs(azure)[0].properties
    sent = json.dumps([job, [asdict(e) for e in azure.record.exchanges()]], default=str)
    for secret in (azure.login.secret, azure.blob.key, "AZURE_CLIENT_SECRET", str(tmp_path)):
        assert secret not in sent
    assert job["tags"]["mlops_run"] == ran.result.run_id
    assert job["tags"]["mlops_identity"] == found.request["identity"]
    assert set(job["environmentVariables"]) == {
        "PYTHONPATH", "MLOPS_STORAGE_URL", "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES",
    }  # fmt: skip
    assert job["limits"]["timeout"] == "PT2M"


def test_of_several_processes_the_first_one_writes(
    azure: AzureServer, training: Callable[..., AzureMLTraining], tmp_path: Path
) -> None:
    text = (
        "import os, pathlib\nfrom sklearn.dummy import DummyRegressor\n"
        "def train(frame, target, params):\n"
        f"    path = pathlib.Path({str(tmp_path)!r}) / f'rank{{os.environ[\"RANK\"]}}'\n"
        "    path.write_text(os.environ['WORLD_SIZE'])\n"
        "    return DummyRegressor().fit(frame, target)\n"
    )
    distribution = {"type": "pytorch", "process_count_per_instance": 1}
    ran = Ran(
        training(instance_count=2, distribution=distribution), case(tmp_path, {"train.py": text})
    )
    assert ran.result.success, ran.log
    assert sorted(p.name for p in tmp_path.glob("rank*")) == ["rank0", "rank1"]
    assert (tmp_path / "rank1").read_text() == "2"
    assert len([line for line in ran.lines if line.startswith("training on ")]) == 1


def tensorflow(cluster: str, kind: str, index: int) -> dict[str, str]:
    """What TensorFlow's processes are told."""
    found = {"cluster": {n: ["a"] for n in cluster.split()}, "task": {"type": kind, "index": index}}
    return {"TF_CONFIG": json.dumps(found)}


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"RANK": "3", "NODE_RANK": "1"}, 3),
        ({"OMPI_COMM_WORLD_RANK": "2"}, 2),
        ({"NODE_RANK": "1"}, 1),
        (tensorflow("worker", "worker", 0), 0),
        (tensorflow("worker", "worker", 1), 1),
        (tensorflow("chief worker", "worker", 0), 1),
        (tensorflow("chief worker", "chief", 0), 0),
    ],
)
def test_which_process_is_the_first(variables: dict[str, str], rank: int) -> None:
    assert rank_of(variables) == rank
