"""Files as people have them, each with what must be said of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlops_assets import cli
from mlops_assets.convert import Conversion, convert
from mlops_assets.convert.report import HIDDEN
from resources.environment import Environment
from tests.convert.azure_accepts import group_validator, load_documents, needs_specifications, quiet

pytestmark = quiet

SAMPLES = Path(__file__).parent / "samples"
ACI = sorted(SAMPLES.glob("aci_*"))
AKS = sorted(SAMPLES.glob("aks_*"))
INFERENCE = sorted(SAMPLES.glob("inference_*"))

# Per file: what became of its keys, those that were not simply kept.
EXPECTED: dict[str, dict[str, str]] = {
    "aci_as_documented.json": {},
    "aci_insights.yml": {
        "containerResourceRequirements.cpu": "read as",
        "authEnabled": "read as",
        "enableAppInsights": "misspelt",
    },
    "aci_comments.json": {"location": "read as", "authEnabled": "lost"},
    "aci_tls.yml": {
        "cpuCores": "misspelt",
        "memoryGb": "misspelt",
        "dnsNameLabel": "read as",
        "sslEnabled": "lost",
        "sslCertificate": "lost",
        "sslKey": "lost",
        "cname": "lost",
        "keys.primaryKey": "lost",
    },
    "aci_network.json": {"tags.team": "lost"},
    "aks_alone.yml": {},
    "aks_as_documented.json": {"namespace": "lost"},
    "aks_sloppy.yml": {
        "sslEnabled": "lost",
        "maxQueueWaitsMs": "misspelt",
        "scoringTimeoutMs": "read as",
        "containerResourceRequirement.cpu": "misspelt",
        "containerResourceRequirement.memoryInGB": "misspelt",
        "containerResourceRequirements.gpu": "misspelt",
        "autoScaler.autoscaleEnabled": "read as",
        "autoScaler.maxReplica": "misspelt",
        "replicaMaxConcurrentRequests": "misspelt",
        "enableAppInsights": "misspelt",
    },
    "aks_fixed.json": {"numReplicas": "read as", "autoScaler.minReplicas": "lost"},
    "aks_nulls.json": {
        "autoScaler": "read as",
        "dataCollection": "read as",
        "livenessProbeRequirements": "read as",
        "keys": "read as",
        "computeTargetName": "read as",
        "numReplicas": "read as",
        "scoringTimeoutMs": "default changed",
        "containerResourceRequirements.cpu": "default changed",
        "containerResourceRequirements.memoryInGB": "default changed",
    },
    "aks_endpoint.yml": {
        "versionName": "read as",
        "trafficPercentile": "lost",
        "autoScaler.minReplicas": "read as",
        "authEnabled": "default changed",
    },
    "aks_vm_size.yaml": {"computeType": "read as"},
    "aks_docstring.yml": {"compute_type": "read as", "defaults.cpu": "misspelt"},
    "inference_old.json": {
        "extraDockerfileSteps": "lost",
        "schemaFile": "lost",
        "enableGpu": "read as",
        "baseImageRegistry.username": "lost",
        "baseImageRegistry.password": "lost",
    },
    "inference_documented.json": {"extraDockerFileSteps": "misspelt", "condaFile": "lost"},
    "inference_environment.json": {
        "condaFile": "lost",
        "environment.name": "lost",
        "environment.version": "lost",
        "environment.docker.enabled": "lost",
        "environment.docker.arguments": "lost",
        "environment.environmentVariables.DB_PASSWORD": "lost",
        "environment.inferencingStackVersion": "lost",
        "environment.python.interpreterPath": "lost",
        "environment.spark.packages": "lost",
        "environment.spark.precachePackages": "lost",
    },
    "inference_named.yml": {"environment": "read as"},
}


def mlops(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, [*map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


def converted(folder: Path, *names: str) -> tuple[Conversion, dict[str, Any]]:
    """A conversion, and its deployment as written."""
    conversion = convert([SAMPLES / name for name in names], folder)
    return conversion, conversion.documents.get("production/deployment.json", {})


@pytest.mark.parametrize("path", [*ACI, *AKS, *INFERENCE], ids=lambda path: path.name)
def test_what_is_said_of_every_key(path: Path, tmp_path: Path) -> None:
    names = [path.name] if path not in INFERENCE else ["aks_alone.yml", path.name]
    conversion, _ = converted(tmp_path, *names)
    said = {row.key: row.kind for row in reversed(conversion.reports[-1].in_order()) if row.line}
    assert {key: kind for key, kind in said.items() if kind != "kept"} == EXPECTED[path.name]
    assert all(row.reason for row in conversion.reports[-1].rows if row.kind != "kept")


@pytest.mark.parametrize("path", [*AKS, *INFERENCE], ids=lambda path: path.name)
def test_azures_own_loader_takes_what_mlops_convert_wrote(path: Path, tmp_path: Path) -> None:
    files = [path] if path in AKS else [SAMPLES / "aks_alone.yml", path]
    code, output = mlops("convert", *files, "--to", tmp_path / "azure")
    assert code == 0, output
    assert (tmp_path / "azure/report.md").read_text() in output
    load_documents(tmp_path / "azure/production")


@needs_specifications
@pytest.mark.parametrize("path", ACI, ids=lambda path: path.name)
def test_azures_specification_takes_the_container_group(path: Path, tmp_path: Path) -> None:
    conversion, _ = converted(tmp_path, path.name)
    group_validator().validate(conversion.documents["staging/container_group.json"])


def test_what_v1_did_by_default_is_written_out(tmp_path: Path) -> None:
    code, output = mlops("convert", SAMPLES / "aks_alone.yml", "--to", tmp_path)
    assert code == 0, output
    endpoint, deployment = load_documents(tmp_path / "production")
    assert endpoint.auth_mode == "key"
    assert deployment.app_insights_enabled is False
    assert vars(deployment.request_settings) == {
        "request_timeout_ms": 60000,
        "max_concurrent_requests_per_instance": 1,
        "max_queue_wait_ms": 500,
    }
    assert vars(deployment.liveness_probe) == {
        "initial_delay": 310,
        "period": 10,
        "timeout": 2,
        "success_threshold": 1,
        "failure_threshold": 3,
    }
    scale = deployment.scale_settings
    assert (scale.type, scale.min_instances, scale.max_instances) == ("target_utilization", 1, 10)
    assert (scale.target_utilization_percentage, scale.polling_interval) == (70, 1)
    requests = deployment.resources.requests
    assert (requests.cpu, requests.memory, requests.gpu) == ("0.1", "0.5Gi", None)
    lines = [line for line in output.splitlines() if "| default changed |" in line]
    assert {line.split(" | ")[1] for line in lines} == {
        "autoScaler.autoscaleEnabled",
        "autoScaler.maxReplicas",
        "scoringTimeoutMs",
        "livenessProbeRequirements.initialDelaySeconds",
        "livenessProbeRequirements.failureThreshold",
        "containerResourceRequirements.cpu",
        "containerResourceRequirements.memoryInGB",
    }


def test_a_misspelt_wish_is_told_and_what_v1_ran_stays(tmp_path: Path) -> None:
    conversion, deployment = converted(tmp_path, "aks_sloppy.yml")
    assert deployment["request_settings"]["max_queue_wait_ms"] == 500
    assert deployment["request_settings"]["request_timeout_ms"] == 20000
    assert deployment["resources"] == {"requests": {"cpu": "0.1", "memory": "0.5Gi"}}
    rows = {row.key: row for row in conversion.reports[0].rows}
    assert rows["maxQueueWaitsMs"].found == "3000"
    assert rows["maxQueueWaitsMs"].reason == (
        "v1 never read it; maxQueueWaitMs is probably meant. v1 ran without it: deployment.json: "
        "request_settings.max_queue_wait_ms = 500; if you want it, write it into the document"
    )
    for key, meant in {
        "containerResourceRequirement.cpu": "containerResourceRequirements.cpu",
        "containerResourceRequirements.gpu": "gpuCores",
        "autoScaler.maxReplica": "autoScaler.maxReplicas",
        "replicaMaxConcurrentRequests": "maxConcurrentRequestsPerContainer",
        "enableAppInsights": "appInsightsEnabled",
    }.items():
        assert f"; {meant} is probably meant" in rows[key].reason


def test_fixed_replicas_limits_and_tokens(tmp_path: Path) -> None:
    conversion, deployment = converted(tmp_path, "aks_fixed.json")
    assert deployment["instance_count"] == 3
    assert deployment["scale_settings"] == {"type": "default"}
    assert deployment["resources"] == {
        "requests": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "1"},
        "limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
    }
    assert conversion.documents["production/endpoint.json"]["auth_mode"] == "aml_token"


def test_versions_of_an_endpoint_become_deployments(tmp_path: Path) -> None:
    conversion, deployment = converted(tmp_path, "aks_endpoint.yml")
    assert deployment["name"] == "version-b"
    assert "traffic" not in conversion.documents["production/endpoint.json"]
    assert '--traffic "version-b=20"' in conversion.report


def test_code_and_environment_go_into_the_deployment(tmp_path: Path) -> None:
    there = Path(os.path.relpath(SAMPLES, tmp_path / "production")).as_posix()
    _, deployment = converted(tmp_path, "aks_alone.yml", "inference_old.json")
    assert deployment["code_configuration"] == {"code": there, "scoring_script": "score.py"}
    assert deployment["environment"] == {
        "image": "plant.azurecr.io/plant/base:3",
        "conda_file": f"{there}/conda.yml",
    }
    _, deployment = converted(tmp_path, "aks_alone.yml", "inference_environment.json")
    assert deployment["code_configuration"] == {
        "code": f"{there}/source",
        "scoring_script": "score.py",
    }
    assert deployment["environment"]["conda_file"]["channels"] == ["conda-forge"]
    assert deployment["environment_variables"] == {"OMP_NUM_THREADS": "1"}
    _, deployment = converted(tmp_path, "aks_alone.yml", "inference_named.yml")
    assert deployment["environment"] == "azureml:AzureML-sklearn-0.24@latest"
    conversion, deployment = converted(tmp_path, "aks_alone.yml", "inference_documented.json")
    assert deployment["code_configuration"]["code"] == f"{there}/source"
    assert "cuda" in deployment["environment"]["image"]
    assert "there is no conda file at that place" in conversion.report


def test_staging_and_production_from_one_set_of_files(tmp_path: Path) -> None:
    names = ["aci_network.json", "aks_as_documented.json", "inference_environment.json"]
    conversion, _ = converted(tmp_path, *names)
    assert list(conversion.files()) == [
        "staging/environment.json",
        "staging/container_group.json",
        "production/environment.json",
        "production/endpoint.json",
        "production/deployment.json",
        "report.md",
    ]
    production = conversion.documents["production/environment.json"]
    assert production == {"name": "production", "target": "aks", "promotes_from": "staging"}
    for name in ("staging", "production"):
        declared = conversion.documents[f"{name}/environment.json"]
        Environment.model_validate({**declared, "target": "local"})
    group = conversion.documents["staging/container_group.json"]["properties"]
    assert group["ipAddress"]["type"] == "Private"
    assert group["subnetIds"][0]["id"].endswith("/virtualNetworks/plant/subnets/models")
    assert group["encryptionProperties"]["keyVersion"] == "3"
    container = group["containers"][0]["properties"]
    assert container["environmentVariables"] == [{"name": "OMP_NUM_THREADS", "value": "1"}]


def test_a_container_group_alone_takes_the_variables_and_loses_the_code(tmp_path: Path) -> None:
    conversion, _ = converted(tmp_path, "aci_network.json", "inference_environment.json")
    rows = {row.key: row for row in conversion.reports[1].rows}
    assert rows["environment.environmentVariables.OMP_NUM_THREADS"].kind == "kept"
    assert rows["entryScript"].kind == "lost"
    assert "scoring server loads the version" in rows["entryScript"].reason


@pytest.mark.parametrize("path", [*ACI, *AKS, *INFERENCE], ids=lambda path: path.name)
def test_secrets_are_named_and_never_shown(path: Path, tmp_path: Path) -> None:
    files = [path] if path not in INFERENCE else [SAMPLES / "aks_alone.yml", path]
    _, output = mlops("convert", *files, "--to", tmp_path)
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "do-not-show-me" not in output + written
    assert (HIDDEN in output) == ("do-not-show-me" in path.read_text())


def test_again_changes_nothing_and_never_overwrites(tmp_path: Path) -> None:
    assert mlops("convert", SAMPLES / "aks_alone.yml", "--to", tmp_path)[0] == 0
    assert mlops("convert", SAMPLES / "aks_alone.yml", "--to", tmp_path)[0] == 0
    document = tmp_path / "production/deployment.json"
    document.write_text(json.dumps({"edited": True}))
    (tmp_path / "report.md").unlink()
    code, output = mlops("convert", SAMPLES / "aks_alone.yml", "--to", tmp_path)
    assert code == 1
    assert output == f"Error: {document}: is there already, and differs; name another folder\n"
    assert not (tmp_path / "report.md").exists()
    assert json.loads(document.read_text()) == {"edited": True}
