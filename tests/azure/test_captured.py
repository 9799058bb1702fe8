"""Captured requests from a container to blob storage, and found again there."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mlops_assets.scoring.blobs import BlobError
from mlops_assets.scoring.capture.upload import Uploader
from mlops_assets.scoring.metrics import Metrics
from resources.azure.blobs import Blobs
from resources.azure.collector import FOLDER, CapturedByAzure
from resources.captured import CapturedBlobs
from tests.azure.faults import Fault
from tests.azure.platforms import clients
from tests.azure.server import AzureServer
from tests.azure.test_aci_follow import KEY, OTHER, Followed, predicts
from tests.bundles import keyed
from tests.local_servers import eventually
from tests.scoring.capturing import rows_below

CAPTURE = {"MLOPS_CAPTURE_SHARE": "1", "MLOPS_CAPTURE_ROTATE_SECONDS": "0.5"}


def _names(followed: Followed) -> list[str]:
    return [b.name for b in followed.blobs.list_blobs(name_starts_with="captured/staging/tiny/")]


def test_a_container_uploads_what_it_captured(azure: AzureServer, tmp_path: Path) -> None:
    followed = Followed(azure, tmp_path)
    followed.keys(KEY, OTHER)
    followed.generation(v1=followed.entry(keyed(tmp_path, 1), 100))
    span = (dt.datetime.now(dt.UTC), dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5))
    with followed.server(**CAPTURE) as server:
        followed.acknowledged(60)
        assert predicts(server, 1003.0)
        eventually(lambda: len(_names(followed)) == 1)
        eventually(lambda: not [*server._state.rglob("*.parquet")])
        azure.faults.add(Fault("PUT https://.*/captured/", 503, times=None))
        assert predicts(server, 1003.0)
        eventually(lambda: "captured requests stay here" in server.logs())
        assert len([*server._state.rglob("*.parquet")]) == 1
        azure.faults.clear()
        eventually(lambda: len(_names(followed)) == 2)
        assert KEY not in server.logs()
    captured = CapturedBlobs(Blobs(clients(azure)))
    files = captured.files("tiny", "staging", *span)
    paths = captured.fetch("tiny", "staging", files, tmp_path / "copies")
    assert len(paths) == 2
    rows = rows_below(tmp_path / "copies")
    assert [(row["a"], row["mlops_status"]) for row in rows] == [(1.0, 200)] * 2
    assert captured.tidy("tiny", "staging", 0, span[0].date()) == 0
    assert captured.tidy("tiny", "staging", 0, span[0].date() + dt.timedelta(days=1)) == 2
    assert captured.files("tiny", "staging", *span) == []


def test_a_blob_that_is_removed_after_the_listing_is_left_out(
    azure: AzureServer, tmp_path: Path
) -> None:
    blobs = Blobs(clients(azure))
    for name in ("120000-a", "120001-b"):
        blobs.write(f"captured/staging/tiny/2026-03-01/{name}.parquet", b"x")
    captured, noon = CapturedBlobs(blobs), dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    files = captured.files("tiny", "staging", noon, noon + dt.timedelta(hours=1))
    assert len(files) == 2
    blobs.remove(f"captured/staging/tiny/{files[0].name}")
    copies = tmp_path / "copies"
    for _ in range(2):  # nothing is left of it that looks like a file
        found = captured.fetch("tiny", "staging", files, copies)
        assert found == [copies / files[1].name]


def test_a_collected_blob_that_is_removed_after_the_listing_is_left_out(
    azure: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, noon = Blobs(clients(azure)), dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    monkeypatch.setattr(CapturedByAzure, "_blobs", blobs)
    for name in ("a", "b"):
        blobs.write(f"{FOLDER}/tiny/v1-0/request/2026/03/01/12/{name}.jsonl", b"{}")
    captured = CapturedByAzure(clients(azure), lambda *_: "tiny", lambda *_: None)
    files = captured.files("tiny", "production", noon, noon + dt.timedelta(hours=1))
    blobs.remove(f"{FOLDER}/tiny/{files[0].name}")
    assert captured.fetch("tiny", "production", files, tmp_path) == []  # of no known version
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == ["b.jsonl"]


class Unreachable:
    """Storage that does not answer."""

    def upload(self, blob: str, path: Path) -> None:
        raise BlobError(f"{blob}: nobody answers, {path.name} stays")


def test_what_cannot_be_uploaded_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    day = tmp_path / "2026-03-01"
    day.mkdir()
    for number in range(10):
        (day / f"00000{number}-a.parquet").write_bytes(b"x" * 100)
    metrics = Metrics()
    uploader = Uploader(tmp_path, Unreachable(), "captured/s/m", metrics, 350)  # type: ignore[arg-type]
    assert not uploader.look()
    assert not uploader.look()
    assert [path.name[5] for path in sorted(day.iterdir())] == ["7", "8", "9"]
    assert metrics.not_captured == {"unreachable_files": 7}
    assert caplog.text.count("captured requests stay here") == 1


def test_files_that_vanish_do_not_end_the_uploads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = tmp_path / "2026-03-01"
    day.mkdir()
    paths = [day / f"00000{number}-a.parquet" for number in range(3)]
    for path in paths[1:]:
        path.write_bytes(b"x" * 100)
    metrics = Metrics()
    uploader = Uploader(tmp_path, Unreachable(), "captured/s/m", metrics, 150)  # type: ignore[arg-type]
    monkeypatch.setattr(uploader, "_finished", lambda: paths)
    assert not uploader.look()
    assert [*day.iterdir()] == paths[2:]
    assert metrics.not_captured == {"unreachable_files": 1}


class Storing:
    """Storage that reads what it is given."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def upload(self, blob: str, path: Path) -> None:
        path.read_bytes()
        self.taken.append(blob)


def test_a_file_that_vanishes_does_not_hold_up_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "2026-03-01" / f"00000{number}-a.parquet" for number in range(2)]
    paths[1].parent.mkdir()
    paths[1].write_bytes(b"x")
    storing = Storing()
    uploader = Uploader(tmp_path, storing, "captured/s/m", Metrics())  # type: ignore[arg-type]
    monkeypatch.setattr(uploader, "_finished", lambda: paths)
    assert uploader.look()
    assert storing.taken == ["captured/s/m/2026-03-01/000001-a.parquet"]
