"""Azure ML as the registry: that of a workspace, and a shared one."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from azure.ai.ml.entities import Model

from mlops_assets.judgement import DEPLOYMENTS
from resources.azure import registry as azure_registry
from resources.azure.clients import AzureError
from resources.azure.registry import AzureMLRegistry
from resources.registry import Registry
from tests.azure.faults import Fault, OperationFault
from tests.azure.platforms import clients
from tests.azure.server import REGISTRY, WORKSPACE, AzureServer
from tests.resources.any_registry import *  # noqa: F403
from tests.resources.any_registry import bundle

PUT = "PUT .*/models/rent/versions/"
KILLED = """
import json, os, signal, sys
from pathlib import Path
import azure.ai.ml.operations._model_operations as operations
from resources.azure.clients import AzureClients
from resources.azure.registry import AzureMLRegistry
from resources.azure.settings import AzureSettings
clients = AzureClients(AzureSettings.model_validate(json.loads(sys.argv[1])))
upload = operations._check_and_upload_path
def uploaded(*given, **named):
    upload(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)
operations._check_and_upload_path = uploaded
AzureMLRegistry.of(clients, root=sys.argv[2]).register("rent", Path(sys.argv[3]))
"""


@pytest.fixture(params=[False, True], ids=["workspace", "shared"])
def shared(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def another(azure: AzureServer, tmp_path: Path, shared: bool) -> Callable[[], AzureMLRegistry]:
    numbers = itertools.count()
    return lambda: AzureMLRegistry.of(
        clients(azure, shared=shared), root=str(tmp_path / f"machine{next(numbers)}")
    )


@pytest.fixture
def registry(another: Callable[[], AzureMLRegistry]) -> AzureMLRegistry:
    return another()


def test_the_kind_of_records_is_the_one_that_endpoints_write() -> None:
    assert azure_registry.DEPLOYMENTS == DEPLOYMENTS


def test_versions_are_listed_without_their_files(
    azure: AzureServer, registry: Registry, another: Callable[[], Registry], tmp_path: Path
) -> None:
    for name in "abc":
        registry.register("rent", bundle(tmp_path / name, name))
    elsewhere = another()
    azure.record.clear()
    assert [v.version for v in elsewhere.versions("rent")] == [1, 2, 3]
    found = elsewhere.find("rent", "b")
    assert found
    assert found.version == 2
    assert azure.record.exchanges("GET .*blob.core") == []
    assert (found.bundle / "model.pkl").read_text() == "pickle"
    assert azure.record.exchanges("GET .*blob.core") != []
    azure.record.clear()
    assert elsewhere.version("rent", 2).mismatched() == []
    assert azure.record.exchanges("GET .*blob.core") == []


def test_the_same_bytes_are_the_same_version(
    registry: Registry, another: Callable[[], Registry], tmp_path: Path
) -> None:
    first = registry.register("rent", bundle(tmp_path / "one", "a"))
    assert another().register("rent", bundle(tmp_path / "two", "a")) == first


def test_killed_between_upload_and_registration(
    azure: AzureServer, registry: Registry, shared: bool, tmp_path: Path
) -> None:
    settings = clients(azure, shared=shared).settings.model_dump_json(by_alias=True)
    killed = bundle(tmp_path / "killed", "a", "never registered")
    arguments = [sys.executable, "-c", KILLED, settings, str(tmp_path / "home"), str(killed)]
    assert subprocess.run(arguments, check=False, timeout=120, capture_output=True).returncode == -9
    assert registry.versions("rent") == []
    version = registry.register("rent", bundle(tmp_path / "next", "b", "registered"))
    assert version.version == 1
    assert (version.bundle / "model.pkl").read_text() == "registered"
    again = registry.register("rent", bundle(tmp_path / "again", "a", "never registered"))
    assert (again.version, again.mismatched()) == (2, [])


@pytest.mark.parametrize("drop", ["request", "answer"])
def test_a_connection_that_drops_while_it_is_registered(
    azure: AzureServer, registry: Registry, tmp_path: Path, drop: str
) -> None:
    azure.faults.add(Fault(PUT, drop=drop))  # pyright: ignore[reportArgumentType]
    version = registry.register("rent", bundle(tmp_path / "one", "a"))
    assert registry.versions("rent") == [version]
    assert version.mismatched() == []


@pytest.mark.parametrize("status", [429, 500])
def test_azure_that_is_busy_for_a_while(
    azure: AzureServer, registry: Registry, tmp_path: Path, status: int
) -> None:
    azure.faults.add(Fault(PUT, status, retry_after=1))
    azure.faults.add(Fault("GET .*/models/rent/versions", status, retry_after=1))
    assert registry.register("rent", bundle(tmp_path / "one", "a")).version == 1
    assert [v.version for v in registry.versions("rent")] == [1]


@pytest.mark.parametrize(("status", "mend"), [(401, "sign in"), (403, "lacks a role"), (409, "")])
def test_what_azure_refuses_is_one_sentence_and_registers_nothing(
    azure: AzureServer,
    registry: Registry,
    shared: bool,
    tmp_path: Path,
    status: int,
    mend: str,
) -> None:
    azure.faults.add(Fault(PUT, status))
    with pytest.raises(AzureError) as caught:
        registry.register("rent", bundle(tmp_path / "one", "a"))
    where = REGISTRY if shared else WORKSPACE
    assert str(caught.value).startswith(f"Azure ML {where}: model rent version 1: ")
    assert mend in str(caught.value)
    assert "\n" not in str(caught.value)
    assert registry.versions("rent") == []
    assert registry.register("rent", bundle(tmp_path / "two", "a")).version == 1


def test_a_signature_of_storage_that_has_expired_registers_nothing(
    azure: AzureServer, registry: Registry, tmp_path: Path
) -> None:
    azure.faults.expired_sas = 1
    with pytest.raises(AzureError, match="model rent version 1: ") as caught:
        registry.register("rent", bundle(tmp_path / "one", "a"))
    assert "sig=" not in str(caught.value)
    assert registry.versions("rent") == []
    assert registry.register("rent", bundle(tmp_path / "two", "a")).mismatched() == []


def test_what_was_changed_in_azure_is_not_taken(
    azure: AzureServer, registry: Registry, another: Callable[[], Registry], tmp_path: Path
) -> None:
    registry.register("rent", bundle(tmp_path / "one", "a"))
    client = azure.blob.client()
    for container in client.list_containers():
        blobs = client.get_container_client(container.name)
        for blob in blobs.list_blobs():
            if blob.name.endswith("/model.pkl"):
                blobs.upload_blob(blob.name, b"changed", overwrite=True)
    version = another().version("rent", 1)
    for _ in range(2):
        with pytest.raises(AzureError, match=r"is not what was registered: model\.pkl; archive"):
            _ = version.bundle


def test_a_copy_that_was_changed_is_fetched_anew(registry: Registry, tmp_path: Path) -> None:
    version = registry.register("rent", bundle(tmp_path / "one", "a"))
    (version.bundle / "model.pkl").write_text("changed")
    assert registry.version("rent", 1).mismatched() == []
    assert (version.bundle / "model.pkl").read_text() == "pickle"


def test_numbers_go_on_after_what_others_registered_or_archived(
    azure: AzureServer, registry: AzureMLRegistry, shared: bool, tmp_path: Path
) -> None:
    registry.register("rent", bundle(tmp_path / "one", "a"))
    client = registry._clients.registry.models
    (tmp_path / "other.bin").write_text("of another tool")
    for version in ("2", "5", "five"):
        client.create_or_update(
            Model(name="rent", version=version, path=str(tmp_path / "other.bin"))
        )
    if not shared:
        client.archive("rent", "5")
    assert [v.version for v in registry.versions("rent")] == [1]
    assert registry.register("rent", bundle(tmp_path / "two", "b")).version == 6
    assert [v.version for v in registry.versions("rent")] == [1, 6]


def test_where_a_version_serves_is_on_its_tags(
    azure: AzureServer, registry: AzureMLRegistry, tmp_path: Path
) -> None:
    version = registry.register("rent", bundle(tmp_path / "one", "a"))
    for environment in ("staging", "production"):
        content = {"environment": environment, "version": 1, "ended": f"today-{environment}"}
        registry.record("rent", DEPLOYMENTS, content)
    found = registry._clients.registry.models.get("rent", "1")
    assert found.tags["deployed_staging"] == "today-staging"
    assert found.tags["deployed_production"] == "today-production"
    assert found.tags["mlops_digest"] == found.properties["mlops_digest"] == version.digest
    assert registry.versions("rent") == [version]
    assert len(registry.records("rent", DEPLOYMENTS)) == 2


def test_a_record_whose_answer_was_lost_is_one_record(
    azure: AzureServer, registry: Registry, another: Callable[[], Registry]
) -> None:
    registry.record("rent", "releases", {"release": 1})
    azure.faults.add(Fault("PUT .*/00000002.json", drop="answer"))
    assert registry.record("rent", "releases", {"release": 2}) == 2
    assert another().record("rent", "releases", {"release": 2}) == 3
    assert [r["number"] for r in registry.records("rent", "releases")] == [1, 2, 3]


def test_records_are_read_once(azure: AzureServer, registry: Registry) -> None:
    for number in range(12):
        registry.record("rent", "releases", {"release": number})
    first = registry.records("rent", "releases")
    azure.record.clear()
    assert registry.records("rent", "releases") == first
    assert len(azure.record.exchanges("GET .*blob.core")) == 1


def test_the_lock_excludes_other_machines(
    registry: AzureMLRegistry, another: Callable[[], AzureMLRegistry]
) -> None:
    with registry.lock("rent"):
        blob = another()._blobs.client("locks/registry-rent")
        assert blob.get_blob_properties().lease.state == "leased"


@pytest.mark.parametrize("shared", [True], ids=["shared"])  # a workspace has none to wait for
def test_an_operation_that_fails(azure: AzureServer, registry: Registry, tmp_path: Path) -> None:
    azure.faults.add(OperationFault(PUT))
    with pytest.raises(AzureError, match="model rent version 1: "):
        registry.register("rent", bundle(tmp_path / "one", "a"))
