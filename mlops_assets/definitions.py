"""The code location: profile -> resources -> one chain of assets per model, merged."""

import gc
import logging
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mlops_assets.assets.endpoint import asset_name
from mlops_assets.assets.infrastructure import build_infrastructure
from mlops_assets.assets.monitoring import build_monitoring
from mlops_assets.automation import RELEASE, Conditions, Ground
from mlops_assets.factory import ModelFactory
from mlops_assets.runs import MODEL_TAG, TRIGGER_TAG
from mlops_assets.sensors.alerts import alert_sensor
from mlops_assets.sensors.automation import automation_sensors
from mlops_assets.sensors.data import data_sensors
from mlops_assets.sensors.git import git_sensor
from mlops_assets.spec import ModelSpec, load_model, model_folders
from mlops_assets.strict import SpecError
from mlops_assets.wiring import build_resources, fixed
from resources.alerts import Alerts
from resources.captured_columns import unknown_columns
from resources.environment import Profile, load_profile

# What is loaded here is many small objects that all stay. By default Python looks for garbage
# among them after every 700 new ones, which takes a third of the time to load a hundred models.
gc.set_threshold(100_000, 20, 20)


def build_definitions(profile: Profile) -> dg.Definitions:
    """Definitions of every model of a profile; a model.yaml that is wrong costs its model alone.

    Raises:
        SpecError: an environment names columns for capture that no model has.
    """
    resources = build_resources(profile)
    ground = Ground(profile, resources["registry"], resources["references"], resources["attempts"])
    factory = ModelFactory(profile.environments, Conditions(ground))
    parts: list[dg.Definitions] = []
    specs: list[ModelSpec] = []
    folders = model_folders(profile.models)
    for folder in folders:
        try:
            spec = load_model(folder)
            parts.append(factory.build(spec))
            specs.append(spec)
        except SpecError as error:
            logging.getLogger("mlops").error("model %s is left out: %s", folder.name, error)
            parts.append(_left_out(folder.name, error))
    if len(specs) == len(folders):  # else a column may be that of a model left out
        _check_captured_columns(profile, specs)
    return dg.Definitions.merge(
        *parts,
        build_infrastructure(profile),
        build_monitoring(profile, [spec.name for spec in specs]),
        dg.Definitions(
            resources={name: fixed(resource) for name, resource in resources.items()},
            jobs=build_jobs(profile, [spec.name for spec in specs]),
            sensors=build_sensors(ground, resources, specs),
            # Each step's work is in a process of its own already; the default executor would
            # import everything once more per step.
            executor=dg.in_process_executor,
        ),
    )


def build_jobs(profile: Profile, models: list[str]) -> list[UnresolvedAssetJobDefinition]:
    """The jobs ``release`` and ``deployment`` of all models, and of each."""
    deployed = [asset_name(e.name) for e in profile.environments if not e.development]
    jobs: list[UnresolvedAssetJobDefinition] = []
    for pipeline, assets in (("release", RELEASE), ("deployment", deployed)):
        keys = {model: [dg.AssetKey([model, name]) for name in assets] for model in models}
        everything = dg.AssetSelection.assets(*(key for group in keys.values() for key in group))
        jobs.append(
            dg.define_asset_job(
                pipeline,
                everything,
                description=f"The {pipeline} of every model: {', '.join(assets)}.",
                tags={TRIGGER_TAG: "job"},
            )
        )
        for model, group in keys.items():
            tags = {MODEL_TAG: model, TRIGGER_TAG: "job"}
            selection = dg.AssetSelection.assets(*group)
            description = f"The {pipeline} of {model}: {', '.join(assets)}."
            name = f"{model}_{pipeline}"
            jobs.append(dg.define_asset_job(name, selection, description=description, tags=tags))
    return jobs


def build_sensors(
    ground: Ground, resources: dict[str, Any], specs: list[ModelSpec]
) -> list[dg.SensorDefinition]:
    """What watches git, the data storage, the assets, and what people must be told."""
    status, profile = dg.DefaultSensorStatus.RUNNING, ground.profile
    watched = [e.name for e in profile.environments if not e.development]
    return [
        git_sensor(specs, resources["git"], status),
        *data_sensors(specs, resources["storage"], status),
        *automation_sensors(ground, [spec.name for spec in specs], status),
        alert_sensor(
            Alerts(profile.alerts), profile.home / "alerts", watched, status, profile.page
        ),
    ]


def _check_captured_columns(profile: Profile, specs: list[ModelSpec]) -> None:
    folder = profile.root / "environments" / profile.name
    problems = [
        f"{path.relative_to(folder).as_posix()}: {problem}"
        for path, problem in unknown_columns(profile, specs)
    ]
    if problems:
        raise SpecError(folder, problems)


def _left_out(model: str, error: SpecError) -> dg.Definitions:
    """What the page shows of a model whose model.yaml is wrong."""
    spec = dg.AssetSpec(["left_out", model], group_name="left_out", description=str(error))
    return dg.Definitions(assets=[spec])


defs = build_definitions(load_profile())
gc.freeze()
