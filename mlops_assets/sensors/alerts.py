"""The sensor that tells people what went wrong: failed runs, closed gates, failing sensors."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, ValidationError

from mlops_assets.sensors import INTERVAL_SECONDS
from mlops_assets.sensors.outbox import Outbox
from mlops_assets.sensors.run_alerts import ENDED, OVERLAP, Look, since_epoch
from mlops_assets.sensors.tick_alerts import Ticks
from resources.alerts import Alert, Alerts

NAME = "alert_sensor"


class Position(BaseModel):
    """How far the sensor has come; its cursor. Moments are in seconds since 1970."""

    #: When watching began.
    start: float
    #: Of the run that changed last, of those that were looked at.
    updated: float
    #: Runs that ended shortly before, and need not be looked at again -> when they changed last.
    read: dict[str, float] = {}
    #: Sensor -> when its last tick that was looked at began.
    ticks: dict[str, float] = {}


def alert_sensor(
    alerts: Alerts,
    folder: Path,
    watched: Sequence[str],
    status: dg.DefaultSensorStatus,
    page: str | None = None,
) -> dg.SensorDefinition:
    """Make the sensor.

    Args:
        alerts: where messages go.
        folder: keeps what waits and what was sent; a message is never sent twice.
        watched: environments whose gates and checks alert.
        status: whether it runs without having been switched on.
        page: address of Dagster's page, for links to runs.
    """
    outbox = Outbox(folder)

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=status,
        description="Tells of failed runs, closed gates, failed checks of endpoints and failing "
        "sensors: one message each, in the log, and to the webhook and by e-mail if configured.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before = _position(context)
        if before is None:
            now = time.time()
            after, new, seen = Position(start=now, updated=now), 0, "watches from now on"
        else:
            look = Look(context.instance, watched, page)
            origin = context.code_location_origin
            location = origin.location_name if origin else None
            ticks = Ticks(context.instance, folder / "failing", NAME, location)
            after, new, seen = _look(look, ticks, before, outbox.put, context.log.info)
        delivery = outbox.send(alerts, context.log.info)
        words = [seen, f"{new} new alerts" if new else "nothing new"]
        words += [f"sent: {'; '.join(delivery.sent)}"] if delivery.sent else []
        words += [f"{delivery.left} wait for the next tick"] if delivery.left else []
        return dg.SensorResult(skip_reason=", ".join(words), cursor=after.model_dump_json())

    return sensor


def _position(context: dg.SensorEvaluationContext) -> Position | None:
    try:
        return Position.model_validate_json(context.cursor) if context.cursor else None
    except ValidationError:
        context.log.warning("the cursor is not one of this sensor; starts anew")
        return None


def _look(
    look: Look,
    ticks: Ticks,
    before: Position,
    put: Callable[[Alert], bool],
    log: Callable[[str], object],
) -> tuple[Position, int, str]:
    """Collect what is new; returns how far it came, how many alerts are new, and what it saw."""
    new = 0

    def count(alert: Alert) -> None:
        nonlocal new
        if put(alert):
            new += 1
            log(f"found: {alert.title}")

    records = look.runs(since_epoch(before.updated), before.read)
    for record in records:
        for alert in look.alerts(record, before.start):
            count(alert)
    positions = ticks.read(before.start, before.ticks, count)
    ended = {
        r.dagster_run.run_id: r.update_timestamp.timestamp()
        for r in records
        if r.dagster_run.status in ENDED
    }
    updated = max([before.updated, *ended.values()])
    recent = updated - OVERLAP.total_seconds()
    read = {run: at for run, at in {**before.read, **ended}.items() if at >= recent}
    after = Position(start=before.start, updated=updated, read=read, ticks=positions)
    return after, new, f"looked at {len(records)} runs and {len(positions)} sensors"
