"""Azure ML's own documents of an environment: what `az ml online-endpoint create -f` takes too."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.strict import SpecError
from resources.azure.document_files import own_or_common, read_filled
from resources.endpoints.base import VersionRef
from resources.environment import CapturePolicy, Environment, Profile

if TYPE_CHECKING:
    from azure.ai.ml.entities import DataCollector, OnlineDeployment, OnlineEndpoint

ENDPOINT, DEPLOYMENT = "endpoint.json", "deployment.json"
#: What Azure takes as the name of an endpoint or a deployment; 32 characters at most.
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{1,30}[a-zA-Z0-9]")
#: An image by its digest stays what it is; a tag may be another image tomorrow.
PINNED = re.compile(r".+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class OnlineDocuments:
    """The documents of one model in one environment."""

    folder: Path
    model: str
    environment: Environment
    #: The shared registry; None where the workspace has the versions.
    registry: str | None = None

    @classmethod
    def of(cls, profile: Profile, environment: str, model: str) -> OnlineDocuments:
        """Those of a profile's environment."""
        settings = profile.azure
        return cls(
            profile.documents_of(environment),
            model,
            profile.environment(environment),
            settings.registry if settings else None,
        )

    @property
    def kubernetes(self) -> bool:
        """Whether an attached cluster serves."""
        return self.environment.target == "aks"

    @cached_property
    def endpoint_name(self) -> str:
        """The endpoint's name on Azure; raises SpecError."""
        path = self._path(ENDPOINT)
        name = read_filled(path).get("name")
        if not isinstance(name, str):
            raise SpecError(path, [f"name: must be a text, found {name!r}"])
        own = path.parent != self.folder
        found = name if own else f"{self.model.replace('_', '-')}-{name}"
        if not NAME.fullmatch(found):
            mend = f"a folder {self.folder.name}/{self.model} may hold an {ENDPOINT} of its own"
            raise SpecError(
                path,
                [
                    f"name: Azure takes 3 to 32 letters, digits and hyphens, the first a letter, "
                    f"the last none a hyphen; found '{found}'; choose a shorter name, or {mend}"
                ],
            )
        return found

    def endpoint(self) -> OnlineEndpoint:
        """The endpoint as it is to be, without traffic; raises SpecError."""
        from azure.ai.ml import load_online_endpoint

        path = self._path(ENDPOINT)
        document = read_filled(path)
        problems = [
            f"{key}: the platform moves the traffic; leave it out"
            for key in ("traffic", "mirror_traffic")
            if document.get(key)
        ]
        if self.kubernetes != bool(document.get("compute")):
            wanted = "names the attached cluster, such as azureml:aks"
            problems.append(
                f"compute: target 'aks' {wanted}"
                if self.kubernetes
                else "compute: target 'managed' has none; leave it out, or use target 'aks'"
            )
        if problems:
            raise SpecError(path, problems)
        found: Any = _loaded(path, document, load_online_endpoint, {"name": self.endpoint_name})
        found.tags = {**found.tags, **self.tags}
        return found

    def deployment(
        self, name: str, version: VersionRef, variables: Mapping[str, str], created: str
    ) -> OnlineDeployment:
        """A deployment of a version as it is to be; raises SpecError.

        Args:
            name: its name.
            version: what it serves.
            variables: what the server is told, beside what the document tells it.
            created: ISO 8601, UTC: what is older is found out by it.
        """
        from azure.ai.ml import load_online_deployment

        path = self._path(DEPLOYMENT)
        document = read_filled(path)
        problems = list(self._deployment_problems(document))
        if problems:
            raise SpecError(path, problems)
        found: Any = _loaded(
            path,
            document,
            load_online_deployment,
            {
                "name": name,
                "endpoint_name": self.endpoint_name,
                "model": self.reference(version.model, version.version),
            },
        )
        if self.environment.capture is not None:
            found.data_collector = _collector(self.environment.capture)
        found.environment_variables = {**(found.environment_variables or {}), **variables}
        found.tags = {
            **(found.tags or {}),
            **self.tags,
            "mlops_version": str(version.version),
            "mlops_digest": version.digest,
            "mlops_created": created,
        }
        return found

    @property
    def tags(self) -> dict[str, str]:
        """By which the platform knows its own."""
        return {"mlops_model": self.model, "mlops_environment": self.environment.name}

    def reference(self, model: str, version: int) -> str:
        """How a deployment names a version; raises SpecError."""
        if self.registry is None:
            return f"azureml:{model}:{version}"
        if self.kubernetes:
            raise SpecError(
                "environments/azure/profile.json",
                [
                    f"registry: Kubernetes endpoints (environment {self.environment.name}) take "
                    "models of the workspace alone; leave it out, or use target 'managed'"
                ],
            )
        return f"azureml://registries/{self.registry}/models/{model}/versions/{version}"

    def check(self) -> None:
        """Raise SpecError where something is wrong; asks no network."""
        self.endpoint()
        self.deployment("v1-00000000", VersionRef(self.model, 1, "0" * 64, Path()), {}, "")

    def _deployment_problems(self, document: dict[str, Any]) -> Iterator[str]:
        kind = document.get("type")
        if self.kubernetes and kind != "kubernetes":
            yield f"type: target 'aks' wants \"kubernetes\", found {json.dumps(kind)}"
        if not self.kubernetes and kind not in (None, "managed"):
            yield f"type: target 'managed' wants \"managed\", found {json.dumps(kind)}"
        if document.get("data_collector") and self.environment.capture is not None:
            yield (
                'data_collector: the environment\'s own "capture" turns it on; leave out one of '
                "the two"
            )
        if document.get("code_configuration"):
            yield "code_configuration: the image serves by itself; leave it out"
        image = document.get("environment")
        if isinstance(image, dict) and not PINNED.fullmatch(str(image.get("image"))):
            yield (
                "environment.image: must be pinned by its digest, NAME@sha256:..., found "
                f"'{image.get('image')}'"
            )

    def _path(self, name: str) -> Path:
        return own_or_common(self.folder, self.model, name)


def _collector(policy: CapturePolicy) -> DataCollector:
    """Azure ML's own, of the bodies as they go over the wire."""
    from azure.ai.ml.entities import DataCollector, DeploymentCollection

    class Collection(DeploymentCollection):
        """azure-ai-ml sends the mode in small letters; Azure's interface has it otherwise."""

        def _to_rest_object(self) -> Any:
            found = super()._to_rest_object()
            found.data_collection_mode = "Enabled"
            return found

    collections: dict[str, Any] = {
        name: Collection(enabled="true") for name in ("request", "response")
    }
    return DataCollector(collections, sampling_rate=policy.share)


def _loaded(path: Path, document: dict[str, Any], load: Any, given: dict[str, str]) -> Any:
    """What a loader of azure-ai-ml makes of a document; raises SpecError with every key."""
    from azure.ai.ml.exceptions import MlException
    from marshmallow.exceptions import ValidationError

    try:
        return load(
            io.StringIO(json.dumps(document)),
            relative_origin=str(path),
            params_override=[{name: value} for name, value in given.items()],
        )
    except ValidationError as error:
        cause = error.__cause__
        messages = cause.normalized_messages() if isinstance(cause, ValidationError) else str(error)
        raise SpecError(path, list(_lines("", messages))) from None
    except (MlException, ValueError, TypeError) as error:
        raise SpecError(path, [" ".join(str(error).split())]) from None


def _lines(place: str, found: Any) -> Iterator[str]:
    """One line per problem, with its key: the loader nests them as the document is nested."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _lines(f"{place}.{key}" if place else str(key), value)
    elif isinstance(found, list):
        for value in found:
            yield from _lines(place, value)
    else:
        yield f"{place}: {str(found)[:1].lower()}{str(found)[1:]}"
