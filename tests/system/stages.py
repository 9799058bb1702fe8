"""Where the time goes from a push to the endpoints, from Dagster's and the registry's records."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.assets.sources import RAW_DATA, TRAINING_CODE
from mlops_assets.judgement import DEPLOYMENTS
from tests.system.daemon import Daemon

Event = dg.DagsterEventType
#: Environment variable: a JSON file that takes the measured stages.
TIMES = "MLOPS_TIMES"


def stages(daemon: Daemon, version: int, begin: float) -> dict[str, float]:
    """Stage -> seconds after ``begin`` (Unix seconds), of the release of a version."""
    found = {
        "sensor's report": _reported(daemon, begin),
        **_run(daemon, "trained_model", "release run", begin),
        **_run(daemon, "production_endpoint", "deployment run", begin),
    }
    for record in daemon.registry.records("rent", DEPLOYMENTS):
        ended = datetime.fromisoformat(record["ended"]).timestamp()
        if record["version"] == version and ended > begin:
            found[f"{record['environment']} serves"] = ended
    return {name: round(at - begin, 2) for name, at in sorted(found.items(), key=lambda i: i[1])}


def beyond_training(measured: dict[str, float]) -> float:
    """Seconds until production served, without those of the training's step."""
    return measured["production serves"] - (measured["training ends"] - measured["training begins"])


def show(what: str, measured: dict[str, float]) -> None:
    """Print the stages, and keep them in the file that MLOPS_TIMES names."""
    print(f"\n{what}: seconds since, and of each stage")
    before = 0.0
    for name, at in measured.items():
        print(f"{at:8.2f} {at - before:8.2f}  {name}")
        before = at
    print(f"{beyond_training(measured):8.2f}           beyond the training itself")
    path = os.environ.get(TIMES)
    if path:
        file = Path(path)
        held: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**held, what: measured}, indent=2) + "\n")


def _reported(daemon: Daemon, begin: float) -> float:
    times: list[float] = []
    for source in (TRAINING_CODE, RAW_DATA):
        key = dg.AssetKey(["rent", source])
        records = daemon.instance.fetch_materializations(key, limit=20).records
        times += [r.timestamp for r in records if r.timestamp > begin]
    return min(times)


def _run(daemon: Daemon, asset: str, name: str, begin: float) -> dict[str, float]:
    """The stages of the last run after ``begin`` that made an asset."""
    for record in daemon.instance.get_run_records(limit=20):
        events = list(_events(daemon, record.dagster_run.run_id))
        made = any(_step(e) == asset and e.event_type == Event.STEP_SUCCESS for e, _ in events)
        created = record.create_timestamp.timestamp()
        if made and created > begin:
            assert record.start_time
            launched = max(at for e, at in events if e.event_type == Event.RUN_STARTING)
            found = {
                f"{name} created": created,
                f"{name} launched": launched,
                f"{name} begins": record.start_time,
            }
            if record.end_time:
                found[f"{name} ended"] = record.end_time
            return found | (_release(events) if asset == "trained_model" else {})
    raise AssertionError(f"no run made {asset}")


def _release(events: list[tuple[dg.DagsterEvent, float]]) -> dict[str, float]:
    def last(found: Callable[[dg.DagsterEvent], bool]) -> float:
        return max(at for event, at in events if found(event))

    def of(step: str, kind: Event) -> Callable[[dg.DagsterEvent], bool]:
        return lambda event: _step(event) == step and event.event_type == kind

    return {
        "training begins": last(of("trained_model", Event.STEP_START)),
        "training ends": last(of("trained_model", Event.STEP_SUCCESS)),
        "registered": last(of("registered_model", Event.STEP_SUCCESS)),
        "gates are asked": last(of("registered_model_checks", Event.STEP_SUCCESS)),
    }


def _step(event: dg.DagsterEvent) -> str:
    return (event.step_key or "").removeprefix("rent__")


def _events(daemon: Daemon, run_id: str) -> Iterator[tuple[dg.DagsterEvent, float]]:
    for entry in daemon.instance.all_logs(run_id):
        if entry.dagster_event:
            yield entry.dagster_event, entry.timestamp
