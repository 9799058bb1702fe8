"""Infrastructure as code against the tests' Azure: what is different, and how it is mended."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.strict import SpecError
from resources.azure import infrastructure
from resources.azure.clients import AzureError
from resources.azure.infrastructure import apply, plan
from resources.azure.infrastructure_difference import compare
from resources.azure.infrastructure_documents import Wanted, entity, read_infrastructure
from resources.environment import checkout
from tests.azure.arm import workspaces
from tests.azure.checkouts import Checkout
from tests.azure.clients import ml_client
from tests.azure.faults import Fault, OperationFault
from tests.azure.server import AzureServer

CPU, WORKSPACE = "staging/infrastructure/compute-cpu.json", "staging/infrastructure/workspace.json"
AKS = "production/infrastructure/compute-aks.json"


@pytest.fixture
def repository(azure: AzureServer, tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def lines(repository: Checkout, environment: str = "staging") -> list[str]:
    found = plan(repository.profile, repository.clients, environment)
    return found.changed() + found.left_alone()


def make(repository: Checkout, environment: str = "staging", **given: Any) -> list[str]:
    said: list[str] = []
    apply(repository.profile, repository.clients, environment, log=said.append, **given)
    return said


def cluster(name: str = "old", **more: Any) -> Any:
    from azure.ai.ml.entities import AmlCompute

    return AmlCompute(name=name, size="Standard_DS3_v2", **more)


def puts(azure: AzureServer) -> list[str]:
    return [e.url for e in azure.record.exchanges() if e.method in ("PUT", "PATCH", "DELETE")]


def test_from_nothing_to_what_the_documents_say(azure: AzureServer, repository: Checkout):
    azure.cloud.remove(workspaces.identity(azure.cloud, "test-workspace"))
    assert lines(repository) == [
        f"create workspace test-workspace ({WORKSPACE})",
        f"create compute cpu-cluster ({CPU})",
    ]
    assert make(repository) == lines_of_creation()
    assert lines(repository) == []
    found = ml_client(azure)
    assert found.workspaces.get("test-workspace").display_name == "Machine learning"
    made = found.compute.get("cpu-cluster")
    assert (made.max_instances, made.identity.type) == (2, "system_assigned")
    before = len(puts(azure))
    assert make(repository) == []
    assert len(puts(azure)) == before


def lines_of_creation() -> list[str]:
    return [
        f"create workspace test-workspace ({WORKSPACE})",
        f"create compute cpu-cluster ({CPU})",
    ]


def test_a_change_is_shown_with_both_values_and_made(azure: AzureServer, repository: Checkout):
    make(repository)
    repository.change(CPU, max_instances=8, tags={"managed_by": "mlops", "team": "data"})
    assert lines(repository) == [
        f"change compute cpu-cluster ({CPU})",
        "  max_instances: 2 -> 8",
        '  tags: {"managed_by": "mlops"} -> {"managed_by": "mlops", "team": "data"}',
    ]
    make(repository)
    assert lines(repository) == []
    assert ml_client(azure).compute.get("cpu-cluster").max_instances == 8


def test_a_change_of_the_workspace(azure: AzureServer, repository: Checkout):
    make(repository)
    registry = (
        f"/subscriptions/{azure.subscription}/resourceGroups/test-group/providers/"
        "Microsoft.ContainerRegistry/registries/images"
    )
    repository.change(WORKSPACE, description="Another one.", container_registry=registry)
    shown = lines(repository)
    assert shown[1] == (
        '  description: "Training, the registry and the endpoints of the platform." -> '
        '"Another one."'
    )
    assert shown[2].startswith("  container_registry: ")
    assert shown[2].endswith(f'-> "{registry}"')
    make(repository)
    assert lines(repository) == []


def test_what_others_set_is_no_difference_and_stays(azure: AzureServer, repository: Checkout):
    make(repository)
    client = ml_client(azure)
    compute = client.compute.get("cpu-cluster")
    compute.tags = {**compute.tags, "cost_center": "42"}
    compute.network_settings = None
    client.compute.begin_create_or_update(compute).result()
    repository.change(CPU, idle_time_before_scale_down=None, min_instances=None, description=None)
    assert lines(repository) == []
    repository.change(CPU, max_instances=3)
    make(repository)
    found = client.compute.get("cpu-cluster")
    assert found.tags == {"managed_by": "mlops", "cost_center": "42"}
    assert found.idle_time_before_scale_down == 300
    assert found.description.startswith("Trains the models")


def test_what_azure_cannot_change_is_said_before_anything_is_done(
    azure: AzureServer, repository: Checkout
):
    make(repository)
    repository.change(CPU, size="Standard_F4s_v2", max_instances=8)
    repository.change(WORKSPACE, description="Another one.")
    shown = "\n".join(lines(repository))
    assert '  size: "STANDARD_DS3_V2" -> "Standard_F4s_v2"\n    Azure cannot change that: ' in shown
    before = puts(azure)
    with pytest.raises(AzureError, match="nothing was changed") as caught:
        make(repository)
    assert "prune: [cpu-cluster]" in str(caught.value)
    assert puts(azure) == before


def test_an_attached_cluster_of_kubernetes(azure: AzureServer, repository: Checkout):
    make(repository)
    assert lines(repository, "production") == [f"create compute aks ({AKS})"]
    make(repository, "production")
    assert lines(repository, "production") == []
    found = ml_client(azure).compute.get("aks")
    assert (found.namespace, found.resource_id.rpartition("/")[2]) == ("mlops", "test-cluster")
    repository.change(AKS, description="Another one.")
    make(repository, "production")
    assert lines(repository, "production") == []
    assert lines(repository) == []


def test_what_no_document_has_is_listed_and_left_alone(azure: AzureServer, repository: Checkout):
    client = ml_client(azure)
    for name in ("old", "older"):
        client.compute.begin_create_or_update(cluster(name)).result()
    make(repository)
    listed = [
        f"unmanaged compute {name} (amlcompute): in no document; it is left alone"
        for name in ("old", "older")
    ]
    assert lines(repository) == listed
    assert make(repository, prune=["old", "never-was"]) == [
        "compute never-was: not there, nothing to remove",
        "remove compute old",
    ]
    assert lines(repository) == listed[1:]
    assert "cpu-cluster" in {compute.name for compute in client.compute.list()}


def test_what_a_document_has_is_not_pruned(repository: Checkout):
    make(repository)
    with pytest.raises(AzureError, match="compute cpu-cluster: not removed; remove its document"):
        make(repository, prune=["cpu-cluster"])


def test_a_cluster_of_kubernetes_is_detached_not_deleted(azure: AzureServer, repository: Checkout):
    make(repository, "production")
    (repository.folder / AKS).unlink()
    assert make(repository, prune=["aks"])[-1] == "detach compute aks"
    deleted = [e.url for e in azure.record.exchanges() if e.method == "DELETE"]
    assert ["underlyingResourceAction=Detach" in url for url in deleted] == [True]


def test_a_registry_is_made(azure: AzureServer, repository: Checkout):
    place = "staging/infrastructure/registry.json"
    repository.change("profile.json", registry="shared-models")
    repository.write(
        place,
        {
            "name": "shared-models",
            "location": "eastus2",
            "tags": {"managed_by": "mlops"},
            "replication_locations": [{"location": "eastus2"}],
        },
    )
    make(repository)
    assert lines(repository) == []
    repository.change(place, tags={"managed_by": "mlops", "team": "data"})
    assert lines(repository)[0] == f"change registry shared-models ({place})"
    make(repository)
    assert lines(repository) == []


def test_a_compute_that_failed_is_made_again(azure: AzureServer, repository: Checkout):
    azure.faults.add(
        OperationFault("PUT .*/computes/cpu-cluster", code="OutOfQuota", message="None is left.")
    )
    with pytest.raises(AzureError, match="None is left") as caught:
        make(repository)
    assert str(caught.value).startswith("compute cpu-cluster: ")
    assert "the subscription's quota does not suffice" in str(caught.value)
    assert lines(repository) == [
        f"change compute cpu-cluster ({CPU})",
        '  provisioning_state: "Failed" -> "Succeeded"',
    ]
    make(repository)
    assert lines(repository) == []


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, None, "az login"),
        (403, None, "docs/azure.md"),
        (429, None, "try again later"),
        (500, None, "Azure answers 500"),
    ],
)
def test_what_azure_refuses_is_said_in_a_sentence(
    azure: AzureServer,
    repository: Checkout,
    status: int,
    code: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
):
    azure.faults.add(Fault("PUT .*/computes/cpu-cluster", status, code, times=None, retry_after=0))
    with pytest.raises(AzureError, match=said) as caught:
        make(repository)
    assert str(caught.value).startswith("compute cpu-cluster: ")
    assert "\n" not in str(caught.value)


def test_an_operation_without_an_end_is_not_waited_for_for_ever(
    azure: AzureServer, repository: Checkout, monkeypatch: pytest.MonkeyPatch
):
    make(repository)
    monkeypatch.setattr(infrastructure, "_SECONDS", 0.1)
    repository.change("staging/environment.json", deploy_seconds=1)
    repository.change(CPU, max_instances=5)
    azure.faults.add(OperationFault("PUT .*/computes/cpu-cluster", "endless"))
    with pytest.raises(AzureError, match="not done after 1 seconds, and Azure goes on"):
        make(repository)
    with pytest.raises(AzureError, match="is creating since 1 seconds"):
        make(repository)


def test_a_resource_group_that_is_not_there(
    azure: AzureServer, repository: Checkout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "nowhere")
    with pytest.raises(AzureError, match="Resource group 'nowhere' could not be found"):
        lines(repository)


@pytest.mark.parametrize(
    ("place", "values", "said"),
    [
        (CPU, {"sise": 1}, "sise: Unknown field"),
        (CPU, {"max_instances": "many"}, "max_instances: Not a valid integer"),
        (CPU, {"name": "a b"}, "name: found 'a b', must be 3 to 32 letters"),
        (CPU, {"type": "virtualmachine"}, "type: found 'virtualmachine', must be one of"),
        (CPU, {"description": "${NOT_SET}"}, "environment variable NOT_SET is not set"),
        ("staging/infrastructure/registry.json", {"description": "Models."}, "use tags"),
        (WORKSPACE, {"name": "another"}, "name: found 'another', profile.json says"),
        (WORKSPACE, {"location": "westus"}, "location: found 'westus', profile.json says"),
    ],
)
def test_a_wrong_document_is_named_before_azure_is_asked(
    azure: AzureServer, repository: Checkout, place: str, values: dict[str, Any], said: str
):
    registry = {"name": "shared-models", "location": "eastus2", "replication_locations": []}
    repository.write("staging/infrastructure/registry.json", registry)
    repository.change("profile.json", registry="shared-models")
    repository.change(place, **values)
    with pytest.raises(SpecError) as caught:
        lines(repository)
    assert said in str(caught.value)
    assert place in str(caught.value)
    # A thread of an earlier test may still look after what that one began.
    asked = [e for e in azure.record.exchanges() if "OperationsStatus" not in e.url]
    assert asked == []


def test_a_wrong_document_of_another_environment_is_no_reason_to_stop(repository: Checkout):
    repository.change(AKS, resource_id="${NOT_SET}")
    make(repository)
    assert lines(repository) == []
    with pytest.raises(SpecError, match="NOT_SET"):
        lines(repository, "production")


def test_a_resource_has_one_document(repository: Checkout):
    repository.write("production/infrastructure/compute-too.json", repository.read(CPU))
    with pytest.raises(SpecError, match=f"compute cpu-cluster is in .*{CPU}"):
        lines(repository, "production")


def test_a_key_that_is_written_twice(repository: Checkout):
    (repository.folder / CPU).write_text('{"name": "cpu", "name": "gpu"}')
    with pytest.raises(SpecError, match="written twice: name"):
        lines(repository)


def wanted(**content: Any) -> Wanted:
    return Wanted("compute", "cpu", "staging", CPU, {"type": "amlcompute", **content})


@pytest.mark.parametrize(
    ("stated", "actual"),
    [
        ({"location": "East US 2"}, {"location": "eastus2"}),
        ({"tier": "LowPriority"}, {"tier": "low_priority"}),
        ({"idle_time_before_scale_down": 120}, {"idle_time_before_scale_down": 120.0}),
        (
            {"network_settings": {"vnet_name": "v", "subnet": "s"}},
            {"network_settings": {"subnet": "/subscriptions/1/x/virtualNetworks/v/subnets/s"}},
        ),
        ({"ssh_settings": {"admin_password": "secret"}}, {}),
    ],
)
def test_the_same_in_azures_own_writing(stated: dict[str, Any], actual: dict[str, Any]):
    assert compare(wanted(**stated), {"type": "amlcompute", **actual}) == ()


def test_capitals_matter_in_texts():
    found = compare(wanted(tags={"a": "b"}), {"type": "amlcompute", "tags": {"a": "B"}})
    assert [str(change) for change in found] == ['tags: {"a": "B"} -> {"a": "b"}']


def test_the_repositorys_own_documents_load_as_azures_tools_read_them():
    from azure.ai.ml import load_compute, load_workspace

    folder = checkout() / "environments" / "azure"
    loaded = [load_workspace(folder / WORKSPACE), load_compute(folder / CPU)]
    loaded.append(load_compute(folder / AKS))
    assert [made.name for made in loaded] == ["${AZURE_WORKSPACE}", "cpu-cluster", "aks"]


def test_the_repositorys_own_documents_agree_with_its_profile(repository: Checkout):
    found = read_infrastructure(repository.profile, "staging")
    assert [str(w) for w in found] == [
        "workspace test-workspace",
        "compute aks",
        "compute cpu-cluster",
    ]
    stream = io.StringIO()
    entity(found[2]).dump(stream)
    assert json.dumps("cpu-cluster").strip('"') in stream.getvalue()
