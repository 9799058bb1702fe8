"""The release pipeline of a profile whose storage and registry are Azure's."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from tests.azure.clients import ml_client, registry_client
from tests.azure.platforms import clients, on_azure, train_here
from tests.azure.server import AzureServer
from tests.conftest import RELEASE
from tests.repository import rows


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))


@pytest.mark.parametrize("shared", [False, True], ids=["workspace", "shared registry"])
def test_a_version_is_released_and_found_again_without_the_state_folder(
    azure: AzureServer,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
) -> None:
    train_here(monkeypatch)
    platform = on_azure(azure, tmp_path, instance, shared=shared)
    container = clients(azure).container
    container.upload_blob("data/rent/rents.csv", rows(200).encode())
    assert platform.materialize(*RELEASE), platform.failures
    ml = registry_client(azure) if shared else ml_client(azure)
    (made,) = ml.models.list("rent")
    assert made.properties["mlops_digest"] == platform.registry.version("rent", 1).digest
    shutil.rmtree(platform.profile.home)
    again = on_azure(azure, tmp_path, instance, shared=shared)
    assert again.materialize(*RELEASE), again.failures
    assert [v.version for v in again.registry.versions("rent")] == [1]
    assert again.registry.version("rent", 1).mismatched() == []
    assert len(again.registry.records("rent", "releases")) == 1
