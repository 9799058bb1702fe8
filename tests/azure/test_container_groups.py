"""Container groups, by azure-mgmt-containerinstance: the platform's own container really runs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from tests.azure.clients import GROUP, IMAGE, LOCATION, ask, container_client
from tests.azure.server import AzureServer
from tests.bundles import regression
from tests.local_servers import eventually, processes_of

KEY = "k" * 32


def _bundle_url(azure: AzureServer, folder: Path) -> tuple[str, str]:
    """An archive of a version in blob storage: where, signed for an hour, and its digest."""
    version = regression(folder, 1)
    archive = shutil.make_archive(str(folder / "bundle"), "zip", version.bundle)
    client = azure.blob.client()
    client.create_container("bundles")
    client.get_blob_client("bundles", "tiny-1.zip").upload_blob(Path(archive).read_bytes())
    token = generate_blob_sas(
        azure.blob.account, "bundles", "tiny-1.zip", account_key=azure.blob.key,
        permission=BlobSasPermissions(read=True), expiry=datetime.now(UTC) + timedelta(hours=1),
    )  # fmt: skip
    url = f"https://{azure.blob.account}.blob.core.windows.net/bundles/tiny-1.zip?{token}"
    return url, version.digest


def _group(url: str, digest: str, ports: tuple[int, ...] = (5001,)) -> Any:
    from azure.mgmt.containerinstance import models as aci

    variables = [
        aci.EnvironmentVariable(name="MLOPS_BUNDLE_URL", secure_value=url),
        aci.EnvironmentVariable(name="MLOPS_BUNDLE_DIGEST", value=digest),
        aci.EnvironmentVariable(name="MLOPS_PRIMARY_KEY", secure_value=KEY),
    ]
    size = aci.ResourceRequirements(requests=aci.ResourceRequests(cpu=1, memory_in_gb=1))
    container = aci.Container(
        name="scoring", image=IMAGE, resources=size, environment_variables=variables,
        ports=[aci.ContainerPort(port=5001)],
    )  # fmt: skip
    address = aci.IpAddress(
        ports=[aci.Port(port=port) for port in ports], type="Public", dns_name_label="tiny"
    )
    return aci.ContainerGroup(
        location=LOCATION, os_type="Linux", containers=[container], ip_address=address
    )


def _answers(url: str) -> bool:
    try:
        return ask(url, KEY).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_group_serves_the_version_it_fetches(azure: AzureServer, tmp_path: Path) -> None:
    client = container_client(azure)
    group = _group(*_bundle_url(azure, tmp_path))
    made = client.container_groups.begin_create_or_update(GROUP, "tiny", group).result()
    assert (made.provisioning_state, made.instance_view.state) == ("Succeeded", "Running")
    assert made.ip_address.fqdn == f"tiny.{LOCATION}.azurecontainer.io"
    url = f"http://{made.ip_address.fqdn}:5001/score"
    eventually(lambda: _answers(url))
    assert ask(url, KEY).json() == {"predictions": [1003.0]}
    assert ask(url, "wrong").status_code == 401
    assert "serving on" in client.containers.list_logs(GROUP, "tiny", "scoring").content


def test_secrets_are_not_answered(azure: AzureServer, tmp_path: Path) -> None:
    client = container_client(azure)
    url, digest = _bundle_url(azure, tmp_path)
    client.container_groups.begin_create_or_update(GROUP, "tiny", _group(url, digest)).wait()
    (container,) = client.container_groups.get(GROUP, "tiny").containers
    values = {v.name: (v.value, v.secure_value) for v in container.environment_variables}
    assert values["MLOPS_PRIMARY_KEY"] == (None, None)
    assert values["MLOPS_BUNDLE_DIGEST"] == (digest, None)
    seen = repr(azure.record.exchanges())
    assert KEY not in seen
    assert url.partition("sig=")[2][:20] not in seen


def test_a_group_is_restarted_stopped_started_and_removed(
    azure: AzureServer, tmp_path: Path
) -> None:
    groups = container_client(azure).container_groups
    group = _group(*_bundle_url(azure, tmp_path))
    url = f"http://{groups.begin_create_or_update(GROUP, 'tiny', group).result().ip_address.fqdn}"
    url = f"{url}:5001/score"
    eventually(lambda: _answers(url))
    groups.begin_restart(GROUP, "tiny").wait()
    eventually(lambda: _answers(url))
    groups.stop(GROUP, "tiny")
    assert groups.get(GROUP, "tiny").instance_view.state == "Stopped"
    assert not _answers(url)
    groups.begin_start(GROUP, "tiny").wait()
    eventually(lambda: _answers(url))
    assert [found.name for found in groups.list_by_resource_group(GROUP)] == ["tiny"]
    groups.begin_delete(GROUP, "tiny").wait()
    with pytest.raises(ResourceNotFoundError):
        groups.get(GROUP, "tiny")
    eventually(lambda: not processes_of(azure.folder))


def test_a_container_that_ends_says_why(azure: AzureServer, tmp_path: Path) -> None:
    client = container_client(azure)
    url, _ = _bundle_url(azure, tmp_path)
    client.container_groups.begin_create_or_update(GROUP, "tiny", _group(url, "0" * 64)).wait()
    groups = client.container_groups
    eventually(lambda: groups.get(GROUP, "tiny").instance_view.state == "Failed")
    (container,) = groups.get(GROUP, "tiny").containers
    assert container.instance_view.current_state.exit_code == 6
    assert (
        "the version's digest is" in client.containers.list_logs(GROUP, "tiny", "scoring").content
    )


def test_a_port_that_no_container_has_is_refused(azure: AzureServer, tmp_path: Path) -> None:
    groups = container_client(azure).container_groups
    with pytest.raises(HttpResponseError, match="80"):
        groups.begin_create_or_update(GROUP, "tiny", _group("https://x", "0" * 64, (5001, 80)))
