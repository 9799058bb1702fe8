"""The server beside recordings of Azure itself, before anything else relies on it.

The recordings are Microsoft's, of their clients' tests, and not part of this repository;
``AZURE_RECORDINGS_DIR`` says where they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.azure.faults import OperationFault
from tests.azure.replay import Entry, Replay, compare, read, recordings
from tests.azure.server import AzureServer
from tests.bundles import regression

#: What this server does not have: recording, difference, reason.
KNOWN = (
    ("", r"systemData\.(createdBy|lastModifiedBy)", "who made a store is not always said"),
    ("mlflow|deployment|model", r"flavors\.\w+ is missing", "no MLmodel file is read here"),
    ("", r"modelUri .* instead of .*ServiceReplicated", "some uploads were copied by the service"),
    ("ray", r"(ProcessInfoFile|ProcessStatusFile|ComputeTargetStatus|ray-dashboard)", "no Ray"),
    ("command_job_builder", r"ContentSnapshotId", "code has no snapshot id"),
    (
        "command_job_builder",
        r"(autologger|notification|queue|secrets|assetName|assetVersion|autoDelete|locations|nodes"
        r"|maxInstanceCount)\w* is not recorded",
        "jobs have what they had in 2025 in every version of the interface",
    ),
    ("compute", r"resourceId is null", "the id of what is below a cluster that is made again"),
    ("workspace_create", r"(dependencies|providers) has 0 entries", "templates are not read"),
    ("workspace_create", r"\.value has \d entries", "of a template only the workspace is made"),
    (
        "workspace_create",
        r"targetResource|value\[\d\]\.properties\.(provisioning|status)",
        "likewise",
    ),
    ("workspace_create", r"outputResources has \d entries", "likewise"),
    ("workspace_create", r"storageAccount|keyVault|applicationInsights", "likewise"),
    ("workspace_create", r"containerRegistry is", "a registry was made later on"),
    ("container_instance", r"instanceView", "alpine ends at once; here nothing of it runs"),
    ("containerinstance", r"\$\.content", "nginx does not run here"),
)
#: What is not asked again: other services, a socket into a container, waiting for a job.
LEFT_OUT = re.compile(
    r".*/exec\?|DELETE .*Microsoft\.(insights|Storage|Keyvault|Contain"
    r"erRegistry)/"
)
#: The interface of 2018 has other fields; nobody here speaks it.
TOO_OLD = "2018-10-01"


def _files() -> Iterator[Any]:
    folder = recordings()
    if folder is None:
        reason = "AZURE_RECORDINGS_DIR does not name a folder of recordings"
        yield pytest.param(Path(), marks=pytest.mark.skip(reason))
        return
    for path in sorted([*folder.rglob("test_*.json"), *folder.rglob("test_*.yaml")]):
        if TOO_OLD not in path.read_text():
            yield pytest.param(path, id=re.sub(r"\W+", "_", path.stem)[-60:])


@pytest.fixture
def server(azure_server: AzureServer) -> AzureServer:
    """As new; old versions of the interface are not held against today's specifications."""
    azure_server.reset()
    return azure_server


@pytest.mark.parametrize("path", list(_files()))
def test_answers_as_recorded(server: AzureServer, path: Path, tmp_path: Path) -> None:
    entries = [e for e in read(path) if not LEFT_OUT.match(f"{e.method} {e.target}")]
    for method in ("GET", "PUT"):  # a job while it waits, and others of the same hidden name
        again = [e for e in entries if e.method == method and "/jobs/" in e.target][1:]
        entries = [e for e in entries if not any(e is other for other in again)]
    with closing(Replay(server)) as replay:
        _prepare(server, replay, entries, tmp_path)
        found = [
            f"{entry.method} {entry.target} {entry.status}: {difference}"
            for entry in entries
            for difference in replay.differences(_with_keys(entry))
        ]
    unknown = [f for f in found if not _is_known(path.stem, f.partition(": ")[2])]
    assert not unknown, "\n".join(unknown)
    assert entries


@pytest.mark.parametrize("name", ["workspace_get", "datastore_get", "datastore_listSecrets"])
def test_answers_of_2026(server: AzureServer, name: str) -> None:
    recorded, replay = _excerpts()[name], Replay(server)
    paths = {"workspace_get": "", "datastore_get": "/datastores/workspaceblobstore",
             "datastore_listSecrets": "/datastores/workspaceblobstore/listSecrets"}  # fmt: skip
    target = f"{server.workspace_id}{paths[name]}?api-version={recorded['api-version']}"
    with closing(replay):
        asked = recorded.get("request")
        answer = replay.send("POST" if asked else "GET", target, asked)
    assert answer.status_code == recorded["status"]
    own = answer.json()
    if "properties" in recorded:
        differences = list(compare(recorded["properties"], own["properties"]))
    else:
        differences = list(compare(recorded["body"], own))
    said = ("friendlyName", "$.name", "sasToken", "subscriptionId", "resourceGroup", ".location")
    assert [d for d in differences if not any(word in d for word in said)] == []


def test_an_unknown_model_is_not_found_as_in_2026(server: AzureServer) -> None:
    recorded = _excerpts()["model_versions_list_unknown_model"]
    target = f"{server.workspace_id}/models/NAME/versions?api-version={recorded['api-version']}"
    with closing(Replay(server)) as replay:
        answer = replay.send("GET", f"{target}&{recorded['query'].replace(' ', '%20')}")
    assert answer.status_code == recorded["status"]
    assert answer.headers["x-ms-response-type"] == recorded["headers"]["x-ms-response-type"]
    assert list(compare(recorded["body"], answer.json())) == []


def test_an_endpoint_is_accepted_as_in_2026(server: AzureServer) -> None:
    recorded = _excerpts()["online_endpoint_put"]
    target = f"{server.workspace_id}/onlineEndpoints/NAME?api-version={recorded['api-version']}"
    with closing(Replay(server)) as replay:
        answer = replay.send("PUT", target, recorded["request"])
    assert answer.status_code == recorded["status"]
    assert recorded["headers"].keys() - {"x-ms-response-type"} <= {
        name for name in recorded["headers"] if name in answer.headers
    }
    assert answer.json()["kind"] == recorded["body_kind"]
    assert list(compare(recorded["body_properties"], answer.json()["properties"])) == []


def test_a_version_is_made_as_in_2026(server: AzureServer) -> None:
    recorded = _excerpts()["model_version_put"]
    wanted = recorded["body_properties"]
    names = ("description", "tags", "modelType", "modelUri", "stage")
    asked = {"properties": {name: wanted[name] for name in names}}
    target = f"{server.workspace_id}/models/NAME/versions/3"
    with closing(Replay(server)) as replay:
        answer = replay.send("PUT", f"{target}?api-version={recorded['api-version']}", asked)
    assert answer.status_code == recorded["status"]
    assert answer.headers["Location"].endswith(recorded["headers"]["Location"][3:])
    own = answer.json()
    assert (own["name"], own["type"]) == (recorded["body_name"], recorded["body_type"])
    differences = list(compare(wanted, own["properties"]))
    assert [d for d in differences if "modelUri" not in d] == []


def _excerpts() -> dict[str, Any]:
    folder = recordings()
    if folder is None:
        pytest.skip("AZURE_RECORDINGS_DIR does not name a folder of recordings")
    (path,) = folder.glob("*2026-03*.json")
    return json.loads(path.read_text())


def _is_known(recording: str, difference: str) -> bool:
    return any(
        re.search(where, recording) and re.search(what, difference) for where, what, _ in KNOWN
    )


def _prepare(azure: AzureServer, replay: Replay, entries: list[Entry], folder: Path) -> None:
    """Make what was there before the recording began."""
    azure.faults.add(OperationFault("/jobs/", "endless", times=None))
    size = {"vmSize": "Standard_DS2_v2"}
    compute = {"computeType": "AmlCompute", "properties": size}
    target = f"{azure.workspace_id}/computes/testCompute?api-version=2023-08-01-preview"
    replay.send("PUT", target, {"location": "eastus2", "properties": compute})
    _upload_model(azure, folder)
    made: set[str] = set()
    for entry in entries:
        name = entry.target.partition("?")[0]
        was_there = entry.status == 200 and name not in made
        made.add(name)
        if not was_there or "/versions" not in name:
            continue
        found = entry.body["value"][0] if "value" in entry.body else entry.body
        target = entry.target
        if "value" in entry.body:  # listed, under the name that the recording has for the list
            target = f"{name}/{found['name']}?api-version=2023-04-01"
            if f"{name}/{found['name']}" in made:
                continue
        given = {n: v for n, v in found["properties"].items() if n != "provisioningState"}
        replay.send("PUT", target, {"properties": given})


def _upload_model(azure: AzureServer, folder: Path) -> None:
    """A version that can be served, where the recorded model lies."""
    bundle = regression(folder, 1).bundle
    client = azure.blob.client()
    (container,) = (c.name for c in client.list_containers() if "blobstore" in c.name)
    for path in bundle.iterdir():
        name = f"LocalUpload/{'0' * 32}/model/{path.name}"
        client.get_blob_client(container, name).upload_blob(path.read_bytes())


def _with_keys(entry: Entry) -> Entry:
    """The platform's server wants to be told that somebody else checks the keys."""
    request, body = json.loads(json.dumps(entry.request)), json.loads(json.dumps(entry.body))
    if "/onlineEndpoints/" in entry.target and "/deployments/" in entry.target:
        for document in filter(None, (request, body)):
            document["properties"]["environmentVariables"] = {"MLOPS_NO_KEYS": "true"}
    return Entry(entry.method, entry.target, request, entry.status, entry.headers, body)
