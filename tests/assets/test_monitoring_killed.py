"""Looks at production killed with SIGKILL at every kind of step: nothing is asked for twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.repository import rows
from tests.test_killed_runs import run
from tests.watched import Watched

REPORT = "/monitoring/production/rent/"
#: In the order in which a look passes them, so that each run goes beyond the last one's end. The
#: first leaves an empty file that is no report yet, the second a whole one.
WRITTEN = (f"after open {REPORT}", f"before link {REPORT}", f"after link {REPORT}")
REVISED = (
    "after open /revisions/[^.]*.rent-performance.md",
    "before replace /revisions/rent-performance.md",
    "after replace /revisions/rent-performance.md",
    "before link /registry/rent/records/revisions/",
    "after link /registry/rent/records/revisions/",
    "before replace /alerts/waiting/",
    "after replace /alerts/waiting/",
)
RETRAINED = (
    "after open /registry/rent/records/retrainings/",
    "before link /registry/rent/records/retrainings/",
    "after link /registry/rent/records/retrainings/",
)


def killed(watched: Watched, step: str) -> None:
    """A look in a process of its own that ends there; what it left is whole, and there once."""
    found = run(watched.platform, step, "--look", watched.now.isoformat())
    assert found.returncode == -9, (step, found.stdout, found.stderr[-3000:])
    whole_and_once(watched)


def ends(watched: Watched) -> None:
    """A look in a process of its own that ends well."""
    found = run(watched.platform, "", "--look", watched.now.isoformat())
    assert found.returncode == 0, found.stderr[-3000:]
    whole_and_once(watched)


def whole_and_once(watched: Watched) -> None:
    """At most one report per moment and one of all that is asked for; each file is whole."""
    moments = [json.loads(p.read_bytes())["time"] for p in shown(watched, "monitoring", "json")]
    assert len(moments) == len(set(moments)) <= watched.hours + 1
    for text in shown(watched, "revisions", "md"):
        assert "<!-- mlops-revision " in text.read_text("utf-8").splitlines()[-1]
    for path in [*shown(watched, "registry/rent/records", "json"), *watched.alerts()]:
        assert json.loads(path.read_bytes())
    assert len(watched.open_requests()) <= 1
    assert len(watched.records("revisions")) <= 1
    assert len(watched.records("retrainings")) <= 1
    assert len(watched.alerts()) <= 1


def shown(watched: Watched, folder: str, ending: str) -> list[Path]:
    """The files that a reader takes for one; not those that are only being written."""
    found = (watched.home / folder).rglob(f"*.{ending}")
    return [path for path in found if not path.name.startswith(".")]


def test_a_look_that_is_killed_asks_for_one_revision(watched: Watched) -> None:
    watched.serves(1)
    watched.answered(400)
    for step in (*WRITTEN, *REVISED):
        killed(watched, step)
        assert bool(watched.reports()) == (step not in WRITTEN[:2]), step
        assert bool(watched.open_requests()) == (step in REVISED[2:]), step
    ends(watched)
    watched.hours += 1
    ends(watched)
    assert len(watched.reports()) == 2
    assert len(watched.open_requests()) == len(watched.records("revisions")) == 1
    assert len(watched.alerts()) == 1
    assert not watched.records("retrainings")
    assert list((watched.home / "artifacts/scratch").iterdir()) == []


@pytest.mark.long
def test_a_look_that_is_killed_asks_for_one_retraining_per_state_of_the_data(
    watched_from_the_start: Watched,
) -> None:
    watched = watched_from_the_start
    watched.platform.settle()
    watched.serves(1)
    watched.answered(400)
    watched.platform.data(rows(60, start=1000), "more.csv")
    for step in RETRAINED:
        killed(watched, step)
    ends(watched)
    watched.hours += 1
    ends(watched)
    assert len(watched.reports()) == 2
    (asked,) = watched.records("retrainings")
    watched.platform.data(rows(60, start=2000), "most.csv")
    watched.hours += 1
    found = run(watched.platform, RETRAINED[-1], "--look", watched.now.isoformat())
    assert found.returncode == -9, found.stderr[-3000:]
    assert watched.look(), watched.platform.failures
    again = watched.records("retrainings")
    assert again[0]["data"] == asked["data"]
    assert len({record["data"] for record in again}) == len(again) == 2
    assert not watched.open_requests()
