"""Since when an alarm goes on, over the reports that were kept."""

import datetime as dt
from pathlib import Path

import pytest

from mlops_assets.monitoring.report import Report, Status
from mlops_assets.watch import SERIES, Reports, begun, with_since
from resources.documents import FolderDocuments
from tests.test_decision import report

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Kept:
    """Reports of one hour after the other."""

    def __init__(self, folder: Path) -> None:
        self.reports = Reports(FolderDocuments(root=str(folder)), "rent", "production")
        self.hours = 0

    def add(self, drift: Status, version: int = 1) -> dt.datetime | None:
        """One report more; since when its drift goes on."""
        time = START + dt.timedelta(hours=self.hours)
        self.hours += 1
        found = report(drift).model_copy(update={"time": time, "version": version})
        earlier = self.reports.before(time)
        return begun(self.reports.add(with_since(found, earlier)), earlier, "drift")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_an_alarm_goes_on_since_its_first_report_however_many_follow(kept: Kept) -> None:
    assert {kept.add("alarm") for _ in range(SERIES + 5)} == {START}


@pytest.mark.parametrize("unjudged", ["too_few_rows", "unknown"])
def test_a_window_that_nobody_could_judge_ends_no_alarm(kept: Kept, unjudged: Status) -> None:
    assert kept.add(unjudged) is None
    begins = START + dt.timedelta(hours=1)
    order: tuple[Status, ...] = ("alarm", unjudged, unjudged, "alarm")
    assert {kept.add(status) for status in order} == {begins}


def test_a_good_window_and_another_version_end_it(kept: Kept) -> None:
    assert kept.add("alarm") == START
    assert kept.add("ok") is None
    assert kept.add("alarm") == START + dt.timedelta(hours=2)
    assert kept.add("alarm", version=2) == START + dt.timedelta(hours=3)


def test_an_alarm_of_reports_that_do_not_say_since_when_goes_on(kept: Kept) -> None:
    for hour in range(2):
        time = START + dt.timedelta(hours=hour)
        text = report("alarm").model_copy(update={"time": time}).model_dump_json(exclude={"since"})
        kept.reports.add(Report.model_validate_json(text))
    kept.hours = 2
    assert kept.add("alarm") == START
