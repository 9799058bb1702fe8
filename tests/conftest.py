from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.definitions import build_definitions, build_resources
from mlops_assets.files import write_atomic
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
        job = build_definitions(self.profile).resolve_implicit_global_asset_job_def()
        ops = {f"{model}__{name}": {"config": value} for name, value in (config or {}).items()}
        self.result = job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([model, name]) for name in names],
            run_config={"ops": ops},
            raise_on_error=False,
        )
        return self.result.success

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


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A clone with one model, ``rent``, and three environments."""
    return make_repository(tmp_path / "clone")


@pytest.fixture
def platform(repository: Repository, tmp_path: Path) -> Iterator[Platform]:
    """The platform on that clone, with 200 rows of data; its endpoints end with the test."""
    profile = load_profile({"MLOPS_HOME": str(tmp_path / "home")}, repository.path)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        found = Platform(repository, profile, instance)
        found.data(rows(200))
        yield found
    found.serving.stop()
