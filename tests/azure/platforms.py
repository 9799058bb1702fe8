"""A clone whose profile is ``azure``: everything lies on the tests' Azure but what serves."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.azure.clients import AzureClients
from resources.azure.on_azure import OnAzure
from resources.azure.settings import AzureSettings
from resources.environment import load_profile
from resources.training import LocalTraining
from tests.azure.server import GROUP, LOCATION, REGISTRY, WORKSPACE, AzureServer
from tests.conftest import Platform
from tests.repository import Repository, make_repository


def profile_json(azure: AzureServer, *, shared: bool = False, **storage: Any) -> dict[str, Any]:
    """What profile.json says, for the tests' Azure."""
    return {
        "subscription_id": azure.subscription,
        "resource_group": GROUP,
        "workspace": WORKSPACE,
        "location": LOCATION,
        "registry": REGISTRY if shared else None,
        "storage": {"account": azure.blob.account, **storage},
    }


def clients(azure: AzureServer, *, shared: bool = False, **storage: Any) -> AzureClients:
    """The clients of such a profile."""
    return AzureClients(AzureSettings.model_validate(profile_json(azure, shared=shared, **storage)))


def on_azure(
    azure: AzureServer, folder: Path, instance: dg.DagsterInstance, *, shared: bool = False
) -> Platform:
    """A clone with the model ``rent`` and state of its own; there is no data yet."""
    repository = Repository(folder / "clone")
    if not repository.path.exists():
        make_repository(repository.path)
        text = json.dumps(profile_json(azure, shared=shared))
        repository.write("environments/azure/profile.json", text)
        for name in ("development", "staging", "production"):
            local = repository.path / "environments" / "local" / f"{name}.json"
            repository.write(f"environments/azure/{name}.json", local.read_text())
        repository.commit("the profile azure")
    variables = {"MLOPS_HOME": str(folder / "home"), "MLOPS_PROFILE": "azure"}
    return Platform(repository, load_profile(variables, repository.path), instance)


class TrainedHere(OnAzure, LocalTraining):
    """Training in a process of this machine, in a profile whose storage is Azure's."""

    root: str


def train_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the profile ``azure`` train on this machine."""
    module = types.ModuleType("resources.azure.training")
    module.AzureMLTraining = TrainedHere  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, module.__name__, module)
