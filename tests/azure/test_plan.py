"""`mlops plan`, and the asset that makes Azure as the documents say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from mlops_assets import cli
from mlops_assets.assets import infrastructure
from mlops_assets.sensors.run_alerts import Look
from resources.environment import checkout, load_profile
from tests.azure.arm import workspaces
from tests.azure.checkouts import Checkout
from tests.azure.clients import ml_client
from tests.azure.faults import Fault
from tests.azure.server import AzureServer
from tests.azure.test_doctor import VARIABLES

CPU = "staging/infrastructure/compute-cpu.json"


@pytest.fixture
def repository(azure: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    made = Checkout(tmp_path)
    made.change("staging/environment.json", target="managed")
    monkeypatch.setenv("MLOPS_PROFILE", "azure")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("resources.environment.checkout", lambda: made.root)
    return made


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def mlops(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def definitions(repository: Checkout) -> dg.Definitions:
    profile = repository.profile
    made = infrastructure.build_infrastructure(profile)
    return dg.Definitions.merge(made, dg.Definitions(resources={"profile": profile}))


def materialize(
    repository: Checkout, instance: dg.DagsterInstance, *prune: str, environment: str = "staging"
) -> dg.ExecuteInProcessResult:
    job = definitions(repository).resolve_implicit_global_asset_job_def()
    config = {infrastructure.op_name(environment): {"config": {"prune": list(prune)}}}
    return job.execute_in_process(
        instance=instance,
        asset_selection=[infrastructure.asset_key(environment)],
        run_config={"ops": config},
        raise_on_error=False,
    )


def test_the_plan_and_its_end(
    azure: AzureServer, repository: Checkout, instance: dg.DagsterInstance
):
    azure.cloud.remove(workspaces.identity(azure.cloud, "test-workspace"))
    code, said = mlops("plan", "staging")
    assert (code, said.splitlines()) == (
        2,
        [
            "create workspace test-workspace (staging/infrastructure/workspace.json)",
            f"create compute cpu-cluster ({CPU})",
        ],
    )
    result = materialize(repository, instance)
    assert result.success
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    made = result.get_asset_materialization_events()[0].materialization
    assert "create compute cpu-cluster" in str(made.metadata["changed"].value)
    assert mlops("plan", "staging") == (0, "staging: Azure is as the documents say\n")
    repository.change(CPU, max_instances=6)
    assert mlops("plan", "staging") == (
        2,
        f"change compute cpu-cluster ({CPU})\n  max_instances: 2 -> 6\n",
    )
    assert materialize(repository, instance).success
    assert mlops("plan", "staging") == (0, "staging: Azure is as the documents say\n")


def test_only_what_is_named_is_pruned(
    azure: AzureServer, repository: Checkout, instance: dg.DagsterInstance
):
    from azure.ai.ml.entities import AmlCompute

    client = ml_client(azure)
    for name in ("old", "older"):
        made = AmlCompute(name=name, size="Standard_DS3_v2")
        client.compute.begin_create_or_update(made).result()
    assert materialize(repository, instance).success
    code, said = mlops("plan", "staging")
    assert code == 0
    assert said.count("in no document; it is left alone") == 2
    result = materialize(repository, instance, "old")
    assert result.success
    assert {compute.name for compute in client.compute.list()} == {"cpu-cluster", "older"}
    refused = materialize(repository, instance, "cpu-cluster")
    assert not refused.success
    assert {compute.name for compute in client.compute.list()} == {"cpu-cluster", "older"}


def test_drift_is_a_warning_and_an_alert(
    azure: AzureServer, repository: Checkout, instance: dg.DagsterInstance
):
    assert materialize(repository, instance).success
    client = ml_client(azure)
    compute = client.compute.get("cpu-cluster")
    compute.max_instances, compute.network_settings = 50, None
    client.compute.begin_create_or_update(compute).result()
    job = definitions(repository).resolve_job_def(infrastructure.DRIFT_JOB)
    before = len(azure.record.exchanges())
    result = job.execute_in_process(
        instance=instance,
        asset_selection=[],
        raise_on_error=False,
        run_config={},
    )
    staging = [
        check
        for check in result.get_asset_check_evaluations()
        if check.asset_key == infrastructure.asset_key("staging")
    ]
    assert [(check.passed, check.severity) for check in staging] == [
        (False, dg.AssetCheckSeverity.WARN)
    ]
    assert "max_instances: 50 -> 2" in (staging[0].description or "")
    methods = {exchange.method for exchange in azure.record.exchanges()[before:]}
    assert methods <= {"GET", "POST"}  # POST: the token
    record = instance.get_run_record_by_id(result.run_id)
    assert record
    told = Look(instance, ["staging"], None).alerts(record, 0.0)
    assert "Azure is not as the documents of staging say" in [alert.title for alert in told]


def test_a_failed_run_says_why_in_a_sentence(
    azure: AzureServer, repository: Checkout, instance: dg.DagsterInstance
):
    azure.faults.add(Fault("PUT .*/computes/", 403, "AuthorizationFailed", times=None))
    result = materialize(repository, instance)
    assert not result.success
    failure = result.failure_data_for_node(infrastructure.op_name("staging"))
    assert failure
    assert failure.user_failure_data
    said = failure.user_failure_data.description or ""
    assert said.startswith("compute cpu-cluster: Azure answers 403: AuthorizationFailed")
    assert "docs/azure.md" in said


def test_a_token_that_is_refused(repository: Checkout, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong-secret")
    code, said = mlops("plan", "staging")
    assert code == 1
    assert "az login" in said
    assert "wrong-secret" not in said


def test_an_environment_that_is_not_there(repository: Checkout):
    code, said = mlops("plan", "nowhere")
    assert (code, said.strip()) == (
        1,
        "Error: no environment 'nowhere' in profile azure; there are: staging, production",
    )


def test_a_laptop_has_nothing_to_plan(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLOPS_PROFILE", "local")
    code, said = mlops("plan", "staging")
    assert code == 1
    assert "set MLOPS_PROFILE=azure" in said
    made = infrastructure.build_infrastructure(load_profile())
    assert list(made.resolve_asset_graph().get_all_asset_keys()) == []


def test_nothing_of_azure_is_imported_to_load_the_assets(repository: Checkout):
    code = (
        "import sys; from pathlib import Path; from resources.environment import load_profile\n"
        "from mlops_assets.assets.infrastructure import build_infrastructure\n"
        f"made = build_infrastructure(load_profile(root=Path({str(repository.root)!r})))\n"
        "assert len(list(made.assets)) == 2\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'azure'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_container_group_is_in_the_plan(
    repository: Checkout, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert materialize(repository, instance).success
    repository.change("staging/environment.json", target="aci")
    code, said = mlops("plan", "staging")
    assert code == 0
    assert "container group diabetes-staging: its next deployment makes the group" in said


def test_apply_materializes_the_asset(
    azure: AzureServer, repository: Checkout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DAGSTER_HOME", str(repository.root))  # as it was, when this is over
    code, said = mlops("plan", "staging", "--apply")
    assert code == 0, said
    assert "✓ infrastructure/staging" in said
    assert mlops("plan", "staging") == (0, "staging: Azure is as the documents say\n")
    code, said = mlops("plan", "staging", "--apply", "--prune", "cpu-cluster")
    assert code == 1
    assert "remove its document first" in said


def test_every_command_in_the_documentation_is_one():
    text = (checkout() / "docs" / "azure.md").read_text()
    for name, *options in (
        line.split() for line in re.findall(r"(?:`|bin/)mlops ([a-z-]+[^`#\n]*)", text)
    ):
        command = cli.main.commands[name]
        known = {opt for param in command.params for opt in param.opts}
        assert {o for o in options if o.startswith("--")} <= known, (name, options)
