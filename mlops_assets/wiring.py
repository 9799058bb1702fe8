"""What stands behind the assets in a profile: the only place that chooses implementations."""

from collections.abc import Generator
from typing import Any

import dagster as dg

from mlops_assets.judgement import Judge
from resources.artifacts import Artifacts
from resources.attempts import Attempts
from resources.environment import Profile
from resources.git import GitSource
from resources.references import ReferenceIOManager, References
from resources.registry import LocalRegistry
from resources.serving import Serving
from resources.storage import Storage
from resources.training import LocalTraining
from resources.verification import Verification


def build_resources(profile: Profile) -> dict[str, Any]:
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
        "git": GitSource(
            checkout=str(profile.root), mirrors=str(home / "git"), repository=profile.repository
        ),
        "artifacts": artifacts,
        "references": references,
        "attempts": Attempts(root=str(home / "attempts")),
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


def fixed(resource: object) -> object:
    """The same resource, with nothing that a launchpad could set: not another registry, say."""
    if not isinstance(resource, (dg.ConfigurableIOManager, dg.ConfigurableResource)):
        return resource

    def made(context: dg.InitResourceContext) -> Generator[object]:
        resource.setup_for_execution(context)
        yield resource
        resource.teardown_after_execution(context)

    if isinstance(resource, dg.ConfigurableIOManager):
        return dg.IOManagerDefinition(made, config_schema={})  # pyright: ignore[reportArgumentType]
    return dg.ResourceDefinition(made, config_schema={})
