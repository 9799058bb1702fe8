"""The data sensor over folders of this machine."""

import os
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from upath import UPath

from mlops_assets.sensors.data import data_sensors
from mlops_assets.strict import SpecError
from resources.storage import Storage, StorageError
from tests.sensors.any_storage import *  # noqa: F403
from tests.sensors.any_storage import Make, Ticks, model, put


@pytest.fixture
def root(tmp_path: Path) -> UPath:
    return UPath(tmp_path / "storage")


@pytest.fixture
def storage(root: UPath) -> Storage:
    return Storage(root=str(root))


# -- what is a change


def test_a_file_that_is_touched_has_changed(ticks: Ticks, root: UPath) -> None:
    os.utime(root / "rent" / "a.csv", (1, 1))
    assert [ticks.tick() for _ in range(3)] == [["rent"], [], []]


def test_a_folder_without_files_does_not_count(ticks: Ticks, root: UPath) -> None:
    (root / "rent" / "empty").mkdir()
    assert ticks.tick() == []


# -- settling


def test_a_file_that_grows_is_reported_when_it_is_whole(settling: Ticks, root: UPath) -> None:
    path = root / "rent" / "b.csv"
    put(path, "")  # how most uploads begin
    assert settling.tick() == []
    for _ in range(50):
        with path.open("a") as stream:
            stream.write("1,2\n")
        assert settling.tick() == []
    assert [settling.tick() for _ in range(3)] == [[], ["rent"], []]
    assert settling.last()["bytes"] == 202


# -- what others report, and what is lost


def test_a_listing_that_fails_half_way(
    ticks: Ticks, root: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "rent" / "b.csv")
    real, cursor = os.scandir, ticks.cursor

    def scandir(path: str) -> object:
        if path.endswith("/rent"):
            raise OSError(5, "Input/output error", path)
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", scandir)
        with pytest.raises(StorageError, match=r"failed at .*/rent: Input/output error; nothing"):
            ticks.tick()
    assert ticks.cursor == cursor
    assert [ticks.tick(), ticks.tick()] == [["rent"], []]


# -- roots, and cost


def test_one_sensor_per_root(make: Make, tmp_path: Path) -> None:
    bucket = f"memory://{uuid4().hex}"
    specs = [
        model("below"),
        model("absolute", f"{tmp_path}/storage/absolute"),
        model("url", f"file://{tmp_path}/storage/url"),
        model("elsewhere", f"{tmp_path}/else where"),
        model("same", f"file://{tmp_path}/else where"),
        model("blob", f"{bucket}/blob"),
    ]
    for name in ("storage/below", "storage/absolute", "storage/url", "else where"):
        put(tmp_path / name / "a.csv")
    put(UPath(bucket) / "blob" / "a.csv")
    ticks = make(*specs)
    own, elsewhere, blob = ticks.sensors
    assert own == "data_sensor"
    assert "else_where" in elsewhere
    assert elsewhere.startswith("data_sensor_")
    assert "_blob_" in blob
    again = data_sensors(specs, ticks.storage, dg.DefaultSensorStatus.RUNNING)
    assert {sensor.name for sensor in again} == set(ticks.sensors)
    assert {sensor.default_status for sensor in again} == {dg.DefaultSensorStatus.RUNNING}
    dg.Definitions(sensors=again)  # their names are valid, and differ
    for name, models in (
        (own, ["below", "absolute", "url"]),
        (elsewhere, ["elsewhere", "same"]),
        (blob, ["blob"]),
    ):
        ticks.cursor = None
        assert ticks.tick(name=name) == models
        assert ticks.tick(name=name) == []
    put(UPath(bucket) / "blob" / "a.csv", "y\n")
    assert ticks.tick(name=blob) == ["blob"]


def test_a_url_of_a_kind_that_is_not_known_costs_its_model_alone(make: Make, root: UPath) -> None:
    put(root / "rent" / "a.csv")
    ticks = make(model(), model("odd", "gopher://example.org/odd"))
    assert ticks.tick() == ["rent"]
    (odd,) = set(ticks.sensors) - {"data_sensor"}
    with pytest.raises(StorageError, match=r"gopher.*correct data\.location"):
        ticks.tick(name=odd)


def test_many_objects_and_models_are_one_listing(
    make: Make, root: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [model(f"m{number}", settle=5) for number in range(20)]
    for spec in specs:
        folder = root / spec.name
        folder.mkdir(parents=True)
        for number in range(1000):
            (folder / f"{number}.csv").touch()
    listed: list[str] = []
    real = os.scandir

    def scandir(path: str) -> object:
        listed.append(path)
        return real(path)

    ticks = make(*specs)
    assert ticks.tick() == []
    assert len(ticks.tick()) == 20
    assert ticks.said.startswith(f"20000 objects below {root}; changed and reported: m0, m1")
    assert ticks.said.endswith("m9 and 10 more")
    monkeypatch.setattr(os, "scandir", scandir)
    assert ticks.tick() == []
    assert sorted(listed) == sorted([str(root), *(f"{root}/{s.name}" for s in specs)])
    assert len(ticks.cursor or "") < 300 * len(specs)


def test_how_long_files_settle_is_no_part_of_the_contract() -> None:
    assert model(settle=1).contract_digest == model(settle=2).contract_digest
    with pytest.raises(SpecError, match=r"data\.settle_seconds: .*greater than or equal to 0"):
        model(settle=-1)
