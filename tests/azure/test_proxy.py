"""The way in: real host names, real TLS, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import pytest
from azure.core.exceptions import ClientAuthenticationError

from tests.azure.clients import WORKSPACE, credential, ml_client
from tests.azure.server import AzureServer

ARM = "https://management.azure.com"


def test_other_hosts_are_refused_and_noted(azure: AzureServer) -> None:
    for url in ("https://example.com/", "https://management.azure.com:8443/"):
        with pytest.raises(httpx.ProxyError, match="403"):
            httpx.get(url)
    assert httpx.get("http://management.azure.com/").status_code == 403
    assert azure.record.refused == [
        "example.com:443",
        "management.azure.com:8443",
        "http://management.azure.com/",
    ]


def test_certificates_are_for_their_host_alone(azure: AzureServer) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(ARM, verify=True, trust_env=False, proxy=azure.proxy.url)
    assert httpx.get(ARM).status_code == 401
    azure.record.clear()  # no operation, on purpose


def test_another_process_finds_the_way_by_its_environment(azure: AzureServer) -> None:
    script = (
        "from azure.identity import EnvironmentCredential\n"
        "from azure.ai.ml import MLClient\n"
        f"client = MLClient(EnvironmentCredential(), '{azure.subscription}', 'test-group',"
        f" '{WORKSPACE}', enable_telemetry=False)\n"
        f"print(client.workspaces.get('{WORKSPACE}').name)\n"
    )
    environment = {"PATH": os.environ["PATH"], **azure.environment()}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == WORKSPACE, found.stderr
    assert azure.record.refused == []


def test_tokens_are_for_whom_the_secret_is_of(azure: AzureServer) -> None:
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        credential(azure, secret="wrong").get_token(f"{ARM}/.default")
    token = credential(azure).get_token("https://storage.azure.com/.default").token
    answer = httpx.get(
        f"{ARM}{azure.workspace_id}?api-version=2023-08-01-preview",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 401  # it is for storage
    assert "login.microsoftonline.com" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("{0}", 400, "MissingApiVersionParameter"),
        ("{0}?api-version=latest", 400, "InvalidApiVersionParameter"),
        ("/subscriptions/s/resourceGroups/test-group/providers/Microsoft.MachineLearningServices"
         "/workspaces?api-version=2023-08-01-preview", 404, "SubscriptionNotFound"),
        ("{0}/nothing?api-version=2023-08-01-preview", 404, "InvalidResourceType"),
    ],
)  # fmt: skip
def test_what_is_the_same_for_all_operations(
    azure: AzureServer, path: str, status: int, code: str
) -> None:
    headers = {"Authorization": f"Bearer {azure.login.token(ARM)}"}
    answer = httpx.get(f"{ARM}{path.format(azure.workspace_id)}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    azure.record.clear()  # these are against the specification, on purpose


def test_a_long_upload_in_chunks_arrives(azure: AzureServer) -> None:
    azure.blob.client().create_container("data")
    token = credential(azure).get_token("https://storage.azure.com/.default").token
    url = f"https://{azure.blob.account}.blob.core.windows.net/data/chunks"
    headers = {
        "Authorization": f"Bearer {token}",
        "x-ms-version": "2023-11-03",
        "x-ms-blob-type": "BlockBlob",
    }
    parts = [b"a" * 70_000, b"b" * 3, b"c" * 100_000]
    assert httpx.put(url, content=iter(parts), headers=headers).status_code == 201
    assert httpx.get(url, headers=headers).content == b"".join(parts)


def test_secrets_are_not_recorded(azure: AzureServer) -> None:
    client = ml_client(azure)
    list(client.compute.list())
    client.datastores.get_default(include_secrets=True)
    seen = repr(azure.record.exchanges())
    assert azure.record.exchanges("/listSecrets")
    for secret in (azure.login.secret, azure.blob.key, azure.login.token(ARM)[:60]):
        assert secret not in seen
    sas = azure.blob.account_sas(expired=False)
    assert "sig=" in sas
    assert "REDACTED" in seen
