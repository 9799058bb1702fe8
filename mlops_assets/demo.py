"""One release of every model, deployed to every environment but the development ones."""

import warnings

import dagster as dg
from dagster import PreviewWarning

from mlops_assets.assets.endpoint import asset_name
from mlops_assets.definitions import build_definitions
from mlops_assets.progress import progress
from mlops_assets.runs import fail_dead_runs
from mlops_assets.spec import SpecError, load_model, model_folders
from resources.environment import Profile


def release_all(profile: Profile) -> bool:
    """Materialize the whole chain of every model in one run; True if it succeeded.

    Models are independent: what fails for one does not hold back another.
    """
    lines = dg.Definitions(loggers={"progress": progress})
    defs = dg.Definitions.merge(build_definitions(profile), lines)
    job = defs.resolve_implicit_global_asset_job_def()
    # Dagster's own use of its own previews, once per training process.
    warnings.filterwarnings("ignore", category=PreviewWarning)
    with dg.DagsterInstance.get() as instance:
        fail_dead_runs(instance)
        result = job.execute_in_process(
            instance=instance,
            asset_selection=_selection(profile),
            run_config={"loggers": {"progress": {}}},
            tags={"mlops/trigger": "demo"},
            raise_on_error=False,
        )
    return result.success


def _selection(profile: Profile) -> list[dg.AssetKey]:
    endpoints = [asset_name(e.name) for e in profile.environments if not e.development]
    names = ["dataset", "trained_model", "registered_model", "package", *endpoints]
    return [dg.AssetKey([model, name]) for model in _loadable(profile) for name in names]


def _loadable(profile: Profile) -> list[str]:
    found: list[str] = []
    for folder in model_folders(profile.models):
        try:
            found.append(load_model(folder).name)
        except SpecError:
            continue  # the code location has said so
    return found
