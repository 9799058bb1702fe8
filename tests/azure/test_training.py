"""Training through jobs of Azure ML: the jobs really run, and leave what a process here leaves."""

import json
from dataclasses import asdict
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree
from typing import Any

import dagster as dg
import pytest
from azure.ai.ml.entities import AmlCompute

from mlops_assets.files import digest_file, files_below, read_json, to_json
from mlops_assets.training.remote import rank_of
from resources.azure import training_job
from resources.azure.blobs import Blobs
from resources.training import LocalTraining, TrainingError, TrainingKilledError
from tests.azure.clients import ml_client
from tests.azure.faults import Fault
from tests.azure.job_identity import CLIENT_ID
from tests.azure.platforms import on_azure
from tests.azure.server import AzureServer
from tests.azure.trained import CONTAINER, Ran, case, jobs, left, on_jobs, status
from tests.repository import TRAIN_PY, rows


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that never come are not waited for as long as on Azure."""
    monkeypatch.setattr("dagster._core.pipes.utils.WAIT_FOR_LOGS_AFTER_EXECUTION_INTERVAL", 1)


def without_seconds(evidence: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in evidence.items() if name != "seconds"}


def test_a_job_leaves_what_a_process_here_leaves(azure: AzureServer, tmp_path: Path) -> None:
    there, here = (case(tmp_path / n, {"train.py": "print('so far')\n" + TRAIN_PY}) for n in "ab")
    ran = Ran(on_jobs(azure), there)
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
    azure: AzureServer, tmp_path: Path
) -> None:
    made = AmlCompute(name="cpu-cluster", size="Standard_DS3_v2", max_instances=2)
    ml_client(azure).compute.begin_create_or_update(made).wait()
    on_cluster = on_jobs(azure, compute="cpu-cluster", client_id=CLIENT_ID)
    for number, found in enumerate((on_jobs(azure), on_cluster)):
        ran = Ran(found, case(tmp_path / str(number), {"train.py": TRAIN_PY}))
        assert ran.result.success, ran.log
    kinds = [job.properties["identity"]["identityType"] for job in jobs(azure)]
    assert kinds == ["UserIdentity", "Managed"]
    serverless, cluster = (job.properties["computeId"] for job in jobs(azure))
    assert serverless is None
    assert cluster.endswith("/computes/cpu-cluster")


def test_an_identity_without_rights_is_told_which_it_needs(
    azure: AzureServer, tmp_path: Path
) -> None:
    azure.faults.add(Fault("GET .*/context.json", status=403, times=None))
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingError
    assert "give it the role Storage Blob Data Contributor" in str(ran.error)


def test_files_that_came_damaged_are_not_taken(
    azure: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Blobs.download

    def damaged(blobs: Blobs, name: str, path: Path) -> str:
        found = download(blobs, name, path)
        return "0" * 64 if path.name == "model.pkl" else found

    monkeypatch.setattr(Blobs, "download", damaged)
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingKilledError
    assert str(ran.error).endswith("model.pkl came damaged")


def test_a_snapshot_with_other_bytes_is_not_trained_on(azure: AzureServer, tmp_path: Path) -> None:
    found = case(tmp_path, {"train.py": TRAIN_PY})
    snapshot = Path(found.request["snapshot"])
    resource = on_jobs(azure)
    digest = digest_file(snapshot)
    blobs = Blobs(resource._clients)
    index = {"folder": "elsewhere", "files": {snapshot.name: digest}}
    blobs.write(f"artifacts/snapshots/{snapshot.parent.name}/index.json", to_json(index).encode())
    blobs.write(f"elsewhere/{snapshot.name}", b"changed")
    ran = Ran(resource, found)
    assert str(ran.error) == "the snapshot came to the job with other bytes"


def test_the_second_job_finds_the_environment(azure: AzureServer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert Ran(on_jobs(azure), case(tmp_path / name, {"train.py": TRAIN_PY})).result.success
    assert len(azure.record.exchanges("PUT .*/environments/mlops-training/versions/")) == 1


def test_two_versions_are_compared(azure: AzureServer, tmp_path: Path) -> None:
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
    ran = Ran(on_jobs(azure), found)
    assert ran.result.success, ran.log
    comparison = read_json(found.output / "comparison.json")
    assert comparison["status"] == "compared"
    assert comparison["metrics"]["r2"]["difference"] == {"value": 0, "lower": 0, "upper": 0}
    assert left(azure) == []


def test_a_train_py_that_raises_says_where(azure: AzureServer, tmp_path: Path) -> None:
    text = "def build(params):\n    raise ValueError('no more')\n"
    found = case(tmp_path, {"train.py": text})
    ran = Ran(on_jobs(azure), found)
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
    azure: AzureServer,
    tmp_path: Path,
    text: str,
    kind: type[TrainingError],
    message: str,
) -> None:
    ran = Ran(on_jobs(azure), case(tmp_path, {"train.py": text}))
    assert type(ran.error) is kind
    assert message in str(ran.error)
    assert ("before" in ran.lines) == ("before" in text)


def test_a_job_that_breaks_before_training_shows_its_last_lines(
    azure: AzureServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = tmp_path / "mlops_assets"
    copytree(training_job.PLATFORM, broken, ignore=ignore_patterns("models", "__pycache__"))
    (broken / "training" / "remote.py").write_text("raise ImportError('no such module')\n")
    monkeypatch.setattr(training_job, "PLATFORM", broken)
    (tmp_path / "requirements.lock").write_text("")
    ran = Ran(on_jobs(azure, tmp_path), case(tmp_path, {"train.py": TRAIN_PY}))
    assert type(ran.error) is TrainingError
    assert "User process exited with status code 1" in str(ran.error)
    assert "ImportError: no such module" in str(ran.error)
    assert "ImportError: no such module" in ran.lines
    assert left(azure) == []


def test_nothing_secret_is_sent_and_whom_the_job_belongs_to_can_be_seen(
    azure: AzureServer, tmp_path: Path
) -> None:
    found = case(tmp_path, {"train.py": TRAIN_PY})
    ran = Ran(on_jobs(azure), found)
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


def test_of_several_processes_the_first_one_writes(azure: AzureServer, tmp_path: Path) -> None:
    text = (
        "import os, pathlib\nfrom sklearn.dummy import DummyRegressor\n"
        "def train(frame, target, params):\n"
        f"    path = pathlib.Path({str(tmp_path)!r}) / f'rank{{os.environ[\"RANK\"]}}'\n"
        "    path.write_text(os.environ['WORLD_SIZE'])\n"
        "    return DummyRegressor().fit(frame, target)\n"
    )
    distribution = {"type": "pytorch", "process_count_per_instance": 1}
    resource = on_jobs(azure, instance_count=2, distribution=distribution)
    ran = Ran(resource, case(tmp_path, {"train.py": text}))
    assert ran.result.success, ran.log
    assert sorted(p.name for p in tmp_path.glob("rank*")) == ["rank0", "rank1"]
    assert (tmp_path / "rank1").read_text() == "2"
    assert len([line for line in ran.lines if line.startswith("training on ")]) == 1
    assert len(azure.record.exchanges("PUT .*/files.json")) == 1


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


def test_a_model_is_trained_on_azure_by_its_asset(azure: AzureServer, tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))
    platform = on_azure(azure, tmp_path, instance)
    azure.blob.client().get_container_client(CONTAINER).create_container()
    data = azure.blob.client().get_blob_client(CONTAINER, "data/rent/rents.csv")
    data.upload_blob(rows(120).encode())
    assert platform.materialize("dataset", "trained_model"), platform.failures
    (job,) = jobs(azure)
    assert "/mlops/artifacts/snapshots/" in job.properties["inputs"]["snapshot"]["uri"]
    assert job.properties["tags"]["mlops_run"] == platform.result.run_id
    made = platform.result.asset_materializations_for_node("rent__trained_model")[0]
    assert made.metadata["r2"].value > 0.9
    assert left(azure) == []
