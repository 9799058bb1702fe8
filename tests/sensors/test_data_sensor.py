import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from upath import UPath

from mlops_assets.assets.sources import RAW_DATA, report, seen
from mlops_assets.sensors.data import RECHECK_SECONDS, data_sensors
from mlops_assets.spec import ModelSpec, parse_model
from mlops_assets.strict import SpecError
from resources.storage import Storage, StorageError, fingerprint
from tests.repository import MODEL_YAML, rows

STOPPED = dg.DefaultSensorStatus.STOPPED


def model(
    name: str = "rent", location: str = "", settle: float = 0, file_format: str = "csv"
) -> ModelSpec:
    text = MODEL_YAML.replace("location: rent", f"location: '{location or name}'")
    text = text.replace("settle_seconds: 0", f"settle_seconds: {settle}\n  format: {file_format}")
    return parse_model(text, name, "model.yaml")


class Ticks:
    """A data sensor as the daemon evaluates it, with a clock that a test moves on."""

    def __init__(self, instance: dg.DagsterInstance, root: str | Path, *specs: ModelSpec) -> None:
        self.instance = instance
        self.storage = Storage(root=str(root))
        self.specs = specs
        self.time = 1_000_000.0
        self.cursor: str | None = None
        self.listed: list[str] = []
        sensors = data_sensors(specs, self.storage, STOPPED, lambda: self.time)
        self.sensors = {sensor.name: sensor for sensor in sensors}
        #: What the last tick said.
        self.said = ""

    def tick(self, seconds: float = 5, name: str = "data_sensor") -> list[str]:
        """The models reported in a tick ``seconds`` after the one before."""
        self.time += seconds
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = self.sensors[name].evaluate_tick(context)
        self.said = result.skip_message or ""
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        return [event.asset_key.path[0] for event in result.asset_events]

    def last(self, name: str = "rent") -> dict[str, object]:
        """The metadata of a model's last report."""
        return dict(seen(self.instance, [(name, RAW_DATA)])[name, RAW_DATA].metadata)

    def version(self, name: str = "rent") -> str:
        return seen(self.instance, [(name, RAW_DATA)])[name, RAW_DATA].version

    def run_reads(self, version: str) -> None:
        """A run reports what it read."""
        self.instance.report_runless_asset_event(report("rent", RAW_DATA, version, {}))


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))


@pytest.fixture
def ticks(instance: dg.DagsterInstance, tmp_path: Path) -> Ticks:
    """The model ``rent`` with one file, reported."""
    put(tmp_path / "rent" / "a.csv")
    found = Ticks(instance, tmp_path, model())
    assert found.tick() == ["rent"]
    return found


@pytest.fixture
def settling(instance: dg.DagsterInstance, tmp_path: Path) -> Ticks:
    """As ``ticks``, but files must lie still for 8 seconds."""
    put(tmp_path / "rent" / "a.csv")
    found = Ticks(instance, tmp_path, model(settle=8))
    assert [found.tick() for _ in range(3)] == [[], [], ["rent"]]
    return found


def put(path: Path | UPath, text: str = "x\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# -- what is a change


def test_what_is_there_is_reported_once(ticks: Ticks, tmp_path: Path) -> None:
    files = ticks.storage.files("rent", ".csv")
    assert ticks.version() == fingerprint(files)
    last = ticks.last()
    assert (last["location"], last["files"], last["bytes"]) == ("rent", 1, 2)
    assert str(last["newest"]).endswith("+00:00")
    assert ticks.said == f"1 objects below {tmp_path}; changed and reported: rent"
    assert [ticks.tick() for _ in range(30)] == [[]] * 30
    assert ticks.said == f"1 objects below {tmp_path}; unchanged: rent"


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda folder: put(folder / "b.csv"),
    "added below": lambda folder: put(folder / "deep" / "b.csv"),
    "replaced by one of the same size": lambda folder: put(folder / "a.csv", "y\n"),
    "touched": lambda folder: os.utime(folder / "a.csv", (1, 1)),
    "renamed": lambda folder: (folder / "a.csv").rename(folder / "b.csv"),
    "empty": lambda folder: put(folder / "b.csv", ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_one_report(ticks: Ticks, tmp_path: Path, change: str) -> None:
    CHANGES[change](tmp_path / "rent")
    assert [ticks.tick() for _ in range(3)] == [["rent"], [], []]
    assert ticks.version() == fingerprint(ticks.storage.files("rent", ".csv"))


def test_a_removed_file_and_its_return(ticks: Ticks, tmp_path: Path) -> None:
    first = ticks.version()
    put(tmp_path / "rent" / "b.csv")
    assert ticks.tick() == ["rent"]
    (tmp_path / "rent" / "b.csv").unlink()
    assert ticks.tick() == ["rent"]
    assert ticks.version() == first


def test_what_does_not_count(ticks: Ticks, tmp_path: Path) -> None:
    put(tmp_path / "rent" / ".b.csv")
    put(tmp_path / "rent" / ".parts" / "b.csv")
    put(tmp_path / "rent" / "b.csv.part")
    put(tmp_path / "rental" / "b.csv")
    put(tmp_path / "b.csv")
    assert ticks.tick() == []
    # Nor does a folder without files; that all are gone is no state to train on.
    (tmp_path / "rent" / "empty").mkdir()
    assert ticks.tick() == []
    (tmp_path / "rent" / "a.csv").unlink()
    assert ticks.tick() == []
    assert "without a file: rent" in ticks.said


def test_no_folder_yet(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    ticks = Ticks(instance, tmp_path / "storage", model())
    assert ticks.tick() == []
    assert ticks.said == f"no folder {tmp_path}/storage; create it; no data yet of: rent"
    put(tmp_path / "storage" / "rent" / "a.csv")
    assert ticks.tick() == ["rent"]


def test_only_the_models_concerned(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    specs = [model("one"), model("two"), model("three", "two"), model("four", "two/four")]
    specs += [model("five", "two", file_format="parquet"), model("all", ".")]
    for name in ("one/a.csv", "two/a.csv", "two/four/a.csv", "two/a.parquet"):
        put(tmp_path / name)
    ticks = Ticks(instance, tmp_path, *specs)
    assert ticks.tick() == ["one", "two", "three", "four", "five", "all"]
    put(tmp_path / "two" / "b.csv")
    assert ticks.tick() == ["two", "three", "all"]
    put(tmp_path / "two" / "b.parquet")
    assert ticks.tick() == ["five"]
    put(tmp_path / "two" / "four" / "b.csv")
    assert ticks.tick() == ["two", "three", "four", "all"]


# -- settling


def test_one_upload_of_many_files_is_one_report(settling: Ticks, tmp_path: Path) -> None:
    for number in range(500):
        put(tmp_path / "rent" / f"{number:03}.csv", rows(3, start=number))
        if number % 10 == 0:
            assert settling.tick() == []
            assert "settling: rent (8.0 s to go)" in settling.said
    assert settling.tick() == []
    assert settling.tick() == []
    assert "settling: rent (3.0 s to go)" in settling.said
    assert [settling.tick() for _ in range(4)] == [["rent"], [], [], []]
    assert settling.last()["files"] == 501


def test_a_file_that_grows_is_reported_when_it_is_whole(settling: Ticks, tmp_path: Path) -> None:
    path = tmp_path / "rent" / "b.csv"
    put(path, "")  # how most uploads begin
    assert settling.tick() == []
    for _ in range(50):
        with path.open("a") as stream:
            stream.write("1,2\n")
        assert settling.tick() == []
    assert [settling.tick() for _ in range(3)] == [[], ["rent"], []]
    assert settling.last()["bytes"] == 202


def test_a_change_that_is_taken_back_is_none(settling: Ticks, tmp_path: Path) -> None:
    put(tmp_path / "rent" / "b.csv")
    assert settling.tick() == []
    (tmp_path / "rent" / "b.csv").unlink()
    assert [settling.tick() for _ in range(5)] == [[]] * 5
    assert "unchanged: rent" in settling.said


def test_each_model_settles_for_itself(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    ticks = Ticks(instance, tmp_path, model("slow", settle=100), model("quick", settle=5))
    put(tmp_path / "slow" / "a.csv")
    put(tmp_path / "quick" / "a.csv")
    assert ticks.tick() == []
    assert ticks.tick() == ["quick"]
    assert [ticks.tick() for _ in range(19)][-2:] == [[], ["slow"]]


def test_a_clock_that_is_set_back(settling: Ticks, tmp_path: Path) -> None:
    put(tmp_path / "rent" / "b.csv")
    assert settling.tick() == []
    assert settling.tick(-100_000) == []
    assert [settling.tick(), settling.tick()] == [[], ["rent"]]


# -- what others report, and what is lost


def test_what_a_run_reported_is_not_reported_again(ticks: Ticks, tmp_path: Path) -> None:
    put(tmp_path / "rent" / "b.csv")
    ticks.run_reads(fingerprint(ticks.storage.files("rent", ".csv")))
    assert [ticks.tick() for _ in range(20)] == [[]] * 20


def test_a_state_that_came_and_went_between_two_ticks(ticks: Ticks) -> None:
    """Only a run saw it, and its report is the last: what lies there must be released again."""
    first = ticks.version()
    ticks.run_reads("what lay there for a second")
    made = [ticks.tick() for _ in range(2 + int(RECHECK_SECONDS) // 5)]
    assert [reported for reported in made if reported] == [["rent"]]
    assert ticks.version() == first


def test_runs_that_read_elsewhere_start_no_endless_to_and_fro(ticks: Ticks, tmp_path: Path) -> None:
    """The model.yaml of the commit names another location than the one loaded here."""
    reported, told = 0, False
    for _ in range(100):
        ticks.run_reads("the other location")
        reported += len(ticks.tick())
        told |= "read elsewhere by runs, reload the code location: rent" in ticks.said
    assert reported == 1
    assert told
    put(tmp_path / "rent" / "b.csv")
    assert ticks.tick() == ["rent"]


@pytest.mark.parametrize("cursor", ["", "{", "[]", '{"checked": NaN}', '{"models": {"rent": 1}}'])
def test_a_cursor_that_is_lost_or_garbage(ticks: Ticks, tmp_path: Path, cursor: str) -> None:
    ticks.cursor = cursor
    assert ticks.tick() == []
    put(tmp_path / "rent" / "b.csv")
    ticks.cursor = cursor
    assert [ticks.tick(), ticks.tick()] == [["rent"], []]


def test_a_report_that_was_made_when_the_cursor_was_not_stored(
    ticks: Ticks, tmp_path: Path
) -> None:
    before = ticks.cursor
    put(tmp_path / "rent" / "b.csv")
    assert ticks.tick() == ["rent"]
    ticks.cursor = before
    assert ticks.tick() == []


def test_a_listing_that_fails_half_way(
    ticks: Ticks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "rent" / "b.csv")
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


def test_one_sensor_per_root(instance: dg.DagsterInstance, tmp_path: Path) -> None:
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
    ticks = Ticks(instance, tmp_path / "storage", *specs)
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


def test_a_url_of_a_kind_that_is_not_known_costs_its_model_alone(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    put(tmp_path / "rent" / "a.csv")
    ticks = Ticks(instance, tmp_path, model(), model("odd", "gopher://example.org/odd"))
    assert ticks.tick() == ["rent"]
    (odd,) = set(ticks.sensors) - {"data_sensor"}
    with pytest.raises(StorageError, match=r"gopher.*correct data\.location"):
        ticks.tick(name=odd)


def test_many_objects_and_models_are_one_listing(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [model(f"m{number}", settle=5) for number in range(20)]
    for spec in specs:
        folder = tmp_path / spec.name
        folder.mkdir()
        for number in range(1000):
            (folder / f"{number}.csv").touch()
    listed: list[str] = []
    real = os.scandir

    def scandir(path: str) -> object:
        listed.append(path)
        return real(path)

    ticks = Ticks(instance, tmp_path, *specs)
    assert ticks.tick() == []
    assert len(ticks.tick()) == 20
    assert ticks.said.startswith(f"20000 objects below {tmp_path}; changed and reported: m0, m1")
    assert ticks.said.endswith("m9 and 10 more")
    monkeypatch.setattr(os, "scandir", scandir)
    assert ticks.tick() == []
    assert sorted(listed) == sorted([str(tmp_path), *(f"{tmp_path}/{s.name}" for s in specs)])
    assert len(ticks.cursor or "") < 300 * len(specs)


def test_how_long_files_settle_is_no_part_of_the_contract() -> None:
    assert model(settle=1).contract_digest == model(settle=2).contract_digest
    with pytest.raises(SpecError, match=r"data\.settle_seconds: .*greater than or equal to 0"):
        model(settle=-1)
