from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.definitions import build_definitions
from mlops_assets.files import write_atomic
from mlops_assets.sensors.automation import AutomationSensor
from mlops_assets.wiring import build_resources
from resources.environment import Profile, load_profile
from resources.registry import Registry
from resources.serving import Serving
from tests.repository import Repository, make_repository, rows

RELEASE = ("dataset", "trained_model", "registered_model")
CHAIN = (*RELEASE, "staging_endpoint", "production_endpoint")


@dataclass
class Platform:
    """A repository of models with state of its own, run in process."""

    repository: Repository
    profile: Profile
    instance: dg.DagsterInstance
    #: The last run, for what it left behind.
    result: dg.ExecuteInProcessResult = field(init=False)
    cursor: str | None = None

    @cached_property
    def defs(self) -> dg.Definitions:
        """The code location."""
        return build_definitions(self.profile)

    def data(self, text: str, name: str = "rents.csv") -> Path:
        """Put a file into the model's data location."""
        path = self.profile.home / "storage" / "rent" / name
        write_atomic(path, text)
        return path

    def materialize(
        self, *names: str, model: str = "rent", config: dict[str, Any] | None = None
    ) -> bool:
        """Materialize assets of a model with all their checks in one run; True if it succeeded.

        Args:
            names: of the assets.
            model: whose assets.
            config: per asset, as in the launchpad.
        """
        job = self.defs.resolve_implicit_global_asset_job_def()
        ops = {f"{model}__{name}": {"config": value} for name, value in (config or {}).items()}
        self.result = job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([model, name]) for name in names],
            run_config={"ops": ops},
            raise_on_error=False,
        )
        return self.result.success

    def tick(self) -> list[list[str]]:
        """One tick of the automation; runs what it asks for, and returns the assets of each run."""
        repository = self.defs.get_repository_def()
        sensor = repository.get_sensor_def("automation")
        assert isinstance(sensor, AutomationSensor)
        sensor.watch_seconds = 0.0  # what there is to see was seen before
        context = dg.build_sensor_context(
            instance=self.instance, repository_def=repository, cursor=self.cursor
        )
        data = sensor.evaluate_tick(context)
        self.cursor = data.cursor
        job = self.defs.resolve_implicit_global_asset_job_def()
        made: list[list[str]] = []
        for request in data.run_requests or []:
            assert request.asset_check_keys is None  # as a daemon understands it: all
            self.result = job.execute_in_process(
                instance=self.instance,
                asset_selection=list(request.asset_selection or []),
                tags=request.tags,
                raise_on_error=False,
            )
            made.append(sorted(key.path[-1] for key in request.asset_selection or []))
        return made

    def settle(self, most: int = 12) -> list[list[str]]:
        """Ticks until nothing is asked for any more; the assets of each run."""
        made: list[list[str]] = []
        for _ in range(most):
            asked = self.tick()
            if not asked:
                return made
            made += asked
        raise AssertionError(f"does not come to rest: {made}")

    def reload(self) -> None:
        """As the code location does when an environment's file has changed."""
        variables = {"MLOPS_HOME": str(self.profile.home)}
        self.profile = load_profile(variables, self.repository.path)
        self.__dict__.pop("defs", None)

    def see(self) -> None:
        """Let the sensors of git and of the data storage look."""
        repository = self.defs.get_repository_def()
        for name in ("git_sensor", "data_sensor"):
            context = dg.build_sensor_context(instance=self.instance, repository_def=repository)
            for event in repository.get_sensor_def(name).evaluate_tick(context).asset_events:
                self.instance.report_runless_asset_event(event)

    @property
    def failures(self) -> str:
        """What people read of the last run's failed steps."""
        found: list[str] = []
        for event in self.result.all_events:
            if event.is_step_failure:
                failure = event.step_failure_data.user_failure_data
                error = event.step_failure_data.error
                found.append((failure and failure.description) or (error and str(error)) or "")
        return "\n".join(found)

    @property
    def checks(self) -> dict[str, bool]:
        """Name -> passed of every check that the last run evaluated."""
        return {e.check_name: e.passed for e in self.result.get_asset_check_evaluations()}

    def check(self, name: str) -> dg.AssetCheckEvaluation:
        """One check of the last run."""
        found = [e for e in self.result.get_asset_check_evaluations() if e.check_name == name]
        assert found, f"no check {name} ran, but {sorted(self.checks)}"
        return found[0]

    def metadata(self, name: str) -> dict[str, Any]:
        """The metadata of an asset that the last run materialized."""
        for event in self.result.get_asset_materialization_events():
            if event.asset_key and event.asset_key.path[-1] == name:
                values = event.materialization.metadata
                return {key: value.value for key, value in values.items()}
        raise AssertionError(f"{name} was not materialized")

    @property
    def registry(self) -> Registry:
        """The registry behind the assets."""
        registry = build_resources(self.profile)["registry"]
        assert isinstance(registry, Registry)
        return registry

    @property
    def serving(self) -> Serving:
        """The endpoints behind the assets."""
        return Serving(self.profile)

    def serves(self, environment: str) -> int | None:
        """The version that serves in an environment, asked over HTTP."""
        status = self.serving.status("rent", environment)
        return status.version if status.healthy else None


def _platform(folder: Path, instance: dg.DagsterInstance) -> Platform:
    repository = Repository(folder / "clone")
    profile = load_profile({"MLOPS_HOME": str(folder / "home")}, repository.path)
    return Platform(repository, profile, instance)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A clone with the model ``rent`` and 200 rows of data; its endpoints end with the test."""
    make_repository(tmp_path / "clone")
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        found = _platform(tmp_path, instance)
        found.data(rows(200))
        yield found
    found.serving.stop()


@pytest.fixture(scope="session")
def released_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State and clone after the release of version 1, made once and then copied."""
    folder = tmp_path_factory.mktemp("released")
    make_repository(folder / "clone")
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        made = _platform(folder, instance)
        made.data(rows(200))
        assert made.materialize(*RELEASE), made.failures
    return folder


@contextmanager
def copied(once: Path, folder: Path) -> Iterator[Platform]:
    """A copy of state and clone that were made once; Dagster has no record of how."""
    for name in ("clone", "home"):
        shutil.copytree(once / name, folder / name)
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        found = _platform(folder, instance)
        yield found
    found.serving.stop()


@pytest.fixture
def released(released_once: Path, tmp_path: Path) -> Iterator[Platform]:
    """As ``platform``, after the release of version 1; nothing serves yet."""
    with copied(released_once, tmp_path) as found:
        yield found
