"""One release of every model, deployed to every environment but the development ones."""

import warnings

import dagster as dg
from dagster import PreviewWarning

from mlops_assets.assets.endpoint import asset_name
from mlops_assets.definitions import build_definitions
from mlops_assets.progress import progress
from mlops_assets.runs import fail_dead_runs
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
            asset_selection=_selection(defs, profile),
            run_config={"loggers": {"progress": {}}},
            tags={"mlops/trigger": "demo"},
            raise_on_error=False,
        )
    return result.success


def _selection(defs: dg.Definitions, profile: Profile) -> list[dg.AssetKey]:
    """Every asset of every model, but what serves uncommitted work."""
    development = {asset_name(e.name) for e in profile.environments if e.development}
    keys = defs.resolve_asset_graph().materializable_asset_keys
    return sorted(key for key in keys if key.path[-1] not in development)
