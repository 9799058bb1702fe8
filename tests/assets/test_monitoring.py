"""The asset that watches an environment; its captured files are written by the tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from mlops_assets import retraining, revising
from mlops_assets.definitions import build_definitions
from mlops_assets.sensors.run_alerts import Look
from mlops_assets.wiring import build_resources
from resources.attempts import Attempts
from resources.captured import CAPTURED
from resources.environment import load_profile
from resources.tracker import TrackerError
from resources.trackers.markdown import MarkdownTracker
from tests.conftest import RELEASE
from tests.repository import WORSE_TRAIN_PY, make_repository, rows
from tests.watched import PRODUCTION, WATCH, Watched, table


def test_an_environment_that_captures_is_watched(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    assert not [
        key
        for key in build_definitions(load_profile({}, repository.path))
        .resolve_asset_graph()
        .get_all_asset_keys()
        if key.path[-1].endswith("_monitoring")
    ]
    repository.write("environments/local/production.json", PRODUCTION.replace("CAPTURE", ""))
    defs = build_definitions(load_profile({}, repository.path))
    graph = defs.resolve_asset_graph()
    key = dg.AssetKey(["rent", WATCH])
    assert graph.get(key).parent_keys == {dg.AssetKey(["rent", "production_endpoint"])}
    checks = {k.name: graph.get(k).blocking for k in graph.asset_check_keys if k.asset_key == key}
    assert checks == {"drift": False, "performance": False, "freshness": False}
    schedule = defs.get_repository_def().get_schedule_def("monitoring_schedule")
    assert schedule.cron_schedule == "0 * * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    (selected,) = defs.resolve_job_def("monitoring").asset_layer.executable_asset_keys
    assert selected == key


def test_watched_models_load_without_the_slow_packages(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    repository.write("environments/local/production.json", PRODUCTION.replace("CAPTURE", ""))
    script = (
        "import sys; from pathlib import Path\n"
        "from mlops_assets.definitions import build_definitions\n"
        "from resources.environment import load_profile\n"
        "defs = build_definitions(load_profile({}, Path(sys.argv[1])))\n"
        "assert defs.resolve_job_def('monitoring')\n"
        "slow = {'numpy', 'pyarrow', 'duckdb', 'pandas', 'scipy', 'matplotlib'}\n"
        "assert not slow & {name.partition('.')[0] for name in sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", script, str(repository.path)], check=True)


def test_where_nothing_serves_there_is_nothing_to_tell(watched: Watched) -> None:
    assert watched.look()
    assert not watched.platform.result.get_asset_materialization_events()
    assert not watched.reports()


def test_a_window_as_trained_is_no_alarm_and_its_report_is_kept_once(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(0)
    for _ in range(2):  # the same moment again is the same report
        assert watched.look(), watched.platform.failures
        checks = watched.platform.checks
        assert (checks["drift"], checks["performance"]) == (True, True)
    assert len(watched.reports()) == 1
    found = watched.platform.metadata(WATCH)
    assert (found["rows"], found["columns_moved"], found["labelled_rows"]) == (200, 0, 200)
    assert found["live_r2"] == 1.0
    watched.hours += 1
    assert watched.look()
    assert len(watched.reports()) == 2


def test_rows_before_the_window_are_not_in_it(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(0)
    watched.hours += 25
    assert watched.look()
    assert watched.platform.metadata(WATCH)["rows"] == 0


def test_an_endpoint_that_no_application_asks_any_more_is_told_of(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(0)
    told: list[tuple[bool, str]] = []
    for hours in (40, 10):
        watched.hours += hours  # and a rollout asks its samples
        watched.capture(table().drop_columns(["rent"]), [0.0] * 200, own=True)
        assert watched.look(), watched.platform.failures
        check = watched.platform.check("freshness")
        told.append((check.passed, str(check.description)))
    assert [passed for passed, _ in told] == [True, False]
    assert "last request 40.5 hours ago" in told[0][1]
    assert "last request 50.5 hours ago, monitoring.freshness_hours is 48" in told[1][1]


def test_an_application_is_found_behind_any_number_of_the_platforms_own_files(
    watched: Watched,
) -> None:
    watched.serves(1)
    watched.answered(0)
    for _ in range(22):  # one an hour, all before the window
        watched.hours += 1
        watched.capture(table(1).drop_columns(["rent"]), [0.0], own=True)
    watched.hours = 47
    assert watched.look(), watched.platform.failures
    check = watched.platform.check("freshness")
    assert check.passed
    assert "last request 47.5 hours ago" in str(check.description)


def test_an_endpoint_that_nobody_has_ever_asked_is_told_of(watched: Watched) -> None:
    watched.serves(1)  # since 28 days and 12 hours
    watched.capture(table().drop_columns(["rent"]), [0.0] * 200, own=True)
    assert watched.look(), watched.platform.failures
    check = watched.platform.check("freshness")
    assert not check.passed
    assert "no request in the 684.0 hours since it serves" in str(check.description)


def test_drift_alone_warns(watched: Watched) -> None:
    watched.serves(1)
    data = table().drop_columns(["rent"])
    place = data.column_names.index("area")
    moved = data.set_column(place, "area", pa.array(data.column("area").to_numpy() * 10))
    watched.capture(moved, data.column("area").to_numpy())
    assert watched.look(), watched.platform.failures
    check = watched.platform.check("drift")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "area" in str(check.description)
    assert "a warning" in watched.decision
    assert "data:image/png;base64," in watched.platform.metadata(WATCH)["pictures"]
    assert not watched.open_requests()
    assert not watched.records("retrainings")


def test_a_loss_that_no_new_data_explains_is_asked_for_once(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    for _ in range(3):
        assert watched.look(), watched.platform.failures
        watched.hours += 1
    check = watched.platform.check("performance")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert not watched.records("retrainings"), "there is nothing new to train on"
    (request,) = watched.open_requests()
    assert request.name == "rent-performance.md"
    assert len(watched.records("revisions")) == 1
    assert len(watched.alerts()) == 1


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_a_look_that_is_cut_short_asks_once_all_the_same(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    watched.serves(1)
    watched.answered(400)
    ask, opening = revising.ask, revising.opening

    def cut(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "before":
            patch.setattr(revising, "ask", cut)
        elif place == "between":  # the request is open, and nothing is on record
            patch.setattr(type(watched.platform.registry), "record", cut)
        else:  # on record, and nobody is told
            patch.setattr(revising, "opening", cut)
        assert not watched.look()
    assert (revising.ask, revising.opening) == (ask, opening)
    assert bool(watched.open_requests()) == (place != "before")
    assert not watched.alerts()
    assert watched.look(), watched.platform.failures
    assert len(watched.open_requests()) == len(watched.records("revisions")) == 1
    assert len(watched.reports()) == len(watched.alerts()) == 1


def test_a_tracker_that_is_down_hides_no_verdict(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(_: Any) -> Any:
        raise TrackerError("GitHub x/y: no answer")

    watched.serves(1)
    watched.answered(400)
    with monkeypatch.context() as patch:
        patch.setattr(MarkdownTracker, "open_requests", down)
        assert not watched.look()
    assert watched.platform.failures == "GitHub x/y: no answer"
    assert not watched.platform.check("performance").passed
    assert "asked again at the next look: GitHub x/y: no answer" in watched.decision
    assert not watched.open_requests()
    (record,) = watched.platform.instance.get_run_records(limit=1)
    told = [
        alert.key for alert in Look(watched.platform.instance, ["production"]).alerts(record, 0)
    ]
    assert any("/performance/" in key for key in told)
    watched.hours += 1
    assert watched.look(), watched.platform.failures
    assert len(watched.open_requests()) == len(watched.records("revisions")) == 1


def test_a_request_that_people_closed_is_not_asked_for_again(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    assert watched.look()
    (request,) = watched.open_requests()
    request.unlink()
    watched.hours += 1
    assert watched.look()
    assert "closed by people" in watched.decision
    assert not watched.open_requests()


def test_another_loss_than_the_one_that_people_closed_is_asked_for(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    assert watched.look()
    (request,) = watched.open_requests()
    request.unlink()
    watched.hours += 1
    watched.answered(0)
    assert watched.look()
    assert watched.platform.check("performance").passed
    watched.hours += 1
    watched.answered(400)
    assert watched.look(), watched.platform.failures
    assert watched.open_requests() == [request]


def test_predictions_that_are_excluded_later_are_hidden_in_older_files_too(
    watched: Watched,
) -> None:
    watched.serves(1)
    watched.answered(31337.125)
    watched.platform.repository.write(
        "environments/local/production.json",
        PRODUCTION.replace("CAPTURE", ', "exclude": ["rent"]'),
    )
    watched.platform.reload()
    assert watched.look(), watched.platform.failures
    shown = watched.reports()[-1].read_text("utf-8") + str(watched.platform.metadata(WATCH))
    assert "not_captured" in shown
    assert "31337" not in shown
    assert not watched.open_requests()


def test_a_loss_with_new_data_is_trained_on_first_and_once(
    watched_from_the_start: Watched,
) -> None:
    watched = watched_from_the_start
    watched.platform.settle()
    watched.serves(1)
    watched.answered(400)
    watched.platform.data(rows(60, start=1000), "more.csv")
    for _ in range(2):
        assert watched.look(), watched.platform.failures
        watched.hours += 1
    assert len(watched.records("retrainings")) == 1
    assert not watched.open_requests()
    # Nobody but monitoring has told of the new file: the sensor of the data did not look.
    made = watched.platform.tick()
    assert "dataset" in made[0], made
    assert watched.platform.settle() is not None
    assert [v.version for v in watched.platform.registry.versions("rent")] == [1, 2]
    assert watched.platform.tick() == []
    assert watched.look()
    assert len(watched.records("retrainings")) == 1


def test_a_retraining_that_its_gates_refuse_leads_to_a_revision(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    watched.platform.data(rows(60, start=1000), "more.csv")
    assert watched.look()
    watched.platform.repository.train_py(WORSE_TRAIN_PY)
    watched.platform.see()
    watched.platform.materialize(*RELEASE)
    watched.hours += 1
    assert watched.look(), watched.platform.failures
    assert "does not pass its gates" in watched.decision, watched.decision
    (request,) = watched.open_requests()
    assert request.name == "rent-gates.md"
    assert "quality" in request.read_text("utf-8")


def refused_retraining(watched: Watched) -> None:
    """A loss, and a retraining that was asked for and that its gates refuse."""
    watched.serves(1)
    watched.answered(400)
    watched.platform.repository.train_py(WORSE_TRAIN_PY)
    watched.platform.see()
    newer_file(watched)
    assert watched.look(), watched.platform.failures
    assert not watched.open_requests()
    watched.platform.materialize(*RELEASE)
    watched.hours += 1


def newer_file(watched: Watched) -> None:
    """A file that nothing was trained on."""
    start = 1000 * (watched.hours + 1)
    watched.platform.data(rows(60, start=start), f"more{watched.hours}.csv")


def test_files_that_change_between_any_two_looks_hide_no_loss_for_ever(watched: Watched) -> None:
    refused_retraining(watched)
    for asked in (2, 3):
        newer_file(watched)
        assert watched.look(), watched.platform.failures
        assert "does not pass its gates" in watched.decision
        assert len(watched.records("retrainings")) == asked, "newer data is trained on as before"
        assert [path.name for path in watched.open_requests()] == ["rent-gates.md"]
        watched.platform.materialize(*RELEASE)
        watched.hours += 1
    # What people close comes back when there is more to say, and newer files alone say nothing.
    newer_file(watched)
    assert watched.look(), watched.platform.failures
    (request,) = watched.open_requests()
    request.unlink()
    watched.hours += 1
    newer_file(watched)
    assert watched.look(), watched.platform.failures
    assert "closed by people" in watched.decision
    assert not watched.open_requests()


def test_a_refused_retraining_counts_while_the_next_one_is_under_way(watched: Watched) -> None:
    refused_retraining(watched)
    newer_file(watched)
    attempts: Attempts = build_resources(watched.platform.profile)["attempts"]
    attempts.request(dg.AssetKey(["rent", "dataset"]), {"raw_data": "newer", "monitoring": "1"})
    assert watched.look(), watched.platform.failures
    assert [path.name for path in watched.open_requests()] == ["rent-gates.md"]
    (made,), first = watched.records("revisions"), watched.records("retrainings")[0]
    assert made["data"] == first["data"], "what was found is about the files that it was on"


def test_a_failed_retraining_counts_when_the_files_have_changed_again(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    broken = watched.platform.data("flat,area\n1,2\n", "broken.csv")
    assert watched.look(), watched.platform.failures
    assert not watched.platform.materialize(*RELEASE)
    broken.unlink()
    newer_file(watched)
    watched.hours += 1
    assert watched.look(), watched.platform.failures
    assert "the retraining on newer data has failed" in watched.decision
    assert len(watched.records("retrainings")) == 2
    assert [path.name for path in watched.open_requests()] == ["rent-performance.md"]


def test_what_was_trained_before_the_first_ask_is_no_answer_to_it(watched: Watched) -> None:
    watched.serves(1)
    watched.platform.repository.train_py(WORSE_TRAIN_PY)
    newer_file(watched)
    watched.platform.materialize(*RELEASE)
    watched.answered(400)
    watched.hours += 1
    newer_file(watched)
    for _ in range(2):
        assert watched.look(), watched.platform.failures
        watched.hours += 1
        newer_file(watched)
    assert len(watched.records("retrainings")) == 2
    assert not watched.open_requests()


def test_a_newer_version_closes_the_request_when_labels_show_it(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    assert watched.look()
    watched.platform.data(rows(60, start=1000), "more.csv")
    assert watched.platform.materialize(*RELEASE), watched.platform.failures
    watched.serves(2)
    watched.hours += 1
    assert watched.look(), watched.platform.failures
    assert watched.open_requests(), "nobody has judged version 2 yet"
    watched.answered(0, version=2)
    watched.hours += 1
    assert watched.look(), watched.platform.failures
    assert "is closed" in watched.decision
    assert not watched.open_requests()
    (closed,) = (watched.home / "revisions/closed").glob("*.md")
    assert "Version **2**" in closed.read_text("utf-8")


def test_the_same_alarm_is_one_alert_however_long_it_goes_on(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    keys: list[set[str]] = []
    for _ in range(2):
        assert watched.look()
        watched.hours += 1
        instance = watched.platform.instance
        (record,) = instance.get_run_records(limit=1)
        alerts = Look(instance, ["production"]).alerts(record, 0)
        keys.append({a.key for a in alerts if "/performance/" in a.key})
    assert len(keys[0]) == 1
    assert keys[0] == keys[1]


def test_an_ask_is_worked_on_once(
    watched_from_the_start: Watched,
) -> None:
    watched = watched_from_the_start
    watched.platform.settle()
    version = watched.platform.registry.version("rent", 1)
    numbers = {
        retraining.ask(watched.platform.registry, version, "production", "f", "r")
        for _ in range(2)
    }  # fmt: skip
    assert len(numbers) == 1
    assert len(watched.platform.settle()) >= 1
    assert watched.platform.tick() == []
    assert build_resources(watched.platform.profile)["registry"].versions("rent")[-1].version == 1


def test_a_column_that_is_excluded_later_is_hidden_in_older_files_too(watched: Watched) -> None:
    watched.serves(1)
    data = table().drop_columns(["rent"])
    place = data.column_names.index("district")
    planted = data.set_column(place, "district", pa.array(["Planted"] * 200))
    watched.capture(planted, [0.0] * 200)
    assert watched.look()
    assert "Planted" in watched.reports()[-1].read_text("utf-8"), "the search finds it"
    policy = ', "exclude": ["district"]'
    watched.platform.repository.write(
        "environments/local/production.json", PRODUCTION.replace("CAPTURE", policy)
    )
    watched.platform.reload()
    watched.hours += 1
    watched.answered(400)
    watched.capture(planted, table().column("rent").to_numpy() + 400)
    assert watched.look(), watched.platform.failures
    (request,) = watched.open_requests()
    for path in (watched.reports()[-1], request):
        assert "Planted" not in path.read_text("utf-8")
    assert "Planted" not in str(watched.platform.metadata(WATCH))


def test_a_place_that_cannot_be_looked_at_is_told_in_a_sentence(watched: Watched) -> None:
    watched.serves(1)
    (digest,) = (watched.home / "artifacts/snapshots").iterdir()
    shutil.rmtree(digest)
    assert not watched.look()
    assert "is no longer in the artifact store; release the model again" in (
        watched.platform.failures
    )


def test_days_that_are_no_longer_kept_are_removed(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(0)
    assert watched.look()
    days = watched.home / CAPTURED / "production" / "rent"
    assert [day.name for day in days.iterdir()] == ["2026-03-01"]
    watched.platform.repository.write(
        "environments/local/production.json",
        PRODUCTION.replace("36500CAPTURE", "0"),
    )
    watched.platform.reload()
    watched.hours += 1
    assert watched.look()
    assert watched.platform.metadata(WATCH)["rows"] == 200, "looked at before"
    assert not list(days.iterdir())
