"""Blob storage: Microsoft's clients with keys, tokens of Azure AD and signed addresses."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import ClientAuthenticationError, ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from dagster_azure.blob import AzureBlobStorageKeyCredential, AzureBlobStorageResource

from tests.azure.clients import credential
from tests.azure.server import AzureServer


def _client(azure: AzureServer, secret: object) -> BlobServiceClient:
    return BlobServiceClient(
        f"https://{azure.blob.account}.blob.core.windows.net", credential=secret, retry_total=0
    )


def test_the_key_and_a_token_open_the_account(azure: AzureServer) -> None:
    _client(azure, azure.blob.key).create_container("data")
    blob = _client(azure, credential(azure)).get_blob_client("data", "a/b.txt")
    blob.upload_blob(b"x" * 5_000_000)
    assert blob.download_blob().readall() == b"x" * 5_000_000
    with pytest.raises(ResourceExistsError):
        blob.upload_blob(b"again")


def test_another_key_does_not(azure: AzureServer) -> None:
    with pytest.raises(ClientAuthenticationError):
        _client(azure, "AAAA" * 22).create_container("data")


def test_signed_addresses_hold_for_a_while(azure: AzureServer) -> None:
    _client(azure, azure.blob.key).create_container("data")
    for hours in (1, -1):
        token = generate_container_sas(
            azure.blob.account, "data", account_key=azure.blob.key,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=hours),
        )  # fmt: skip
        listing = _client(azure, token).get_container_client("data").list_blobs()
        if hours > 0:
            assert list(listing) == []
        else:
            with pytest.raises(ClientAuthenticationError):
                list(listing)


def test_leases_lock_a_blob(azure: AzureServer) -> None:
    container = _client(azure, azure.blob.key).create_container("locks")
    blob = container.get_blob_client("production")
    blob.upload_blob(b"")
    lease = blob.acquire_lease(lease_duration=15)
    with pytest.raises(ResourceExistsError):
        blob.acquire_lease(lease_duration=15, lease_id=str(uuid.uuid4()))
    lease.release()
    blob.acquire_lease(lease_duration=15)


def test_dagster_finds_the_account(azure: AzureServer) -> None:
    resource = AzureBlobStorageResource(
        account_url=f"https://{azure.blob.account}.blob.core.windows.net",
        credential=AzureBlobStorageKeyCredential(key=azure.blob.key),
    )
    with resource.get_client() as client:
        client.create_container("data")
        assert "data" in [container.name for container in client.list_containers()]


def test_adlfs_reads_and_writes(azure: AzureServer) -> None:
    import fsspec
    import pandas as pd

    options = {"account_name": azure.blob.account, "account_key": azure.blob.key}
    files = fsspec.filesystem("abfs", skip_instance_cache=True, **options)
    files.mkdir("data")
    with files.open("data/rows/a.csv", "w") as file:
        file.write("a,b\n1,2\n")
    assert files.ls("data/rows") == ["data/rows/a.csv"]
    frame = pd.read_csv("abfs://data/rows/a.csv", storage_options=options)
    assert frame.to_dict("records") == [{"a": 1, "b": 2}]
