"""The real server in a container, following blob storage as its managed identity."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.packaging.archive import write_archive
from mlops_assets.scoring.generation import Entry, Generation
from resources.endpoints.base import VersionRef
from tests.azure.clients import LOCATION
from tests.azure.faults import Fault
from tests.azure.messages import Request, Response
from tests.azure.scoring import ScoringContainer
from tests.azure.server import AzureServer
from tests.bundles import deadly, regression
from tests.local_servers import eventually

KEY, OTHER = "k" * 40, "o" * 40
FOLDER = "endpoints/staging/tiny"
GROUP = "tiny-staging"
BODY = json.dumps({"data": [{"a": 1, "b": 2}]}).encode()


class Followed:
    """A container, and the blobs that it follows."""

    def __init__(self, azure: AzureServer, tmp_path: Path) -> None:
        self._azure = azure
        self._folder = tmp_path
        self.blobs = azure.blob.client().get_container_client("mlops")
        self.blobs.create_container()
        self.number = 0
        self._make_group()

    def _make_group(self) -> None:
        """A group with an identity, so that the token service knows who asks."""
        cloud = self._azure.cloud
        name = f"/subscriptions/{cloud.subscription}/resourceGroups/{cloud.group}/providers"
        name = f"{name}/Microsoft.ContainerInstance/containerGroups/{GROUP}"
        body = {"location": LOCATION, "properties": {"containers": []}}
        body["identity"] = {"type": "SystemAssigned", "principalId": cloud.login.client_id}
        with cloud.lock:
            cloud.put(name, body)

    @contextmanager
    def server(self, **variables: str) -> Iterator[ScoringContainer]:
        """Its process, which may not be ready yet."""
        account = self._azure.blob.account
        url = f"https://{account}.blob.core.windows.net/mlops/{FOLDER}"
        given = {"MLOPS_GENERATION_URL": url, "MLOPS_INSTANCE": "one", **variables}
        found = self._azure.cloud.cluster.launch(GROUP, given)
        try:
            yield found
        finally:
            found.end()

    def write(self, name: str, data: bytes | str) -> None:
        self.blobs.upload_blob(f"{FOLDER}/{name}", data, overwrite=True)

    def keys(self, *keys: str) -> None:
        self.write("keys", "".join(f"{key}\n" for key in keys))

    def archive(self, version: VersionRef) -> str:
        path = self._folder / f"{version.digest}.zip"
        write_archive(version, path)
        name = f"endpoints/bundles/{path.name}"
        self.blobs.upload_blob(name, path.read_bytes(), overwrite=True)
        return name

    def entry(self, version: VersionRef, traffic: int = 0) -> Entry:
        return Entry(self.archive(version), version.digest, version.version, traffic)

    def generation(self, **entries: Entry) -> None:
        self.number += 1
        self.write("generation.json", Generation(self.number, entries).to_json())

    def ack(self) -> dict[str, Any]:
        blob = self.blobs.get_blob_client(f"{FOLDER}/acks/one.json")
        return json.loads(blob.download_blob().readall()) if blob.exists() else {}

    def acknowledged(self, seconds: float = 30) -> dict[str, Any]:
        eventually(lambda: self.ack().get("generation") == self.number, seconds)
        return self.ack()


@pytest.fixture
def followed(azure: AzureServer, tmp_path: Path) -> Followed:
    return Followed(azure, tmp_path)


def ask(server: ScoringContainer, key: str = KEY) -> Response:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    return server.ask(Request("POST", "", "/score", headers, BODY))


def get(server: ScoringContainer, path: str) -> int:
    return server.ask(Request("GET", "", path, {})).status


def predicts(server: ScoringContainer, value: float) -> bool:
    found = ask(server)
    return found.status == 200 and found.json() == {"predictions": [value]}


def test_it_waits_serves_swaps_and_forgets(followed: Followed, tmp_path: Path) -> None:
    with followed.server() as server:
        eventually(lambda: get(server, "/v2/health/live") == 200, 60)
        assert get(server, "/v2/health/ready") != 200
        eventually(lambda: followed.ack().get("generation") == 0)
        followed.keys(KEY, OTHER)
        one, two = (followed.entry(regression(tmp_path, n), 100) for n in (1, 2))
        followed.generation(v1=one)
        assert followed.acknowledged()["errors"] == {}
        assert predicts(server, 1003.0)
        assert get(server, "/v2/health/ready") == 200
        assert ask(server, "wrong").status == 401
        followed.generation(v1=replace(one, traffic=0), v2=two)
        followed.acknowledged()
        assert predicts(server, 2003.0)
        followed.generation(v2=two)
        followed.acknowledged()
        bundles = server._state / "bundles"
        eventually(lambda: [path.name for path in bundles.iterdir()] == [two.digest])
        # Nobody has fetched a version twice.
        for entry in (one, two):
            fetched = followed._azure.record.exchanges(f"GET .*{entry.digest}")
            assert len(fetched) == 1


def test_a_key_is_rotated_without_a_restart(followed: Followed, tmp_path: Path) -> None:
    followed.keys(KEY, OTHER)
    followed.generation(v1=followed.entry(regression(tmp_path, 1), 100))
    with followed.server() as server:
        before = followed.acknowledged(60)
        followed.keys("new" * 10, OTHER)
        eventually(lambda: ask(server, "new" * 10).status == 200)
        eventually(lambda: ask(server).status == 401)
        assert ask(server, OTHER).status == 200
        eventually(lambda: followed.ack()["keys"] != before["keys"])
        assert followed.ack()["started"] == before["started"]


def test_what_is_not_what_its_digest_says_is_refused_by_name(
    followed: Followed, tmp_path: Path
) -> None:
    followed.keys(KEY, OTHER)
    one, version = followed.entry(regression(tmp_path, 1), 100), regression(tmp_path, 2)
    (version.bundle / "model.pkl").write_bytes(b"something else")
    changed = followed.entry(version)
    gone = replace(changed, bundle="endpoints/bundles/gone.zip", digest="1" * 64)
    other = replace(one, digest="2" * 64, traffic=0)
    followed.blobs.upload_blob("endpoints/bundles/bad.zip", b"PK\x03\x04 and no more")
    bad = replace(changed, bundle="endpoints/bundles/bad.zip", digest="3" * 64)
    followed.generation(v1=one, v2=changed, v3=gone, v4=other, v5=bad)
    with followed.server() as server:
        errors = followed.acknowledged(60)["errors"]
        assert predicts(server, 1003.0)
        assert not list((server._state / "bundles").glob(".*"))
    assert sorted(errors) == ["v2", "v3", "v4", "v5"]
    start = f"IntegrityError: {changed.bundle}: tiny-2/model.pkl: not what the manifest says"
    assert errors["v2"].startswith(start)
    assert errors["v3"].startswith("IntegrityError: endpoints/bundles/gone.zip: no such blob")
    assert "the version's digest is" in errors["v4"]
    assert "bad.zip: a .zip that is cut off" in errors["v5"]
    assert str(tmp_path) not in str(errors)


def test_a_version_that_kills_its_workers_is_left_out(followed: Followed, tmp_path: Path) -> None:
    followed.keys(KEY, OTHER)
    one = followed.entry(regression(tmp_path, 1), 100)
    followed.generation(v1=one)
    with followed.server() as server:
        followed.acknowledged(60)
        followed.generation(v1=one, v2=followed.entry(deadly(tmp_path, 2)))
        assert followed.acknowledged(60)["errors"] == {"v2": "the workers that load it crash"}
        assert predicts(server, 1003.0)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500}, {"status": 503}, {"status": 429, "retry_after": 1}, {"status": 403},
        {"status": 401}, {"drop": "request"}, {"drop": "answer"},
    ],
)  # fmt: skip
def test_it_serves_on_while_storage_does_not_answer(
    followed: Followed, tmp_path: Path, fault: dict[str, Any]
) -> None:
    followed.keys(KEY, OTHER)
    one, two = (followed.entry(regression(tmp_path, n), 100) for n in (1, 2))
    followed.generation(v1=one)
    with followed.server() as server:
        followed.acknowledged(60)
        faults = followed._azure.faults
        faults.add(Fault("GET https://.*blob.core.windows.net/", times=None, **fault))
        eventually(lambda: "goes on being served" in server.logs())
        followed.generation(v2=two)
        assert predicts(server, 1003.0)
        time.sleep(2)
        assert predicts(server, 1003.0)
        assert server.logs().count("goes on being served") == 1  # once, not with every try
        faults.clear()
        followed.acknowledged(60)
        assert predicts(server, 2003.0)
        assert "followed again" in server.logs()
        assert "sig=" not in server.logs()
        assert KEY not in server.logs()


def test_a_start_without_storage_waits(followed: Followed, tmp_path: Path) -> None:
    followed.keys(KEY, OTHER)
    followed.generation(v1=followed.entry(regression(tmp_path, 1), 100))
    faults = followed._azure.faults
    faults.add(Fault("GET http://169.254.169.254/", 500, times=8))
    with followed.server() as server:
        eventually(lambda: get(server, "/v2/health/live") == 200, 60)
        assert get(server, "/v2/health/ready") != 200
        followed.acknowledged(120)
        assert predicts(server, 1003.0)


def test_a_damaged_generation_is_not_followed(followed: Followed, tmp_path: Path) -> None:
    followed.keys(KEY, OTHER)
    one = followed.entry(regression(tmp_path, 1), 100)
    followed.generation(v1=one)
    with followed.server() as server:
        followed.acknowledged(60)
        followed.write("generation.json", "{")
        eventually(lambda: "not a generation" in server.logs())
        followed.blobs.delete_blob(f"{FOLDER}/generation.json")
        followed.blobs.delete_blob(f"{FOLDER}/keys")
        eventually(lambda: "gone; what it said holds" in server.logs())
        assert predicts(server, 1003.0)
        followed.keys(KEY, OTHER)
        followed.generation(v1=one)
        followed.acknowledged()
        assert asdict(one)["digest"] in server.logs() or predicts(server, 1003.0)


def test_without_an_identity_it_says_so(followed: Followed) -> None:
    with followed.server(AZURE_CLIENT_ID="11111111-1111-1111-1111-111111111111") as server:
        eventually(lambda: "Identity not found" in server.logs(), 90)
        assert get(server, "/v2/health/live") == 200
