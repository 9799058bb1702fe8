"""Faults on request, as Microsoft's clients meet them."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from azure.ai.ml.entities import AmlCompute, Model
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.storage.blob import BlobServiceClient

from tests.azure.clients import WORKSPACE, managed_endpoint, ml_client
from tests.azure.faults import Fault, OperationFault
from tests.azure.server import AzureServer

ANY = "management.azure.com"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ClientAuthenticationError),
        (403, HttpResponseError),
        (404, ResourceNotFoundError),
        (409, ResourceExistsError),
    ],
)
def test_a_status_is_answered_as_often_as_asked(
    azure: AzureServer, status: int, error: type[HttpResponseError]
) -> None:
    client = ml_client(azure)
    azure.faults.add(Fault(f"GET .*/workspaces/{WORKSPACE}", status, times=2, after=1))
    client.workspaces.get(WORKSPACE)
    for _ in range(2):
        with pytest.raises(error) as caught:
            client.workspaces.get(WORKSPACE)
        assert caught.value.status_code == status
    client.workspaces.get(WORKSPACE)
    assert [e.fault for e in azure.record.exchanges(f"/{WORKSPACE}\\?")] == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("status", [429, 500])
def test_clients_try_again_after_what_passes(azure: AzureServer, status: int) -> None:
    client = ml_client(azure)
    azure.faults.add(Fault(ANY, status, retry_after=1))
    began = time.monotonic()
    client.workspaces.get(WORKSPACE)
    assert time.monotonic() - began >= 0.5  # it was told to wait
    assert [e.status for e in azure.record.exchanges(ANY)] == [status, 200]


def test_an_operation_fails_with_its_reason(azure: AzureServer) -> None:
    client = ml_client(azure)
    azure.faults.add(OperationFault("PUT .*/computes/", code="QuotaExceeded", message="full"))
    cluster = AmlCompute(name="cpu-cluster", size="Standard_DS3_v2")
    with pytest.raises(HttpResponseError, match="QuotaExceeded"):
        client.compute.begin_create_or_update(cluster).result()
    assert client.compute.get("cpu-cluster").provisioning_state == "Failed"
    client.compute.begin_create_or_update(cluster).result()
    assert client.compute.get("cpu-cluster").provisioning_state == "Succeeded"


def test_an_operation_that_never_ends(azure: AzureServer) -> None:
    client = ml_client(azure)
    azure.faults.add(OperationFault("PUT .*/computes/", "endless"))
    cluster = AmlCompute(name="cpu-cluster", size="Standard_DS3_v2")
    poller = client.compute.begin_create_or_update(cluster)
    poller.wait(1)
    assert not poller.done()
    # Another endpoint is not in its way; the poller's own thread ends with the server's operations.
    assert managed_endpoint(client, "other-endpoint")
    azure.cloud.operations.clear()
    with pytest.raises(HttpResponseError):
        poller.result(30)


def test_an_endpoint_that_is_being_changed_is_busy(azure: AzureServer) -> None:
    client = ml_client(azure)
    managed_endpoint(client)
    azure.faults.add(OperationFault("PUT .*/onlineEndpoints/", "endless"))
    endpoint = client.online_endpoints.get("tiny-staging")
    poller = client.online_endpoints.begin_create_or_update(endpoint)
    with pytest.raises(HttpResponseError) as caught:
        client.online_endpoints.begin_create_or_update(endpoint).result()
    assert caught.value.status_code == 409
    azure.cloud.operations.clear()
    with pytest.raises(HttpResponseError):
        poller.result(30)


def test_a_dropped_request_was_not_carried_out_a_dropped_answer_was(azure: AzureServer) -> None:
    headers = {"Authorization": f"Bearer {azure.login.token('https://management.azure.com')}"}
    for drop, made in (("request", False), ("answer", True)):
        url = f"https://{ANY}{azure.workspace_id}/computes/by-{drop}?api-version=2023-08-01-preview"
        size = {"vmSize": "Standard_DS3_v2"}
        body = {
            "location": "eastus2",
            "properties": {"computeType": "AmlCompute", "properties": size},
        }
        azure.faults.add(Fault("PUT .*/computes/", drop=drop))
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.put(url, json=body, headers=headers)
        found = httpx.get(url, headers=headers).status_code == 200
        assert found == made


def test_a_lost_connection_is_tried_again(azure: AzureServer) -> None:
    client = ml_client(azure)
    azure.faults.add(Fault(f"GET .*/workspaces/{WORKSPACE}", drop="request"))
    assert client.workspaces.get(WORKSPACE).name == WORKSPACE
    assert [e.status for e in azure.record.exchanges(ANY)] == [None, 200]


def test_a_token_for_uploads_that_has_expired(azure: AzureServer, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"model")
    client = ml_client(azure)
    model = Model(name="rent", version="1", path=str(tmp_path / "model.bin"))
    azure.faults.expired_sas = 1
    with pytest.raises(Exception, match=r"(?i)AuthenticationFailed|authenticate"):
        client.models.create_or_update(model)
    assert client.models.create_or_update(model).version == "1"


def test_storage_is_throttled_for_a_while(azure: AzureServer) -> None:
    client = BlobServiceClient(
        f"https://{azure.blob.account}.blob.core.windows.net",
        credential=azure.blob.key,
        retry_total=3,
        initial_backoff=0,
        increment_base=0,
        random_jitter_range=0,
    )
    azure.faults.add(Fault("PUT .*blob.core", 503, "ServerBusy", times=2))
    client.create_container("data")
    statuses = [e.status for e in azure.record.exchanges("PUT .*blob.core")]
    assert statuses == [503, 503, 201]


def test_storage_that_does_not_answer(azure: AzureServer) -> None:
    client = BlobServiceClient(
        f"https://{azure.blob.account}.blob.core.windows.net",
        credential=azure.blob.key,
        retry_total=0,
    )
    azure.faults.add(Fault("blob.core", drop="request", times=None))
    with pytest.raises((ServiceResponseError, ServiceRequestError)):
        client.create_container("data")


def test_login_that_is_down(azure: AzureServer) -> None:
    azure.faults.add(Fault("POST .*/oauth2/", 500, times=None))
    with pytest.raises(ClientAuthenticationError):
        ml_client(azure).workspaces.get(WORKSPACE)


def test_faults_can_be_asked_for_from_outside(azure: AzureServer) -> None:
    own = httpx.Client(base_url=azure.proxy.url, trust_env=False)
    fault = {"where": f"/workspaces/{WORKSPACE}", "status": 404, "times": None}
    assert own.post("/faults", json=fault).status_code == 204
    with pytest.raises(ResourceNotFoundError):
        ml_client(azure).workspaces.get(WORKSPACE)
    assert own.get("/exchanges").json()[-1]["status"] == 404
    assert own.delete("/faults").status_code == 204
    ml_client(azure).workspaces.get(WORKSPACE)
    answer = own.post("/faults", json={"wher": "x"})
    assert answer.status_code == 400
    assert "wher" in answer.json()["error"]
    own.close()
