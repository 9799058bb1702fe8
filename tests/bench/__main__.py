"""`make bench`: what the chain costs beside a bare script and a minimal Dagster job.

Whole processes, wall time, one after the other in turn, so that a change of the machine's speed
meets all of them; the median of the rounds is compared.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resources.endpoints.local import LocalEndpoints
from resources.environment import checkout
from tests.repository import MODEL_YAML, make_repository

ROUNDS = 5


def run(module: str, *arguments: str) -> tuple[float, str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{module}", *arguments],
        cwd=checkout(),
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{module} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return seconds, done.stdout


def chain(steps: str) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory() as home:
        try:
            seconds, out = run("chain", home, steps)
        finally:
            endpoints = LocalEndpoints(Path(home) / "endpoints")
            for model, environment in endpoints.known():
                endpoints.stop(model, environment)
        return seconds, json.loads(out.strip().splitlines()[-1])


def loading() -> None:
    """What a hundred models cost to load, as `dagster definitions validate` does it."""
    with tempfile.TemporaryDirectory() as folder:
        seconds: dict[int, list[float]] = {1: [], 100: []}
        for models in seconds:
            repository = make_repository(Path(folder) / str(models))
            for number in range(models - 1):
                path = f"mlops_assets/models/rent{number}/model.yaml"
                repository.write(path, MODEL_YAML)
        for _ in range(ROUNDS):
            for models, taken in seconds.items():
                taken.append(run("load", f"{folder}/{models}")[0])
        one, hundred = (statistics.median(taken) for taken in seconds.values())
        print(f"\nloading 1 model {one:.2f} s, 100 models {hundred:.2f} s: {hundred / one:.2f}")


def main() -> None:
    loading()
    data = str(checkout() / "samples" / "data" / "diabetes")
    taken: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {}
    for round_number in range(ROUNDS + 1):
        found: dict[str, float] = {}
        for name in ("bare", "minimal_dagster"):
            with tempfile.TemporaryDirectory() as out:
                found[name], _ = run(name, data, out)
        found["release"], _ = chain("release")
        found["release + package + both endpoints"], steps = chain("all")
        if round_number == 0:
            continue  # the first one warms the disk's cache and writes byte code
        for name, seconds in found.items():
            taken.setdefault(name, []).append(seconds)
        for name, seconds in steps.items():
            stages.setdefault(name, []).append(seconds)
    minimal = statistics.median(taken["minimal_dagster"])
    print(f"{'whole process, median of ' + str(ROUNDS):40}  seconds  / minimal Dagster job")
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{name:40}  {median:7.2f}  {median / minimal:6.2f}")
    print("\nstages of the last:")
    total = sum(statistics.median(values) for values in stages.values())
    for name, values in stages.items():
        median = statistics.median(values)
        print(f"{name:40}  {median:7.2f}  {median / total:6.1%}")


if __name__ == "__main__":
    main()
