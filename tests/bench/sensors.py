"""`make bench-sensors`: what a tick of the sensors costs when nothing has changed.

Ticks as the daemon evaluates them, on real files, a real repository and Dagster's own database.
Listings and calls of git are counted by Python's audit events, whoever makes them.
"""

import gc
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.sensors.data import INTERVAL_SECONDS, data_sensors
from mlops_assets.sensors.git import git_sensor
from mlops_assets.spec import ModelSpec, parse_model
from resources.git import GitSource
from resources.storage import Storage
from tests.repository import MODEL_YAML, TRAIN_PY, make_repository

OBJECTS = (10, 10_000, 100_000)
MODELS = (1, 30, 100)
#: Repositories over which as many models are spread.
REPOSITORIES = ((1, 1), (30, 1), (100, 1), (100, 10))
STATUS = dg.DefaultSensorStatus.STOPPED
#: Ticks measured: two minutes at the sensors' interval, so that what they do once in a minute is
#: among them.
TICKS = 24

#: What was listed and which git commands were run, since it was last cleared.
calls: Counter[str] = Counter()


def count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.scandir":
        calls[f"list {arguments[0]}"] += 1
    elif event == "subprocess.Popen":
        words = list(arguments[1])
        calls["ls-remote" if "ls-remote" in words else f"process {words}"] += 1


@dataclass
class Cost:
    """Of one tick, over many."""

    #: Milliseconds; growth is told by the best, which other work on the machine disturbs least.
    best: float
    median: float
    worst: float


class Ticks:
    """A sensor, evaluated as the daemon does, with what it reports stored."""

    def __init__(self, instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> None:
        self.instance, self.sensor = instance, sensor
        self.cursor: str | None = None

    def tick(self) -> int:
        """Evaluate once; how many reports it made."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = self.sensor.evaluate_tick(context)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        return len(result.asset_events)

    def measure(self) -> Cost:
        """Of ticks in which nothing has changed."""
        taken: list[float] = []
        calls.clear()
        for _ in range(TICKS):
            started = time.perf_counter()
            made = self.tick()
            taken.append(1000 * (time.perf_counter() - started))
            if made:
                sys.exit(f"{made} reports, though nothing changed")
        return Cost(min(taken), statistics.median(taken), max(taken))


@contextmanager
def home() -> Iterator[tuple[Path, dg.DagsterInstance]]:
    """A folder, and an instance with its databases there."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DAGSTER_HOME"] = folder
        (Path(folder) / "dagster.yaml").touch()
        with dg.DagsterInstance.get() as instance:
            yield Path(folder), instance


def data_cost(objects: int, models: int) -> tuple[Cost, float, float]:
    """Cost of a tick, listings of the root and of all folders per tick."""
    with home() as (folder, instance):
        root = folder / "storage"
        specs: list[ModelSpec] = []
        for number in range(models):
            text = MODEL_YAML.replace("location: rent", f"location: m{number}")
            specs.append(parse_model(text, f"m{number}", "model.yaml"))
            (root / f"m{number}").mkdir(parents=True)
        for number in range(objects):
            (root / f"m{number % models}" / f"{number:06}.csv").touch()
        now = [time.time()]

        def clock() -> float:
            now[0] += INTERVAL_SECONDS
            return now[0]

        (sensor,) = data_sensors(specs, Storage(root=str(root)), STATUS, clock)
        ticks = Ticks(instance, sensor)
        if ticks.tick() != min(objects, models):
            sys.exit("the first tick must report every model that has files")
        cost = ticks.measure()
        listings = calls[f"list {root}"] / TICKS
        folders = sum(n for call, n in calls.items() if call.startswith(f"list {root}")) / TICKS
        shutil.rmtree(root)
    return cost, listings, folders


def data() -> None:
    print("data sensor, a tick with nothing changed")
    print(
        f"{'objects':>9} {'models':>7} {'ms, best':>9} {'median':>8} {'worst':>8} "
        f"{'µs/object':>10} {'listings':>9} {'folders':>8}"
    )
    found: dict[tuple[int, int], float] = {}
    for objects in OBJECTS:
        for models in MODELS:
            cost, listings, folders = data_cost(objects, models)
            found[objects, models] = cost.best
            print(
                f"{objects:9} {models:7} {cost.best:9.1f} {cost.median:8.1f} {cost.worst:8.1f} "
                f"{1000 * cost.best / objects:10.2f} {listings:9.2f} {folders:8.1f}",
                flush=True,
            )
    few, many = OBJECTS[-2:]
    for models in MODELS:
        ratio = found[many, models] / found[few, models]
        print(f"{few} -> {many} objects, {models} models: {ratio:.1f} times the time")
    for objects in OBJECTS:
        ratio = found[objects, MODELS[-1]] / found[objects, MODELS[0]]
        print(f"{MODELS[0]} -> {MODELS[-1]} models, {objects} objects: {ratio:.2f} times the time")


def git_cost(models: int, repositories: int) -> tuple[Cost, float, float]:
    """Cost of a tick, calls of ``git ls-remote`` and of git otherwise per tick."""
    with home() as (folder, instance):
        specs: list[ModelSpec] = []
        for place in range(repositories):
            repository = make_repository(folder / f"repository{place}")
            for number in range(place, models, repositories):
                text = f"source: {{repository: '{repository.path}'}}\n{MODEL_YAML}"
                repository.write(f"mlops_assets/models/m{number}/model.yaml", text)
                repository.write(f"mlops_assets/models/m{number}/train.py", TRAIN_PY)
                specs.append(parse_model(text, f"m{number}", "model.yaml"))
            repository.commit(f"{models} models")
        git = GitSource(checkout=str(folder / "repository0"), mirrors=str(folder / "git"))
        ticks = Ticks(instance, git_sensor(specs, git, STATUS))
        if ticks.tick() != models:
            sys.exit("the first tick must report every model")
        cost = ticks.measure()
        others = sum(n for call, n in calls.items() if call.startswith("process")) / TICKS
        return cost, calls["ls-remote"] / TICKS, others


def git() -> None:
    print("\ngit sensor, a tick with nothing changed")
    print(
        f"{'models':>7} {'repositories':>13} {'ms, best':>9} {'median':>8} {'worst':>8} "
        f"{'ls-remote':>10} {'other git':>10}"
    )
    found: dict[tuple[int, int], float] = {}
    for models, repositories in REPOSITORIES:
        cost, asked, others = git_cost(models, repositories)
        found[models, repositories] = cost.best
        print(
            f"{models:7} {repositories:13} {cost.best:9.1f} {cost.median:8.1f} {cost.worst:8.1f} "
            f"{asked:10.2f} {others:10.2f}",
            flush=True,
        )
    print(f"1 -> 100 models, 1 repository: {found[100, 1] / found[1, 1]:.2f} times the time")


def main() -> None:
    logging.disable(logging.INFO)
    # As in the process that loads the definitions, where sensors are evaluated.
    gc.set_threshold(100_000, 20, 20)
    gc.freeze()
    sys.addaudithook(count)
    data()
    git()


if __name__ == "__main__":
    main()
