"""`mlops doctor` against the tests' Azure, and what is looked at when a run begins."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlops_assets import cli, doctor
from resources.azure.infrastructure import apply
from resources.azure.preflight import QUICK, TRAINING, Ground, preflight
from resources.findings import Finding
from tests.azure.checkouts import MODELS, Checkout
from tests.azure.clients import ml_client
from tests.azure.faults import Fault
from tests.azure.server import AzureServer

DIGEST = "sha256:" + "1" * 64
IMAGE = f"images.azurecr.io/mlops-serving@{DIGEST}"
DEPLOYMENT, GROUP = "production/deployment.json", "staging/container-group.json"
CPU = "staging/infrastructure/compute-cpu.json"
#: What the documents of the repository name.
VARIABLES = {
    "MLOPS_SERVING_IDENTITY": "/subscriptions/1/resourceGroups/g/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/serving",
    "MLOPS_SERVING_REGISTRY": "images.azurecr.io",
    "MLOPS_SERVING_DIGEST": DIGEST,
    "MLOPS_DNS_LABEL": "tests",
}


@pytest.fixture
def repository(azure: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Everything is as it must be."""
    made = Checkout(tmp_path)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLOPS_PROFILE", "azure")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("resources.environment.checkout", lambda: made.root)
    document = made.read(DEPLOYMENT)
    document["environment"]["image"] = IMAGE
    made.write(DEPLOYMENT, document)
    azure.cloud.images.add(IMAGE)
    for environment in ("staging", "production"):
        apply(made.profile, made.clients, environment)
    return made


def mlops(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def found(repository: Checkout, environment: str | None = None, *severities: str) -> list[Finding]:
    wanted = severities or ("error",)
    return [f for f in doctor.examine(repository.profile, environment) if f.severity in wanted]


def one(repository: Checkout, *severities: str, environment: str | None = None) -> Finding:
    """The only finding of some kinds."""
    (finding,) = found(repository, environment, *severities)
    return finding


def test_nothing_is_wrong(azure: AzureServer, repository: Checkout):
    code, said = mlops("doctor")
    assert code == 0, said
    assert said.endswith("profile azure: no errors\n")
    assert not found(repository, None, "error", "warning")
    unknown = found(repository, None, "unknown")
    assert [f.place for f in unknown] == [
        "environments/azure/staging/container-group.json",
        "environment production",
    ]
    assert "docker.io is no registry of Azure" in unknown[0].cause
    assert "whether diabetes-production is free" in unknown[1].cause


def test_a_table_with_the_mend(repository: Checkout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AZURE_WORKSPACE")
    code, said = mlops("doctor")
    assert code == 1
    lines = said.splitlines()
    assert lines[0].split() == ["where", "what", "how", "to", "mend", "it"]
    (line,) = [line for line in lines if "profile.json" in line]
    assert line.split("  ")[0] == "error"
    assert "environment variable AZURE_WORKSPACE is not set" in line
    assert "export AZURE_WORKSPACE=…" in line
    assert "not checked: variables comes first" in said


def test_a_wrong_secret(repository: Checkout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-secret")
    finding = one(repository)
    assert finding.place == "token"
    assert "az login" in finding.mend
    assert "wrong-secret" not in mlops("doctor")[1]


@pytest.mark.parametrize(
    ("variable", "value", "place", "mend"),
    [
        ("AZURE_SUBSCRIPTION_ID", "00000000-0000-0000-0000-000000000000", "subscription", ""),
        ("AZURE_RESOURCE_GROUP", "nowhere", "resource group", "az group create --name nowhere"),
        ("AZURE_WORKSPACE", "nothing", "workspace", "mlops plan staging --apply"),
        ("AZURE_STORAGE_ACCOUNT", "nobodys", "storage", ""),
    ],
)
def test_what_is_not_there(
    repository: Checkout,
    variable: str,
    value: str,
    place: str,
    mend: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr("resources.azure.retries.RETRIES", 1)
    errors = found(repository)
    assert place in [finding.place for finding in errors]
    assert all("Traceback" not in str(finding) for finding in errors)
    assert mend in next(f.mend for f in errors if f.place == place)


def test_a_service_that_the_subscription_does_not_use(azure: AzureServer, repository: Checkout):
    azure.cloud.unregistered.add("microsoft.containerinstance")
    finding = one(repository)
    assert "Microsoft.ContainerInstance is NotRegistered" in finding.cause
    assert finding.mend == "az provider register --namespace Microsoft.ContainerInstance"
    assert found(repository, "production") == []


def test_who_may_not_read_the_subscription_is_no_error(azure: AzureServer, repository: Checkout):
    azure.faults.add(Fault("GET .*/providers/Microsoft.Storage", 403, times=None))
    (finding, *_) = found(repository, "production", "unknown")
    assert (finding.place, finding.severity) == ("Microsoft.Storage", "unknown")
    assert "the role Reader" in finding.cause


def test_storage_that_may_be_read_and_not_written(azure: AzureServer, repository: Checkout):
    azure.faults.add(Fault("PUT .*/preflight/", 403, "AuthorizationPermissionMismatch", times=None))
    finding = one(repository, environment="staging")
    assert finding.place == "storage"
    assert "docs/azure.md" in finding.mend


@pytest.mark.parametrize(("status", "severity"), [(403, "error"), (500, "unknown")])
def test_a_workspace_that_does_not_answer(
    azure: AzureServer, repository: Checkout, status: int, severity: str
):
    azure.faults.add(
        Fault("GET .*/workspaces/test-workspace\\?", status, times=None, retry_after=0)
    )
    finding = next(f for f in doctor.examine(repository.profile) if f.place == "workspace")
    assert finding.severity == severity
    assert f"Azure answers {status}" in finding.cause


def test_a_compute_that_is_missing_or_failed(azure: AzureServer, repository: Checkout):
    client = ml_client(azure)
    client.compute.begin_delete("cpu-cluster").result()
    finding = one(repository)
    assert finding.place == "environments/azure/profile.json: training.compute"
    assert finding.mend == "mlops plan staging --apply"
    for compute in azure.cloud.every("/computes"):
        compute.properties["provisioningState"] = "Failed"
    failed = [f for f in found(repository) if "compute aks" in f.cause]
    assert failed[0].place == "environments/azure/production/endpoint.json: compute"
    assert "is failed" in failed[0].cause


def test_more_machines_than_the_quota(repository: Checkout):
    repository.change(CPU, max_instances=40)
    finding = one(repository, "warning")
    assert "38 machines, 152 cores of standardDSv2Family; 100 are left" in finding.cause


def test_a_size_that_the_region_does_not_have(repository: Checkout):
    repository.change(CPU, size="Standard_X1")
    assert "size: 'Standard_X1' is not offered in eastus2" in one(repository).cause


def test_an_image_that_was_never_pushed(azure: AzureServer, repository: Checkout):
    azure.cloud.images.clear()
    errors = found(repository)
    assert {finding.place for finding in errors} == {
        f"environments/azure/{DEPLOYMENT}",
        f"environments/azure/{GROUP}",
    }
    assert all(f"image {IMAGE} is not in the registry" in f.cause for f in errors)


def test_a_registry_that_lets_nobody_in(azure: AzureServer, repository: Checkout):
    azure.faults.add(Fault("POST .*azurecr.io/oauth2/exchange", 401, times=None))
    assert found(repository) == []
    causes = [f.cause for f in found(repository, "production", "unknown")]
    assert any(c.startswith(f"not checked: image {IMAGE}: Azure answers 401") for c in causes)


def test_a_name_that_somebody_else_has(azure: AzureServer, repository: Checkout):
    from azure.ai.ml.entities import KubernetesOnlineEndpoint

    made = KubernetesOnlineEndpoint(name="diabetes-production", compute="aks", auth_mode="key")
    ml_client(azure).online_endpoints.begin_create_or_update(made).result()
    finding = one(repository)
    assert "endpoint diabetes-production is there, made by somebody else" in finding.cause


@pytest.mark.parametrize(
    ("place", "values", "said"),
    [
        (CPU, {"sise": 1}, "sise: Unknown field"),
        (CPU, {"description": "${NOT_SET}"}, "environment variable NOT_SET is not set"),
        ("production/endpoint.json", {"nope": 1}, "nope"),
        ("production/endpoint.json", {"name": "n" * 40}, "3 to 32 letters"),
        (DEPLOYMENT, {"type": "managed"}, "target 'aks' wants"),
        (GROUP, {"identity": None}, "identity: none"),
        (GROUP, {"name": "${NOT_SET}"}, "environment variable NOT_SET is not set"),
    ],
)
def test_every_wrong_document_is_named(
    repository: Checkout, place: str, values: dict[str, Any], said: str
):
    repository.change(place, **values)
    errors = found(repository)
    assert any(said in str(finding) for finding in errors), errors
    assert all(place in finding.place for finding in errors), errors


def test_keys_never_go_unencrypted_over_the_internet(repository: Checkout):
    document = repository.read(GROUP)
    document["properties"]["ipAddress"]["ports"].append({"port": 5001, "protocol": "TCP"})
    repository.write(GROUP, document)
    assert "unencrypted over the internet" in " ".join(f.cause for f in found(repository))


def test_a_public_key_that_is_not_set(repository: Checkout):
    repository.change("staging/environment.json", signing={"public_key": "NO_KEY"})
    finding = one(repository)
    assert "NO_KEY is not set" in finding.cause
    assert "staging.json: signing.public_key" in finding.place


def test_an_environment_that_is_not_there(repository: Checkout):
    code, said = mlops("doctor", "nowhere")
    assert code == 1
    assert "there are: staging, production" in said


def test_what_a_run_looks_at_first_is_quick(repository: Checkout):
    clients = repository.clients
    assert clients.workspace  # the import is paid once per process, by whatever comes first
    started = time.monotonic()
    assert preflight(Ground(repository.profile, clients), [*QUICK, TRAINING]) == []
    assert time.monotonic() - started < 3
    assert MODELS


def test_a_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLOPS_PROFILE", "local")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    code, said = mlops("doctor")
    assert code == 0, said
    assert said.endswith("profile local: no errors\n")


def test_a_laptop_whose_state_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLOPS_PROFILE", "local")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "file" / "home"))
    code, said = mlops("doctor")
    assert code == 1
    assert "cannot be written" in said
    assert "MLOPS_HOME" in said


def test_a_laptop_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLOPS_PROFILE", "local")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = mlops("doctor")
    assert code == 1
    assert "git" in said
    assert "install it" in said


def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        folder = tmp_path / "environments" / "local"
        folder.mkdir(parents=True)
        (folder / "staging.json").write_text(
            json.dumps({"name": "staging", "target": "local", "local": {"ports": {"rent": port}}})
        )
        (tmp_path / "mlops_assets" / "models").mkdir(parents=True)
        monkeypatch.setattr("resources.environment.checkout", lambda: tmp_path)
        monkeypatch.setenv("MLOPS_PROFILE", "local")
        monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
        code, said = mlops("doctor")
    assert code == 1
    assert f"port {port} is taken" in said
