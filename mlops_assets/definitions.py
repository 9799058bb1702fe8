"""The code location: profile -> resources -> one chain of assets per model, merged."""

import gc
import logging

import dagster as dg

from mlops_assets.factory import ModelFactory
from mlops_assets.judgement import Judge
from mlops_assets.spec import load_model, model_folders
from mlops_assets.strict import SpecError
from resources.artifacts import Artifacts
from resources.environment import Profile, load_profile
from resources.git import GitSource
from resources.references import ReferenceIOManager, References
from resources.registry import LocalRegistry
from resources.serving import Serving
from resources.storage import Storage
from resources.training import LocalTraining
from resources.verification import Verification

# What is loaded here is many small objects that all stay. By default Python looks for garbage
# among them after every 700 new ones, which takes a third of the time to load a hundred models.
gc.set_threshold(100_000, 20, 20)


def build_resources(profile: Profile) -> dict[str, object]:
    """What stands behind the assets in a profile."""
    home = profile.home
    references = References(root=str(home / "references"))
    artifacts = Artifacts(root=str(home / "artifacts"))
    registry = LocalRegistry(root=str(home / "registry"))
    serving = Serving(profile)
    training = LocalTraining()
    verification = Verification()
    return {
        "profile": profile,
        "storage": Storage(root=str(home / "storage")),
        "git": GitSource(checkout=str(profile.root), mirrors=str(home / "git")),
        "artifacts": artifacts,
        "references": references,
        "registry": registry,
        "serving": serving,
        "training": training,
        "verification": verification,
        "judge": Judge(
            root=str(profile.root),
            artifacts=artifacts,
            registry=registry,
            serving=serving,
            training=training,
            verification=verification,
        ),
        "io_manager": ReferenceIOManager(references=references),
    }


def build_definitions(profile: Profile) -> dg.Definitions:
    """Definitions of every model of a profile; a model.yaml that is wrong costs its model alone."""
    factory = ModelFactory(profile.environments)
    parts: list[dg.Definitions] = []
    for folder in model_folders(profile.models):
        try:
            parts.append(factory.build(load_model(folder)))
        except SpecError as error:
            logging.getLogger("mlops").error("model %s is left out: %s", folder.name, error)
            parts.append(_left_out(folder.name, error))
    return dg.Definitions.merge(
        *parts,
        dg.Definitions(
            resources=build_resources(profile),
            # Each step's work is in a process of its own already; the default executor would
            # import everything once more per step.
            executor=dg.in_process_executor,
        ),
    )


def _left_out(model: str, error: SpecError) -> dg.Definitions:
    """What the page shows of a model whose model.yaml is wrong."""
    spec = dg.AssetSpec(["left_out", model], group_name="left_out", description=str(error))
    return dg.Definitions(assets=[spec])


defs = build_definitions(load_profile())
gc.freeze()
