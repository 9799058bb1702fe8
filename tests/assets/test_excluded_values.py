"""No captured value of a column that the policy excludes appears anywhere: planted, then sought."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from mlops_assets.files import files_below
from resources.alerts import Alerts, AlertSettings
from tests.drift_story import Story, in_centimetres
from tests.world import SETTINGS

#: In an excluded column, and, so that the search is known to find, in one that is kept.
HIDDEN, SHOWN = "Planted-Atlantis", "Planted-unknown"
#: A number that no other column has; captured as 31337.75 and as nothing else.
NUMBER = "31337.75"


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Production, that keeps neither island nor body mass, and a database of runs on disk."""
    database = tmp_path / "home" / "dagster"
    database.mkdir(parents=True)
    (database / "dagster.yaml").write_text(SETTINGS)
    with dg.DagsterInstance.from_config(str(database)) as instance:
        found = Story(tmp_path, instance, exclude=["island", "body_mass_g"])
        yield found
    found.platform.serving.stop()


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file as text: Parquet and databases by their values, pictures by their bytes."""
    for path in files_below(folder):
        yield path, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            yield path, str(pq.read_table(path).to_pylist())
        if path.suffix == ".db":
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                yield path, "\n".join(database.iterdump())


def holding(folder: Path, value: str) -> set[str]:
    """Files that hold a value, also as base64."""
    whole = base64.b64encode(value.encode()).decode().rstrip("=")[:-1]
    return {
        path.relative_to(folder).as_posix()
        for path, text in texts(folder)
        if value in text or whole in text
    }


def test_a_planted_value_of_an_excluded_column_is_nowhere(
    story: Story, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    story.release()
    planted = in_centimetres(story.rows)
    planted = [
        {**row, "island": HIDDEN, "body_mass_g": NUMBER, "sex": SHOWN if n % 3 else row["sex"]}
        for n, row in enumerate(planted)
    ]
    story.replay(planted)
    story.label(planted)
    report = story.look()
    assert report.verdict("performance").status == "alarm"
    (request,) = story.requests()
    (record,) = story.platform.instance.get_run_records(limit=1)
    repository = story.platform.defs.get_repository_def()
    sensor = repository.get_sensor_def("alert_sensor")
    cursor = json.dumps({"start": 0.0, "updated": 0.0})
    told = sensor.evaluate_tick(
        dg.build_sensor_context(
            instance=story.platform.instance, repository_def=repository, cursor=cursor
        )
    )
    assert "new alerts" in str(told.skip_message), told.skip_message
    assert Alerts(AlertSettings()).destinations == ("log",)
    assert record.dagster_run.is_success

    # What is kept is found by the same search, in each kind of place.
    shown = holding(story.folder, SHOWN)
    assert any(name.endswith(".parquet") and "captured" in name for name in shown)
    assert any("home/monitoring/" in name for name in shown)
    assert any(name.startswith("home/dagster/") for name in shown)
    assert f"home/revisions/{request.name}" in shown
    assert any(name.startswith("home/alerts/") for name in shown)

    out, err = capfd.readouterr()
    # The number whole: its first digits alone turn up by chance in seconds and ids.
    for value in (HIDDEN, NUMBER, "Atlantis"):
        assert holding(story.folder, value) == set()
        assert value not in out + err + caplog.text
    assert "island" not in request.read_text("utf-8")
