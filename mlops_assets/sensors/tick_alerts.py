"""What is worth an alert in other sensors: that one fails, and that it has recovered."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, TickStatus
from pydantic import BaseModel

from mlops_assets.files import write_atomic
from mlops_assets.sensors.run_alerts import error_text, since_epoch
from resources.alerts import Alert

#: Different messages that are told of one sensor until it recovers.
MOST_MESSAGES = 5

#: What differs each time in messages that say the same.
_VARYING = re.compile(r"\b[0-9a-f]{7,}\b|\d+")


class Episode(BaseModel):
    """A sensor that fails, from its first failed tick to the next good one."""

    #: Of the first failed tick, in seconds since 1970.
    began: float
    #: What was told, with numbers left out.
    messages: list[str] = []


@dataclass(frozen=True)
class Ticks:
    """Reads the ticks of the sensors beside this one."""

    instance: dg.DagsterInstance
    #: One document per sensor that fails.
    folder: Path
    #: The name of the sensor that looks, whose own failures are not told by itself.
    own: str
    #: The code location whose sensors are meant; None for all.
    location: str | None = None

    def read(
        self, start: float, positions: Mapping[str, float], put: Callable[[Alert], object]
    ) -> dict[str, float]:
        """Look at the ticks since the last time.

        Args:
            start: when watching began, for sensors that have no position yet.
            positions: sensor -> when its last tick that was looked at began.
            put: takes each alert; the same one may come again.

        Returns:
            The new positions.
        """
        found = dict(positions)
        if self.instance.schedule_storage is None:  # of an instance in memory: it has no daemon
            return found
        for state in self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
            name = state.instigator_name
            elsewhere = self.location not in (None, state.repository_selector.location_name)
            if name == self.own or elsewhere:
                continue
            for tick in self._new(state, found.get(name, start)):
                self._look(name, tick, put)
                found[name] = tick.timestamp
        return found

    def _new(self, state: InstigatorState, after: float) -> list[InstigatorTick]:
        """Ticks after a moment, oldest first, without the one that goes on now."""
        ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=after)
        ordered = sorted(ticks, key=lambda tick: tick.timestamp)
        if ordered and ordered[-1].status == TickStatus.STARTED:
            ordered.pop()
        return ordered

    def _look(self, name: str, tick: InstigatorTick, put: Callable[[Alert], object]) -> None:
        path = self.folder / f"{name}.json"
        known = Episode.model_validate_json(path.read_bytes()) if path.is_file() else None
        if known and tick.timestamp < known.began:
            return  # looked at before; the tick of this sensor that did so failed later on
        if tick.status == TickStatus.FAILURE:
            episode = known or Episode(began=tick.timestamp)
            reason = error_text(tick.error) or "no reason is on record; see the tick"
            message = _VARYING.sub("#", reason)
            if message in episode.messages or len(episode.messages) >= MOST_MESSAGES:
                return
            put(Alert(f"sensor/{name}/{episode.began}/{message}", f"{name} fails", reason))
            messages = [*episode.messages, message]
            write_atomic(path, Episode(began=episode.began, messages=messages).model_dump_json())
        elif known and _went_well(tick):
            began = since_epoch(known.began).strftime("%Y-%m-%d %H:%M:%S UTC")
            text = f"It had failed since {began}."
            put(Alert(f"recovered/{name}/{known.began}", f"{name} has recovered", text))
            path.unlink()


def _went_well(tick: InstigatorTick) -> bool:
    """Whether a tick came to its end; one whose process died is called skipped too."""
    ended = tick.status in (TickStatus.SUCCESS, TickStatus.SKIPPED)
    return ended and tick.consecutive_failure_count == 0
