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
LOCATION = "tests.bench.location"


def run(module: str, *arguments: str, **variables: str) -> tuple[float, str]:
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, **variables}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
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
            seconds, out = run("tests.bench.chain", home, steps)
        finally:
            endpoints = LocalEndpoints(Path(home) / "endpoints")
            for model, environment in endpoints.known():
                endpoints.stop(model, environment)
        return seconds, json.loads(out.strip().splitlines()[-1])


#: How a code location is loaded: by Python alone, and by Dagster with all its indices.
LOADS = {
    "import of the code location": ("tests.bench.location",),
    "dagster definitions validate": ("dagster", "definitions", "validate", "-m", LOCATION),
}


def loading() -> None:
    """What a hundred models cost to load."""
    print(f"\n{'loading, median of ' + str(ROUNDS):40}  1 model  100 models  ratio")
    with tempfile.TemporaryDirectory() as folder:
        for models in (1, 100):
            repository = make_repository(Path(folder) / str(models))
            for number in range(models - 1):
                path = f"mlops_assets/models/rent{number}/model.yaml"
                repository.write(path, MODEL_YAML)
        for name, (module, *arguments) in LOADS.items():
            taken: dict[int, list[float]] = {1: [], 100: []}
            for _ in range(ROUNDS):
                for models, seconds in taken.items():
                    root = f"{folder}/{models}"
                    seconds.append(run(module, *arguments, BENCH_ROOT=root, DAGSTER_HOME=folder)[0])
            one, hundred = (statistics.median(seconds) for seconds in taken.values())
            print(f"{name:40}  {one:7.2f}  {hundred:10.2f}  {hundred / one:5.2f}")


def chains() -> None:
    """The chain of one model beside the same work without the platform."""
    data = str(checkout() / "samples" / "data" / "diabetes")
    taken: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {}
    for round_number in range(ROUNDS + 1):
        found: dict[str, float] = {}
        for name in ("bare", "minimal_dagster"):
            with tempfile.TemporaryDirectory() as out:
                found[name], _ = run(f"tests.bench.{name}", data, out)
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


def main() -> None:
    chains()
    loading()


if __name__ == "__main__":
    main()
