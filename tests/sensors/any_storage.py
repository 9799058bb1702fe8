"""The data sensor over any storage: what its tests and those of blob storage have in common.

Whoever imports all of it has fixtures ``root``, a folder that is not there yet, and ``storage``,
which lists it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from upath import UPath

from mlops_assets.assets.sources import RAW_DATA, report, seen
from mlops_assets.sensors.data import RECHECK_SECONDS, data_sensors
from mlops_assets.spec import ModelSpec, parse_model
from resources.storage import Storage, fingerprint
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

    def __init__(self, instance: dg.DagsterInstance, storage: Storage, *specs: ModelSpec) -> None:
        self.instance = instance
        self.storage = storage
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


#: Sensors of some models, over the storage of the test.
Make = Callable[..., Ticks]


def put(path: Path | UPath, text: str = "x\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))


@pytest.fixture
def many() -> int:
    """So many files are many."""
    return 500


@pytest.fixture
def make(instance: dg.DagsterInstance, storage: Storage) -> Make:
    return lambda *specs: Ticks(instance, storage, *specs)


@pytest.fixture
def ticks(make: Make, root: UPath) -> Ticks:
    """The model ``rent`` with one file, reported."""
    put(root / "rent" / "a.csv")
    found = make(model())
    assert found.tick() == ["rent"]
    return found


@pytest.fixture
def settling(make: Make, root: UPath) -> Ticks:
    """As ``ticks``, but files must lie still for 8 seconds."""
    put(root / "rent" / "a.csv")
    found = make(model(settle=8))
    assert [found.tick() for _ in range(3)] == [[], [], ["rent"]]
    return found


def test_what_is_there_is_reported_once(ticks: Ticks, root: UPath) -> None:
    files = ticks.storage.files("rent", ".csv")
    assert ticks.version() == fingerprint(files)
    last = ticks.last()
    assert (last["location"], last["files"], last["bytes"]) == ("rent", 1, 2)
    assert str(last["newest"]).endswith("+00:00")
    assert ticks.said == f"1 objects below {root}; changed and reported: rent"
    assert [ticks.tick() for _ in range(30)] == [[]] * 30
    assert ticks.said == f"1 objects below {root}; unchanged: rent"


CHANGES: dict[str, Callable[[UPath], object]] = {
    "added": lambda folder: put(folder / "b.csv"),
    "added below": lambda folder: put(folder / "deep" / "b.csv"),
    "replaced by one of the same size": lambda folder: put(folder / "a.csv", "y\n"),
    "renamed": lambda folder: (folder / "a.csv").rename(folder / "b.csv"),
    "empty": lambda folder: put(folder / "b.csv", ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_one_report(ticks: Ticks, root: UPath, change: str) -> None:
    CHANGES[change](root / "rent")
    assert [ticks.tick() for _ in range(3)] == [["rent"], [], []]
    assert ticks.version() == fingerprint(ticks.storage.files("rent", ".csv"))


def test_a_removed_file_and_its_return(ticks: Ticks, root: UPath) -> None:
    first = ticks.version()
    put(root / "rent" / "b.csv")
    assert ticks.tick() == ["rent"]
    (root / "rent" / "b.csv").unlink()
    assert ticks.tick() == ["rent"]
    assert ticks.version() == first


def test_what_does_not_count(ticks: Ticks, root: UPath) -> None:
    put(root / "rent" / ".b.csv")
    put(root / "rent" / ".parts" / "b.csv")
    put(root / "rent" / "b.csv.part")
    put(root / "rental" / "b.csv")
    put(root / "b.csv")
    assert ticks.tick() == []
    # That all are gone is no state to train on.
    (root / "rent" / "a.csv").unlink()
    assert ticks.tick() == []
    assert "without a file: rent" in ticks.said


def test_no_folder_yet(make: Make, root: UPath) -> None:
    ticks = make(model())
    assert ticks.tick() == []
    assert ticks.said.startswith(f"no folder {root}; ")
    assert ticks.said.endswith("; no data yet of: rent")
    put(root / "rent" / "a.csv")
    assert ticks.tick() == ["rent"]


def test_only_the_models_concerned(make: Make, root: UPath) -> None:
    specs = [model("one"), model("two"), model("three", "two"), model("four", "two/four")]
    specs += [model("five", "two", file_format="parquet"), model("all", ".")]
    for name in ("one/a.csv", "two/a.csv", "two/four/a.csv", "two/a.parquet"):
        put(root / name)
    ticks = make(*specs)
    assert ticks.tick() == ["one", "two", "three", "four", "five", "all"]
    put(root / "two" / "b.csv")
    assert ticks.tick() == ["two", "three", "all"]
    put(root / "two" / "b.parquet")
    assert ticks.tick() == ["five"]
    put(root / "two" / "four" / "b.csv")
    assert ticks.tick() == ["two", "three", "four", "all"]


def test_one_upload_of_many_files_is_one_report(settling: Ticks, root: UPath, many: int) -> None:
    for number in range(many):
        put(root / "rent" / f"{number:03}.csv", rows(3, start=number))
        if number % 10 == 0:
            assert settling.tick() == []
            assert "settling: rent (8.0 s to go)" in settling.said
    assert settling.tick() == []
    assert settling.tick() == []
    assert "settling: rent (3.0 s to go)" in settling.said
    assert [settling.tick() for _ in range(4)] == [["rent"], [], [], []]
    assert settling.last()["files"] == many + 1


def test_a_change_that_is_taken_back_is_none(settling: Ticks, root: UPath) -> None:
    put(root / "rent" / "b.csv")
    assert settling.tick() == []
    (root / "rent" / "b.csv").unlink()
    assert [settling.tick() for _ in range(5)] == [[]] * 5
    assert "unchanged: rent" in settling.said


def test_each_model_settles_for_itself(make: Make, root: UPath) -> None:
    ticks = make(model("slow", settle=100), model("quick", settle=5))
    put(root / "slow" / "a.csv")
    put(root / "quick" / "a.csv")
    assert ticks.tick() == []
    assert ticks.tick() == ["quick"]
    assert [ticks.tick() for _ in range(19)][-2:] == [[], ["slow"]]


def test_a_clock_that_is_set_back(settling: Ticks, root: UPath) -> None:
    put(root / "rent" / "b.csv")
    assert settling.tick() == []
    assert settling.tick(-100_000) == []
    assert [settling.tick(), settling.tick()] == [[], ["rent"]]


def test_what_a_run_reported_is_not_reported_again(ticks: Ticks, root: UPath) -> None:
    put(root / "rent" / "b.csv")
    ticks.run_reads(fingerprint(ticks.storage.files("rent", ".csv")))
    assert [ticks.tick() for _ in range(20)] == [[]] * 20


def test_a_state_that_came_and_went_between_two_ticks(ticks: Ticks) -> None:
    """Only a run saw it, and its report is the last: what lies there must be released again."""
    first = ticks.version()
    ticks.run_reads("what lay there for a second")
    made = [ticks.tick() for _ in range(2 + int(RECHECK_SECONDS) // 5)]
    assert [reported for reported in made if reported] == [["rent"]]
    assert ticks.version() == first


def test_runs_that_read_elsewhere_start_no_endless_to_and_fro(ticks: Ticks, root: UPath) -> None:
    """The model.yaml of the commit names another location than the one loaded here."""
    reported, told = 0, False
    for _ in range(100):
        ticks.run_reads("the other location")
        reported += len(ticks.tick())
        told |= "read elsewhere by runs, reload the code location: rent" in ticks.said
    assert reported == 1
    assert told
    put(root / "rent" / "b.csv")
    assert ticks.tick() == ["rent"]


@pytest.mark.parametrize("cursor", ["", "{", "[]", '{"checked": NaN}', '{"models": {"rent": 1}}'])
def test_a_cursor_that_is_lost_or_garbage(ticks: Ticks, root: UPath, cursor: str) -> None:
    ticks.cursor = cursor
    assert ticks.tick() == []
    put(root / "rent" / "b.csv")
    ticks.cursor = cursor
    assert [ticks.tick(), ticks.tick()] == [["rent"], []]


def test_a_report_that_was_made_when_the_cursor_was_not_stored(ticks: Ticks, root: UPath) -> None:
    before = ticks.cursor
    put(root / "rent" / "b.csv")
    assert ticks.tick() == ["rent"]
    ticks.cursor = before
    assert ticks.tick() == []
