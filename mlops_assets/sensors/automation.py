"""The sensor that evaluates the conditions, and asks for one run per model and pipeline."""

import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._record import copy

from mlops_assets.assets.endpoint import RELEASE_INPUT
from mlops_assets.automation import RELEASE, TICK, Ground, Tick
from mlops_assets.runs import MODEL_TAG, RELEASE_TAG, TRIGGER_TAG, assets_of, fail_dead_runs
from mlops_assets.sensors import INTERVAL_SECONDS

#: Dagster evaluates 500 assets and checks at most in one sensor of ours.
MOST_ASSETS = 500
#: How long a tick waits for something to do, and how often it looks.
WATCH_SECONDS = 4.0
POLL_SECONDS = 0.5


class AutomationSensor(dg.AutomationConditionSensorDefinition):
    """Dagster's sensor of conditions, with one run per model and pipeline, and its tags."""

    def __init__(self, ground: Ground, **options: Any) -> None:
        self._ground = ground
        self.watch_seconds = WATCH_SECONDS
        with warnings.catch_warnings():
            # Beta, and the only way to evaluate conditions of our own.
            warnings.simplefilter("ignore", dg.BetaWarning)
            super().__init__(**options, use_user_code_server=True, emit_backfills=False)

    def evaluate_tick(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """Evaluate the conditions, again when something happens, until there is work or time ends.

        Dagster's daemon begins a tick every 5 seconds; waiting inside it for what the other
        sensors report, and for runs to end, takes most of that from each stage of a release.
        """
        context.log.setLevel(logging.INFO)  # Dagster writes a line per asset into a file per tick
        end = time.monotonic() + self.watch_seconds
        while True:
            news = _news(context.instance)
            data = self._evaluate(context)
            if data.run_requests:
                return data
            while _news(context.instance) == news:
                if time.monotonic() >= end:
                    return data
                time.sleep(POLL_SECONDS)

    def _evaluate(self, context: dg.SensorEvaluationContext) -> SensorExecutionData:
        """Mark dead runs as failed, evaluate the conditions, and note what is asked for."""
        for run_id in fail_dead_runs(context.instance):
            context.log.warning(f"run {run_id} had no process any more and is marked as failed")
        # Before anything else is read: a run that ends meanwhile counts as one that goes on.
        tick = Tick(context.log, busy_assets(context.instance))
        TICK.set(tick)
        data = super().evaluate_tick(context)
        requests = [
            split for request in data.run_requests or [] for split in split_by_model(request, tick)
        ]
        for key, inputs in tick.changed.items():
            self._ground.attempts.request(key, inputs)
        if requests:
            return copy(data, run_requests=requests)
        return copy(data, skip_message="; ".join(tick.said) or "nothing has changed")

    def with_attributes(self, **_: Any) -> "AutomationSensor":
        """Dagster attaches jobs to a copy; this sensor has none."""
        return self


def split_by_model(request: dg.RunRequest, tick: Tick) -> list[dg.RunRequest]:
    """One run per model and pipeline, and per release to deploy: they fail apart."""
    parts: dict[tuple[str, bool, str], list[dg.AssetKey]] = defaultdict(list)
    for key in request.asset_selection or []:
        release = tick.changed.get(key, {}).get(RELEASE_INPUT, "")
        parts[key.path[0], key.path[-1] in RELEASE, release].append(key)
    return [
        request.with_replaced_attrs(
            asset_selection=keys,
            # All checks of these assets; Dagster's list leaves out those with an op of their own.
            asset_check_keys=None,
            tags={
                **request.tags,
                MODEL_TAG: model,
                TRIGGER_TAG: _trigger(keys, tick),
                **({RELEASE_TAG: release} if release else {}),
            },
        )
        for (model, _, release), keys in parts.items()
    ]


def _trigger(keys: list[dg.AssetKey], tick: Tick) -> str:
    """What started a run: the inputs that are new."""
    inputs = [name for key in keys for name in tick.changed.get(key, {})]
    return ", ".join(dict.fromkeys(inputs))


def _news(instance: dg.DagsterInstance) -> object:
    """Differs when an asset event was reported, or a run began or ended."""
    running = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return instance.event_log_storage.get_maximum_record_id(), {run.run_id for run in running}


def automation_sensors(
    ground: Ground, models: Sequence[str], status: dg.DefaultSensorStatus
) -> list[AutomationSensor]:
    """The sensor of all models, or several where one could not take them all."""
    per_model = len(RELEASE) + sum(not e.development for e in ground.profile.environments)
    size = max(1, MOST_ASSETS // per_model)
    groups = [models[i : i + size] for i in range(0, len(models), size)]
    return [
        AutomationSensor(
            ground,
            name="automation" if number == 0 else f"automation_{number + 1}",
            target=dg.AssetSelection.groups(*group),
            default_status=status,
            minimum_interval_seconds=INTERVAL_SECONDS,
            description="Makes what has changed, and deploys what its gates let through.",
        )
        for number, group in enumerate(groups)
    ]


def busy_assets(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """Assets that runs which have not ended will make, or have made."""
    running = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return {key for run in running for key in assets_of(instance, run)}
