"""Command jobs, by azure-ai-ml: the commands really run."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml import Input, MLClient, Output, command
from azure.ai.ml.entities import AmlCompute
from azure.ai.ml.exceptions import JobException
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.azure.clients import ml_client, serving_environment
from tests.azure.faults import OperationFault
from tests.azure.server import AzureServer
from tests.local_servers import eventually

SCRIPT = """\
import os, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
print("reads", (source / "rows.csv").read_text().strip(), os.environ["COLOUR"], flush=True)
(target / "model.txt").write_text("trained")
"""


@pytest.fixture
def client(azure: AzureServer) -> MLClient:
    """With a cluster and an environment."""
    found = ml_client(azure)
    serving_environment(found)
    cluster = AmlCompute(name="cpu-cluster", size="Standard_DS3_v2", max_instances=2)
    found.compute.begin_create_or_update(cluster).wait()
    return found


def _job(text: str, **given: object) -> object:
    return command(command=text, environment="serving:1", compute="cpu-cluster", **given)


def test_a_job_reads_its_input_and_leaves_its_output(
    client: MLClient, azure: AzureServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder, name, text in (("code", "train.py", SCRIPT), ("data", "rows.csv", "1,2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    job = _job(
        "python train.py ${{inputs.rows}} ${{outputs.model}}",
        code=str(tmp_path / "code"),
        inputs={"rows": Input(type="uri_folder", path=str(tmp_path / "data"))},
        outputs={"model": Output(type="uri_folder")},
        environment_variables={"COLOUR": "blue"},
    )
    name = client.jobs.create_or_update(job).name
    client.jobs.stream(name)
    assert client.jobs.get(name).status == "Completed", capfd.readouterr().out
    path = client.jobs.get(name).outputs["model"].path
    assert path == f"azureml://datastores/workspaceblobstore/paths/azureml/{name}/model/"
    store = client.datastores.get("workspaceblobstore").container_name
    blob = azure.blob.client().get_blob_client(store, f"azureml/{name}/model/model.txt")
    assert blob.download_blob().readall() == b"trained"


def test_what_a_job_prints_can_be_read(client: MLClient, azure: AzureServer) -> None:
    name = client.jobs.create_or_update(_job("echo hello; echo there >&2")).name
    eventually(lambda: client.jobs.get(name).status == "Completed")
    path = f"ExperimentRun/dcid.{name}/user_logs/std_log.txt"
    text = azure.blob.client().get_blob_client("azureml", path).download_blob().readall()
    assert text == b"hello\nthere\n"


def test_a_job_that_fails_says_so(client: MLClient) -> None:
    name = client.jobs.create_or_update(_job("exit 3")).name
    with pytest.raises(JobException, match="status code 3"):
        client.jobs.stream(name)
    assert client.jobs.get(name).status == "Failed"


def test_a_job_is_canceled_with_its_processes(client: MLClient, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"(sleep 20; touch {mark}.late) & touch {mark}; sleep 60"
    name = client.jobs.create_or_update(_job(text)).name
    eventually(mark.exists)
    assert client.jobs.get(name).status == "Running"
    client.jobs.begin_cancel(name).wait()
    eventually(lambda: client.jobs.get(name).status == "Canceled")
    assert not Path(f"{mark}.late").exists()
    assert [job.name for job in client.jobs.list()] == [name]


def test_a_job_can_wait_for_ever_or_fail(client: MLClient, azure: AzureServer) -> None:
    azure.faults.add(OperationFault("PUT .*/jobs/", "endless"))
    azure.faults.add(OperationFault("PUT .*/jobs/", code="ClusterQuota", message="no machine"))
    waiting = client.jobs.create_or_update(_job("echo a")).name
    eventually(lambda: client.jobs.get(waiting).status == "Queued")
    failing = client.jobs.create_or_update(_job("echo a")).name
    with pytest.raises(JobException, match="no machine"):
        client.jobs.stream(failing)
    client.jobs.begin_cancel(waiting).wait()
    eventually(lambda: client.jobs.get(waiting).status == "Canceled")


def test_unknown_jobs_and_computes(client: MLClient) -> None:
    with pytest.raises(ResourceNotFoundError):
        client.jobs.get("nobody")
    job = command(command="true", environment="serving:1", compute="other")
    with pytest.raises((HttpResponseError, ResourceNotFoundError), match="other"):
        client.jobs.create_or_update(job)
