"""Workspaces, models, environments, code and computes, by azure-ai-ml."""

from __future__ import annotations

from pathlib import Path

import pytest
from azure.ai.ml.entities import AmlCompute, Environment, KubernetesCompute, Model, Workspace
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.azure.clients import (
    GROUP,
    LOCATION,
    WORKSPACE,
    ml_client,
    registry_client,
    serving_environment,
)
from tests.azure.server import AzureServer


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with a folder in it."""
    folder = tmp_path / "bundle"
    (folder / "code").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"model" * 1000)
    (folder / "code" / "train.py").write_text("print('hello')\n")
    return folder


def test_the_workspace_is_there(azure: AzureServer) -> None:
    found = ml_client(azure).workspaces.get(WORKSPACE)
    assert (found.name, found.location) == (WORKSPACE, LOCATION)
    assert found.discovery_url == f"https://{LOCATION}.api.azureml.ms/discovery"


def test_an_unknown_workspace_is_not_found(azure: AzureServer) -> None:
    with pytest.raises(ResourceNotFoundError) as caught:
        ml_client(azure).workspaces.get("other")
    assert caught.value.error.code == "ResourceNotFound"


def test_a_workspace_is_made_and_removed(azure: AzureServer) -> None:
    client = ml_client(azure)
    made = client.workspaces.begin_create(Workspace(name="other-workspace", location=LOCATION))
    assert made.result().name == "other-workspace"
    client.workspaces.begin_delete("other-workspace", delete_dependent_resources=False).result()
    with pytest.raises(ResourceNotFoundError):
        client.workspaces.get("other-workspace")


def test_a_model_goes_up_and_comes_down_unchanged(
    azure: AzureServer, bundle: Path, tmp_path: Path
) -> None:
    client = ml_client(azure)
    made = client.models.create_or_update(Model(name="rent", path=str(bundle), tags={"a": "1"}))
    assert made.version == "1"
    client.models.download("rent", "1", download_path=str(tmp_path / "down"))
    (down,) = (tmp_path / "down" / "rent").iterdir()
    for path in filter(Path.is_file, bundle.rglob("*")):
        assert (down / path.relative_to(bundle)).read_bytes() == path.read_bytes()


def test_versions_count_up_and_are_listed_newest_first(azure: AzureServer, bundle: Path) -> None:
    client = ml_client(azure)
    for number in range(33):  # more than a page
        client.models.create_or_update(
            Model(name="rent", path=str(bundle), tags={"even": str(number % 2 == 0)})
        )
    found = [model.version for model in client.models.list("rent")]
    assert found == [str(number) for number in range(33, 0, -1)]
    assert client.models.get("rent", label="latest").version == "33"
    assert client.models.get("rent", "2").tags == {"even": "False"}
    assert [model.name for model in client.models.list()] == ["rent"]


def test_a_version_keeps_its_files_and_changes_its_tags(azure: AzureServer, bundle: Path) -> None:
    client = ml_client(azure)
    model = client.models.create_or_update(Model(name="rent", version="1", path=str(bundle)))
    model.tags = {"stage": "production"}
    client.models.create_or_update(model)
    assert client.models.get("rent", "1").tags == {"stage": "production"}
    (bundle / "model.bin").write_bytes(b"another")
    with pytest.raises(HttpResponseError, match="Asset paths cannot be updated"):
        client.models.create_or_update(Model(name="rent", version="1", path=str(bundle)))


def test_an_archived_version_is_not_listed(azure: AzureServer, bundle: Path) -> None:
    client = ml_client(azure)
    for version in "12":
        client.models.create_or_update(Model(name="rent", version=version, path=str(bundle)))
    client.models.archive("rent", "1")
    assert [model.version for model in client.models.list("rent")] == ["2"]


def test_unknown_models_are_not_found(azure: AzureServer, bundle: Path) -> None:
    client = ml_client(azure)
    with pytest.raises(ResourceNotFoundError, match="ModelNotFound"):
        list(client.models.list("rent"))
    client.models.create_or_update(Model(name="rent", path=str(bundle)))
    with pytest.raises(ResourceNotFoundError):
        client.models.get("rent", "2")


def test_a_registry_has_models_of_its_own(azure: AzureServer, bundle: Path) -> None:
    client = registry_client(azure)
    made = client.models.create_or_update(Model(name="rent", version="1", path=str(bundle)))
    assert made.id == "azureml://registries/test-registry/models/rent/versions/1"
    assert [model.version for model in client.models.list("rent")] == ["1"]
    with pytest.raises(ResourceNotFoundError):
        ml_client(azure).models.get("rent", "1")


def test_environments_keep_what_they_say(azure: AzureServer) -> None:
    client = ml_client(azure)
    serving_environment(client)
    found = client.environments.get("serving", "1")
    assert found.inference_config.scoring_route.path == "/score"
    conda = {"name": "e", "dependencies": ["python=3.11"]}
    client.environments.create_or_update(Environment(name="e", image="i:1", conda_file=conda))
    assert client.environments.get("e", label="latest").conda_file == conda


def test_computes_are_made_and_removed(azure: AzureServer) -> None:
    client = ml_client(azure)
    cluster = AmlCompute(name="cpu-cluster", size="Standard_DS3_v2", max_instances=2)
    made = client.compute.begin_create_or_update(cluster).result()
    assert (made.provisioning_state, made.min_instances) == ("Succeeded", 0)
    aks = f"/subscriptions/{azure.subscription}/resourceGroups/{GROUP}/providers"
    kubernetes = KubernetesCompute(
        name="aks",
        resource_id=f"{aks}/Microsoft.ContainerService/managedClusters/aks",
        namespace="default",
        properties={},
    )
    client.compute.begin_create_or_update(kubernetes).result()
    assert sorted(c.name for c in client.compute.list()) == ["aks", "cpu-cluster"]
    client.compute.begin_delete("aks", action="Detach").wait()
    with pytest.raises(ResourceNotFoundError):
        client.compute.get("aks")


def test_sizes_and_quotas_can_be_asked(azure: AzureServer) -> None:
    client = ml_client(azure)
    assert "Standard_DS3_v2" in [size.name for size in client.compute.list_sizes()]
    assert {usage.limit for usage in client.compute.list_usage()} == {100}
