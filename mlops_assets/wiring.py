"""What stands behind the assets in a profile: the only place that chooses implementations."""

from collections.abc import Generator
from functools import cache
from typing import Any

import dagster as dg

from mlops_assets.judgement import Judge
from resources.artifacts import Artifacts
from resources.attempts import Attempts
from resources.captured import (
    CAPTURED,
    Captured,
    CapturedBlobs,
    CapturedFolder,
    CapturedWhereServed,
)
from resources.documents import FolderDocuments
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
    ground = _local(profile) if profile.azure is None else _azure(profile)
    references = References(documents=ground["documents"])
    verification = Verification()
    return {
        "profile": profile,
        "documents": ground["documents"],
        "captured": ground["captured"],
        "storage": ground["storage"],
        "git": GitSource(
            checkout=str(profile.root),
            mirrors=str(profile.home / "git"),
            repository=profile.repository,
        ),
        "artifacts": ground["artifacts"],
        "references": references,
        "attempts": ground["attempts"],
        "registry": ground["registry"],
        "serving": ground["serving"],
        "training": ground["training"],
        "verification": verification,
        "judge": Judge(
            root=str(profile.root),
            artifacts=ground["artifacts"],
            registry=ground["registry"],
            serving=ground["serving"],
            training=ground["training"],
            verification=verification,
        ),
        "io_manager": ReferenceIOManager(references=references),
    }


def _local(profile: Profile) -> dict[str, Any]:
    """Folders and processes of this machine."""
    home = profile.home
    documents = FolderDocuments(root=str(home))
    return {
        "documents": documents,
        "captured": CapturedFolder(home / CAPTURED),
        "attempts": Attempts(documents=documents),
        "storage": Storage(root=str(home / "storage")),
        "artifacts": Artifacts(root=str(home / "artifacts")),
        "registry": LocalRegistry(root=str(home / "registry")),
        "serving": Serving(profile),
        "training": LocalTraining(),
    }


def _azure(profile: Profile) -> dict[str, Any]:
    """Azure holds the truth; the state folder has copies of what was made or read here."""
    from resources.azure.artifacts import BlobArtifacts
    from resources.azure.attempts import AttemptsOnAzure
    from resources.azure.blobs import Blobs
    from resources.azure.clients import AzureClients
    from resources.azure.documents import BlobDocuments
    from resources.azure.registry import AzureMLRegistry
    from resources.azure.storage import BlobStorage, root_of
    from resources.azure.training import AzureMLTraining

    assert profile.azure is not None
    clients = AzureClients(profile.azure)
    documents = BlobDocuments.of(clients)
    artifacts = BlobArtifacts.of(clients, root=str(profile.home / "artifacts"))
    registry = AzureMLRegistry.of(clients, root=str(profile.home / "registry"))

    @cache
    def captured(environment: str) -> Captured:
        """What an environment's target keeps, where it keeps it."""
        target = profile.environment(environment).target
        if target == "local":
            return CapturedFolder(profile.home / CAPTURED)
        if target == "aci":
            return CapturedBlobs(Blobs(clients))
        from resources.azure.collector import CapturedByAzure  # and with it pyarrow

        return CapturedByAzure.of(clients, profile, registry)

    return {
        "documents": documents,
        "captured": CapturedWhereServed(captured),
        "attempts": AttemptsOnAzure.of(clients, documents=documents).of_profile(profile),
        "storage": BlobStorage.of(clients, root=root_of(profile.azure.storage)),
        "artifacts": artifacts,
        "registry": registry,
        "serving": Serving(profile, clients),
        "training": AzureMLTraining.of(clients, root=str(profile.root)),
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
