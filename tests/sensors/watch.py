"""The git sensor as the daemon runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest

from mlops_assets.assets.sources import TRAINING_CODE, Seen, seen
from mlops_assets.sensors.git import git_sensor
from mlops_assets.spec import ModelSpec
from resources.git import GitSource
from tests.repository import Repository


@dataclass
class Watch:
    """The sensor with what the daemon does around it: events, cursor, a failed tick's loss."""

    repository: Repository
    bare: Repository
    git: GitSource
    instance: dg.DagsterInstance
    specs: list[ModelSpec]
    cursor: str | None = None
    said: str = ""

    def __post_init__(self) -> None:
        self.load(*self.specs)

    def load(self, *specs: ModelSpec) -> None:
        """What a code location does that is loaded anew."""
        self.specs = list(specs)
        self.sensor = git_sensor(self.specs, self.git, dg.DefaultSensorStatus.RUNNING)

    def tick(self) -> list[str]:
        """Names of the models that one tick reports."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        result = self.sensor.evaluate_tick(context)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        self.said = result.skip_message or ""
        assert not result.run_requests
        return [event.asset_key.path[0] for event in result.asset_events if event.asset_key]

    def seen(self, name: str = "rent") -> Seen:
        """The last report of a model."""
        return seen(self.instance, [(name, TRAINING_CODE)])[(name, TRAINING_CODE)]

    def reports(self, name: str = "rent") -> int:
        """How many reports of a model there are."""
        key = dg.AssetKey([name, TRAINING_CODE])
        return len(self.instance.fetch_materializations(key, limit=100).records)

    def push(self, *arguments: str) -> str:
        """Push the clone's branch; the name of its head."""
        self.repository.git("push", "--quiet", *arguments, str(self.bare.path), "main")
        return self.repository.git("rev-parse", "main")

    def push_train(self, text: str, message: str = "another train.py") -> str:
        self.repository.train_py(text, message)
        return self.push()


def forbid_queries(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, who asks Dagster's database for the last reports fails the test."""

    def asked(*_arguments: Any, **_keywords: Any) -> Any:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(type(watch.instance), "get_asset_records", asked)
