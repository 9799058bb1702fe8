"""A sensor that fails is told once until it recovers; under Dagster's own daemon."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

from mlops_assets.sensors.tick_alerts import Ticks
from resources.alerts import Alert
from tests.receivers import Chat, chat

CODE = """
from pathlib import Path
import dagster as dg
from mlops_assets.sensors.alerts import alert_sensor
from resources.alerts import Alerts, AlertSettings

FOLDER = Path({folder!r})

@dg.sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def git_sensor(context):
    problem = (FOLDER / "problem").read_text()
    if problem:
        raise RuntimeError(problem)
    return dg.SkipReason("nothing new")

alerts = Alerts(AlertSettings.from_variables({{"MLOPS_ALERT_WEBHOOK": {url!r}}}))
watcher = alert_sensor(alerts, FOLDER / "alerts", ("staging",), dg.DefaultSensorStatus.RUNNING)
defs = dg.Definitions(sensors=[git_sensor, watcher])
"""


class Daemon:
    """Dagster's daemon, its clock moved on by hand; a code server of its own."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance = instance
        self._folder = folder
        self._now = time.time() + 60
        self._stack = ExitStack()
        self.problem("")

    def start(self) -> None:
        target = PythonFileTarget(
            python_file=str(self._folder / "code.py"),
            attribute=None,
            working_directory=str(self._folder),
            location_name="mlops",
        )
        self._workspace: Any = self._stack.enter_context(
            create_test_daemon_workspace_context(target, self.instance)
        )

    def stop(self) -> None:
        self._stack.close()

    def problem(self, text: str) -> None:
        """What git_sensor fails with from now on; "" for nothing."""
        (self._folder / "problem").write_text(text)

    def rounds(self, count: int = 1) -> None:
        """Let git_sensor tick, and then alert_sensor."""
        for _ in range(2 * count):
            self._now += 10
            with freeze_time(self._now):
                list(execute_sensor_iteration(self._workspace, logging.getLogger(), None, None))

    def ticks(self, sensor: str) -> list[Any]:
        """The ticks of a sensor, newest first."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == sensor:
                origin, selector = state.instigator_origin_id, state.selector_id
                return list(self.instance.get_ticks(origin, selector))
        return []


@pytest.fixture
def hook() -> Iterator[Chat]:
    with chat() as found:
        yield found


@pytest.fixture
def daemon(tmp_path: Path, hook: Chat) -> Iterator[Daemon]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (tmp_path / "code.py").write_text(CODE.format(folder=str(tmp_path), url=hook.url))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        found = Daemon(instance, tmp_path)
        found.start()
        found.rounds()
        yield found
        found.stop()


def test_a_sensor_that_fails_is_told_once_until_it_recovers(daemon: Daemon, hook: Chat) -> None:
    assert daemon.ticks("git_sensor")[0].status == TickStatus.SKIPPED
    assert "watches from now on" in daemon.ticks("alert_sensor")[-1].skip_reason
    assert hook.posts == []
    for attempt in range(4):
        daemon.problem(f"cannot reach git.example.org: attempt {attempt}")
        daemon.rounds()
    (text,) = hook.texts
    assert text.startswith("*git_sensor fails*\nRuntimeError: cannot reach git.example.org")
    daemon.stop()  # all of it, and the failure lasts
    daemon.start()
    daemon.rounds(2)
    assert len(hook.posts) == 1
    daemon.problem("no permission")
    daemon.rounds(2)
    assert hook.texts[1:] == ["*git_sensor fails*\nRuntimeError: no permission"]
    daemon.problem("")
    daemon.rounds(2)
    assert hook.titles[2:] == ["git_sensor has recovered"]
    assert "It had failed since 20" in hook.texts[2]
    daemon.problem("no permission")
    daemon.rounds(2)
    assert hook.titles[3:] == ["git_sensor fails"], "another time is another message"
    assert "1 sensors, nothing new" in daemon.ticks("alert_sensor")[0].skip_reason


def test_a_tick_that_could_not_deliver_has_failed_and_delivers_later(
    daemon: Daemon, hook: Chat
) -> None:
    hook.answers = [(404, "no_service")] * 2
    daemon.problem("no permission")
    daemon.rounds()
    failed = daemon.ticks("alert_sensor")[0]
    assert failed.status == TickStatus.FAILURE
    assert "webhook 127.0.0.1: answers 404 no_service" in str(failed.error)
    assert "T0KEN" not in str(failed.error)
    daemon.problem("")
    daemon.rounds()
    # Both, in their order, and no word of alert_sensor's own failures.
    daemon.rounds(2)
    assert hook.titles == ["git_sensor fails", "git_sensor has recovered"]


def look(daemon: Daemon, told: list[Alert], positions: dict[str, float]) -> dict[str, float]:
    folder = daemon.instance.root_directory
    ticks = Ticks(daemon.instance, Path(folder) / "failing", "alert_sensor", "mlops")
    return ticks.read(0.0, positions, told.append)


def test_a_tick_that_was_killed_is_no_recovery(daemon: Daemon) -> None:
    daemon.problem("no permission")
    daemon.rounds()
    told: list[Alert] = []
    positions = look(daemon, told, {})
    killed = daemon.instance.create_tick(
        daemon.ticks("git_sensor")[0].tick_data.with_status(
            TickStatus.STARTED, error=None, timestamp=time.time() + 3600
        )
    )
    assert look(daemon, told, positions) == positions, "it may still go on"
    # What the daemon does with it when it is back.
    daemon.instance.update_tick(killed.with_status(TickStatus.SKIPPED))
    assert look(daemon, told, positions) != positions
    assert [alert.title for alert in told] == ["git_sensor fails"]


def test_looking_again_from_an_earlier_position_tells_nothing_new(daemon: Daemon) -> None:
    for problem in ("first", "", "second", "", "third"):
        daemon.problem(problem)
        daemon.rounds()
    told: list[Alert] = []
    look(daemon, told, {})
    titles = ["git_sensor fails", "git_sensor has recovered"] * 2 + ["git_sensor fails"]
    assert [alert.title for alert in told] == titles
    keys = {alert.key for alert in told}
    assert len(keys) == 5
    look(daemon, told, {})
    assert {alert.key for alert in told} == keys


def test_messages_that_always_differ_are_bounded(daemon: Daemon) -> None:
    for word in "abcdefgh":
        daemon.problem(f"problem {word}")
        daemon.rounds()
    told: list[Alert] = []
    look(daemon, told, {})
    assert len(told) == 5
