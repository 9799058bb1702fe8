"""Artifacts in blob storage, with copies on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.files import files_below
from resources.azure.artifacts import BlobArtifacts
from resources.azure.clients import AzureError
from tests.azure.faults import Fault
from tests.azure.platforms import clients
from tests.azure.server import AzureServer

Stores = Callable[[str], BlobArtifacts]
FILES = {"data.parquet": b"PAR1" * 1000, "code/a b/train.py": b"print('\xc3\xa4')\n"}


@pytest.fixture
def stores(azure: AzureServer, tmp_path: Path) -> Stores:
    """Stores of several machines, by name."""
    return lambda name: BlobArtifacts.of(clients(azure), root=str(tmp_path / name))


def publish(store: BlobArtifacts, files: dict[str, bytes] = FILES, name: str = "digest") -> Path:
    with store.workspace() as folder:
        for within, content in files.items():
            path = folder / "made" / within
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return store.publish("snapshots", name, folder / "made")


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files_below(folder)}


def test_what_one_machine_publishes_another_reads(azure: AzureServer, stores: Stores) -> None:
    here, there = stores("here"), stores("there")
    assert not here.has("snapshots", "digest")
    assert not here.path("snapshots", "digest").exists()
    assert content(publish(here)) == FILES
    assert there.has("snapshots", "digest")
    assert content(there.path("snapshots", "digest")) == FILES
    azure.record.clear()
    assert content(there.path("snapshots", "digest")) == FILES
    assert azure.record.exchanges("blob.core") == []  # it is here by now
    assert not any(Path(there.root, "scratch").iterdir())


def test_the_first_one_stays(stores: Stores) -> None:
    publish(stores("here"))
    other = {"data.parquet": b"other"}
    assert content(publish(stores("there"), other)) == FILES
    assert content(stores("third").path("snapshots", "digest")) == FILES


def test_an_upload_that_ended_half_way_is_no_artifact_and_is_gone_on_with(
    azure: AzureServer, stores: Stores
) -> None:
    azure.faults.add(Fault("PUT .*/index.json", 403, "AuthorizationFailure"))
    with pytest.raises(AzureError, match=r"index\.json: .*AuthorizationFailure"):
        publish(stores("here"))
    names = [b.name for b in clients(azure).container.list_blobs(name_starts_with="artifacts/")]
    assert len(names) == len(FILES)
    for store in (stores("here"), stores("there")):
        assert not store.has("snapshots", "digest")
        assert not store.path("snapshots", "digest").exists()
    assert content(publish(stores("there"), {"data.parquet": b"other"})) == {
        "data.parquet": b"other"
    }
    assert content(publish(stores("here"))) == {"data.parquet": b"other"}


KILLED = """
import json, os, signal, sys
from pathlib import Path
from resources.azure.artifacts import BlobArtifacts
from resources.azure.blobs import Blobs
from resources.azure.clients import AzureClients
from resources.azure.settings import AzureSettings
clients = AzureClients(AzureSettings.model_validate(json.loads(sys.argv[1])))
store = BlobArtifacts.of(clients, root=sys.argv[2])
calls, send = 0, Blobs._create
def create(self, name, *rest):
    global calls
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    calls += 1
    return send(self, name, *rest)
Blobs._create = create
import resources.azure.artifacts as module
module.side_by_side = lambda do, items: [do(item) for item in items]
with store.workspace() as folder:
    (folder / "made").mkdir()
    for name in "abc":
        (folder / "made" / name).write_text(name)
    store.publish("snapshots", "digest", folder / "made")
"""


@pytest.mark.parametrize("line", range(4))
def test_killed_before_any_of_its_writes_it_is_published_by_the_next(
    azure: AzureServer, stores: Stores, tmp_path: Path, line: int
) -> None:
    settings = clients(azure).settings.model_dump_json(by_alias=True)
    arguments = [sys.executable, "-c", KILLED, settings, str(tmp_path / "here"), str(line)]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -9
    store = stores("here")
    assert not store.has("snapshots", "digest")
    files = {name: name.encode() for name in "abc"}
    assert content(publish(store, files)) == files
    assert content(stores("there").path("snapshots", "digest")) == files
    assert len(list(Path(store.root, "scratch").iterdir())) == 0


def test_a_file_that_was_changed_is_not_taken(azure: AzureServer, stores: Stores) -> None:
    publish(stores("here"))
    index = stores("here").index("snapshots", "digest")
    assert index
    blob = clients(azure).container.get_blob_client(f"{index.folder}/data.parquet")
    blob.upload_blob(b"changed", overwrite=True)
    with pytest.raises(AzureError, match=r"not as it was published: data\.parquet; remove"):
        stores("there").path("snapshots", "digest")
    blob.delete_blob()
    with pytest.raises(AzureError, match=r"data\.parquet: Azure answers 404"):
        stores("there").path("snapshots", "digest")
    store = stores("there")
    assert not Path(store.root, "snapshots", "digest").exists()


def test_an_artifact_is_made_by_one_machine_at_a_time(stores: Stores) -> None:
    with stores("here").lock("trained", "identity"):
        blob = stores("there")._blobs.client("locks/artifacts-trained-identity")
        assert blob.get_blob_properties().lease.state == "leased"
    assert blob.get_blob_properties().lease.state == "available"


def test_a_connection_that_drops_in_each_upload_makes_no_difference(
    azure: AzureServer, stores: Stores
) -> None:
    publish(stores("here"), name="before")
    azure.faults.add(Fault("PUT .*artifacts/.*/data.parquet", drop="answer"))
    azure.faults.add(Fault("PUT .*artifacts/.*/train.py", drop="request"))
    azure.faults.add(Fault("PUT .*artifacts/.*/index.json", drop="answer"))
    assert content(publish(stores("here"))) == FILES
    azure.faults.add(Fault("GET .*artifacts/.*/data.parquet", drop="answer"))
    azure.faults.add(Fault("GET .*artifacts/.*/train.py", 503, retry_after=1))
    assert content(stores("there").path("snapshots", "digest")) == FILES


def test_without_its_copies_nothing_is_lost(stores: Stores) -> None:
    store = stores("here")
    publish(store)
    shutil.rmtree(store.root)
    assert content(store.path("snapshots", "digest")) == FILES
    raw = store._blobs.read("artifacts/snapshots/digest/index.json")
    assert raw
    assert sorted(json.loads(raw)["files"]) == sorted(FILES)
