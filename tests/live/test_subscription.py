"""What only a real subscription can show: `make test-live`, as whoever is signed in.

It needs what docs/azure.md describes: the variables of environments/azure/profile.json, a
workspace, and the roles. It leaves nothing but what `MLOPS_LIVE_DEPLOY=true` deploys: with it the
whole graph runs, trains on the cluster, and serves; that takes long and costs money.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.azure.clients import AzureClients
from resources.azure.documents import BlobDocuments
from resources.azure.settings import AzureSettings
from resources.environment import checkout
from resources.environment import load_profile as read_profile

VARIABLES = {**os.environ, "MLOPS_PROFILE": "azure"}
MLOPS = str(Path(sys.executable).with_name("mlops"))


def _missing() -> list[str]:
    settings = read_profile({"MLOPS_PROFILE": "azure"}).azure
    assert settings is not None
    return settings.missing()


pytestmark = pytest.mark.skipif(
    bool(_missing()), reason=f"no subscription: {', '.join(_missing())} not set"
)


@pytest.fixture
def clients() -> AzureClients:
    settings = read_profile({"MLOPS_PROFILE": "azure"}).azure
    assert isinstance(settings, AzureSettings)
    return AzureClients(settings)


@pytest.fixture
def name(clients: AzureClients) -> Iterator[str]:
    documents = BlobDocuments.of(clients)
    name = f"preflight/{secrets.token_hex(8)}.json"
    yield name
    documents.remove(name)


def test_a_document_is_made_once(clients: AzureClients, name: str) -> None:
    documents = BlobDocuments.of(clients)
    assert documents.create(name, "first")
    assert not documents.create(name, "second")
    assert documents.read(name) == b"first"
    assert name in documents.names("preflight")


def test_the_workspace_is_there(clients: AzureClients) -> None:
    found = clients.workspace.workspaces.get(clients.settings.workspace)
    assert found.name == clients.settings.workspace
    assert list(clients.workspace.compute.list()) is not None


def _mlops(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MLOPS, *arguments], env=VARIABLES, capture_output=True, text=True, cwd=checkout()
    )


def test_doctor_finds_nothing_wrong() -> None:
    done = _mlops("doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_azure_is_as_the_documents_say() -> None:
    for environment in ("staging", "production"):
        done = _mlops("plan", environment)
        assert done.returncode in (0, 2), done.stdout + done.stderr


@pytest.mark.skipif(
    os.environ.get("MLOPS_LIVE_DEPLOY") != "true", reason="MLOPS_LIVE_DEPLOY is not true"
)
def test_the_whole_graph() -> None:
    done = _mlops("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = _mlops("invoke", "diabetes", "production")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert '"predictions"' in answer.stdout
