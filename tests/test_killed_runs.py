"""Runs killed with SIGKILL at every kind of step: the old version serves, the next run goes on."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg
import psutil
import pytest

from mlops_assets.assets.registered_model import GATES_ATTEMPT
from mlops_assets.runs import PROCESS_TAG, fail_dead_runs
from mlops_assets.wiring import build_resources
from resources.endpoints.base import EndpointError, Request
from resources.environment import checkout
from tests.conftest import CHAIN, Platform
from tests.repository import SAMPLES, TRAIN_PY, rows

#: In the order in which a release passes them, so that each run goes beyond the last one's end.
STEPS = (
    "before rename /artifacts/snapshots/",
    "after rename /artifacts/snapshots/",
    "after start .*training.runner",
    "after rename /artifacts/trained/",
    "after replace /artifacts/scratch/.*/bundle/manifest.json",
    "after link /registry/rent/digests/2",
    "after rename /registry/rent/versions/2",
    "after link /registry/rent/records/releases/",
    "after link /registry/rent/records/verifications/",
    "before replace /endpoints/staging/rent/generation.json",
    "after replace /endpoints/staging/rent/generation.json",
    "before link /registry/rent/records/deployments/",
    "after replace /endpoints/production/rent/generation.json",
)
FLAT = json.loads(SAMPLES)[0]["request"]


def run(platform: Platform, step: str, *options: str) -> subprocess.CompletedProcess[str]:
    """One run of the chain in a process of its own, killed at a step."""
    arguments = [str(platform.repository.path), str(platform.profile.home), step, *options]
    return subprocess.run(
        [sys.executable, "-m", "tests.killed_run", *arguments],
        cwd=checkout(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def asked_all_the_time(platform: Platform) -> Iterator[dict[str, set[object]]]:
    """Ask both endpoints without a pause; what they answered, per environment."""
    answers: dict[str, set[object]] = {"staging": set(), "production": set()}
    ending = threading.Event()

    def ask() -> None:
        while not ending.is_set():
            for environment, found in answers.items():
                try:
                    answer = platform.serving.ask("rent", environment, Request.of(FLAT))
                    version = answer.headers.get("x-mlops-version")
                    found.add(version if answer.status == 200 else (answer.status, answer.body))
                except EndpointError as error:
                    found.add(str(error))
            time.sleep(0.1)

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield answers
    finally:
        ending.set()
        client.join()


@pytest.mark.long
def test_killed_at_every_kind_of_step(released: Platform) -> None:
    platform = released
    assert platform.materialize(*CHAIN[3:]), platform.failures
    platform.data(rows(200, start=200, noise=10.0), "more.csv")
    platform.repository.train_py(TRAIN_PY + "\n# the next version\n")
    with asked_all_the_time(platform) as answers:
        for step in STEPS:
            killed = run(platform, step)
            assert killed.returncode == -9, (step, killed.stdout, killed.stderr[-2000:])
            versions = platform.registry.versions("rent")
            assert len(versions) <= 2
            assert [v.mismatched() for v in versions] == [[] for _ in versions]
            assert platform.serves("production") == 1 or "production/rent/generation" in step
        assert answers["production"] == {"1"} or answers["production"] == {"1", "2"}
        done = run(platform, "")
        assert done.returncode == 0, done.stderr[-3000:]
        assert platform.serves("staging") == platform.serves("production") == 2
    assert answers == {"staging": {"1", "2"}, "production": {"1", "2"}}
    assert len(platform.registry.versions("rent")) == 2
    assert [r["release"] for r in platform.registry.records("rent", "releases")] == [1, 2]
    served = platform.registry.records("rent", "deployments")
    assert [(r["environment"], r["version"]) for r in served] == [
        ("staging", 1),
        ("production", 1),
        ("staging", 2),
        ("production", 2),
    ]
    assert list((platform.profile.home / "artifacts" / "scratch").iterdir()) == []


def test_the_training_process_ends_with_its_run(platform: Platform) -> None:
    platform.repository.train_py("import time\ndef build(params):\n    time.sleep(60)\n")
    killed = run(platform, "before replace /nowhere|after start .*training.runner")
    assert killed.returncode == -9
    request = str(platform.profile.home)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = [p for p in psutil.process_iter(["cmdline"]) if _trains(p.info["cmdline"], request)]
        if not left:
            break
        time.sleep(0.1)
    assert left == []


def _trains(arguments: list[str] | None, home: str) -> bool:
    command = " ".join(arguments or [])
    return "training.runner" in command and home in command


@contextmanager
def children_killed(platform: Platform) -> Iterator[list[int]]:
    """Kill every training process of this process's runs; their ids."""
    killed: list[int] = []
    ending = threading.Event()

    def hunt() -> None:
        while not ending.wait(0.02):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if _trains(child.cmdline(), str(platform.profile.home)):
                        child.kill()
                        killed.append(child.pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield killed
    finally:
        ending.set()
        hunter.join()


def test_a_killed_training_process_is_no_verdict(released: Platform) -> None:
    """Neither on the code that it trained, nor on the versions that it compared."""
    platform = released
    assert platform.materialize(*CHAIN[3:]), platform.failures
    platform.repository.train_py(TRAIN_PY + "\n# the next version\n")
    attempts = build_resources(platform.profile)["attempts"]
    with children_killed(platform) as killed:
        assert not platform.materialize(*CHAIN[:3])
    assert killed
    assert "the training process was ended by SIGKILL" in platform.failures
    assert attempts.last(dg.AssetKey(["rent", "trained_model"])).outcome == "started"
    assert platform.materialize(*CHAIN[:3]), platform.failures
    for record in (platform.profile.home / "registry/rent/records/comparisons").iterdir():
        record.unlink()
    with children_killed(platform):
        assert not platform.materialize("registered_model")
    assert platform.registry.records("rent", "comparisons") == []
    assert attempts.last(dg.AssetKey(["rent", GATES_ATTEMPT])).outcome == "started"
    assert platform.materialize("registered_model"), platform.failures
    assert platform.check("champion").passed


def test_a_dead_run_is_marked_failed(platform: Platform) -> None:
    folder = str(platform.profile.home / "dagster")
    assert (
        run(platform, "before rename /artifacts/snapshots/", "--instance", folder).returncode == -9
    )
    with dg.DagsterInstance.from_config(folder) as instance:
        (dead,) = instance.get_runs()
        assert dead.status == dg.DagsterRunStatus.STARTED
        assert PROCESS_TAG in dead.tags
        assert fail_dead_runs(instance) == [dead.run_id]
        (dead,) = instance.get_runs()
        assert dead.status == dg.DagsterRunStatus.FAILURE
        assert fail_dead_runs(instance) == []
