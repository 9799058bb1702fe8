"""A run on Azure looks at what it stands on before it begins, once, and fails at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from resources.attempts import CutShort
from resources.azure.attempts import AttemptsOnAzure
from resources.azure.documents import BlobDocuments
from resources.azure.infrastructure import apply
from tests.azure.checkouts import Checkout
from tests.azure.clients import ml_client
from tests.azure.faults import Fault
from tests.azure.server import AzureServer

DATASET, ENDPOINT = (dg.AssetKey(["rent", name]) for name in ("dataset", "staging_endpoint"))


@pytest.fixture
def attempts(azure: AzureServer, tmp_path: Path) -> AttemptsOnAzure:
    repository = Checkout(tmp_path)
    apply(repository.profile, repository.clients, "staging")
    clients = repository.clients
    made = AttemptsOnAzure.of(clients, documents=BlobDocuments.of(clients))
    return made.of_profile(repository.profile)


def context(run: str = "1") -> Any:
    return SimpleNamespace(run=SimpleNamespace(run_id=run), instance=None)


def test_a_run_begins_and_looks_once(azure: AzureServer, attempts: AttemptsOnAzure):
    with attempts.working(context(), DATASET, {"a": "1"}):
        pass
    last = attempts.last(DATASET)
    assert last
    assert last.outcome == "succeeded"
    azure.faults.add(Fault("GET .*/computes", 403, times=None))
    with attempts.working(context(), ENDPOINT, {"a": "1"}):
        pass
    with (
        pytest.raises(CutShort, match="Azure answers 403"),
        attempts.working(context("2"), DATASET, {"a": "1"}),
    ):
        pass


def test_what_is_missing_is_said_and_the_attempt_stays_open(
    azure: AzureServer, attempts: AttemptsOnAzure
):
    attempts.request(DATASET, {"a": "1"})
    ml_client(azure).compute.begin_delete("cpu-cluster").result()
    with pytest.raises(CutShort) as caught, attempts.working(context(), DATASET, {"a": "1"}):
        pytest.fail("it began")
    said = caught.value.description or ""
    assert "compute cpu-cluster is not in the workspace; mlops plan staging --apply" in said
    last = attempts.last(DATASET)
    assert last
    assert last.outcome == "requested"


def test_a_deployment_does_not_need_the_cluster(azure: AzureServer, attempts: AttemptsOnAzure):
    ml_client(azure).compute.begin_delete("cpu-cluster").result()
    with attempts.working(context(), ENDPOINT, {"a": "1"}):
        pass


def test_a_busy_azure_is_no_reason_to_fail(azure: AzureServer, attempts: AttemptsOnAzure):
    azure.faults.add(Fault("GET .*/workspaces/test-workspace\\?", 503, times=None, retry_after=0))
    with attempts.working(context(), ENDPOINT, {"a": "1"}):
        pass
