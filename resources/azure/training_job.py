"""What an Azure ML job for training is made of: code, environment, command."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlops_assets
from mlops_assets.files import digest_json, write_atomic
from mlops_assets.training import remote
from resources.azure.clients import AzureError, azure_errors
from resources.azure.settings import TrainingSettings

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Command

#: Name of the environments; the version is a digest of what they are made of.
ENVIRONMENT = "mlops-training"
LOCK = "requirements.lock"
#: The platform as it runs here: whoever clones it may have changed it.
PLATFORM = Path(mlops_assets.__file__).parent

#: A conda that the image has brings the right Python; else the image's own has to be it.
_DOCKERFILE = """\
FROM {image}
RUN if command -v conda; then conda create --yes --quiet --prefix /opt/mlops python={python}; \\
    else python3 -m venv /opt/mlops; fi && \\
    /opt/mlops/bin/python -c "import sys; assert '%d.%d' % sys.version_info[:2] == '{python}'"
ENV PATH=/opt/mlops/bin:$PATH
COPY requirements.lock /opt/mlops/requirements.lock
RUN python -m ensurepip && python -m pip install --no-cache-dir --no-deps --require-hashes \\
    --requirement /opt/mlops/requirements.lock
"""


@dataclass(frozen=True)
class JobSpec:
    """One job to be."""

    name: str
    model: str
    mode: str
    identity: str
    run: str
    #: Seconds after which Azure ends it.
    limit: int
    #: Address of the storage account.
    storage: str
    #: Name of an input -> kind (``uri_file``, ``uri_folder``) and address.
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def write_code(folder: Path, source: Path | None) -> None:
    """What a job gets as its code: the platform's package without models, and the source."""
    ignored = shutil.ignore_patterns("__pycache__", "models")
    shutil.copytree(PLATFORM, folder / PLATFORM.name, ignore=ignored)
    if source is not None:
        shutil.copytree(source, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))


def environment(client: MLClient, image: str, root: Path, folder: Path) -> str:
    """Name and version of the environment with the packages of the lock; made if it is new.

    Args:
        client: of the workspace.
        image: what it is built on.
        root: where requirements.lock is; that of the platform where there is none.
        folder: an empty one, for what the image is built from.

    Raises:
        AzureError: it cannot be made.
    """
    from azure.ai.ml.entities import BuildContext, Environment
    from azure.core.exceptions import ResourceNotFoundError

    lock = next((p for p in (root / LOCK, PLATFORM.parent / LOCK) if p.is_file()), None)
    if lock is None:
        raise AzureError(f"{root / LOCK}: missing; training on Azure needs it: `make lock`")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    dockerfile = _DOCKERFILE.format(image=image, python=python)
    packages = lock.read_text(encoding="utf-8")
    version = digest_json([dockerfile, packages])[:16]
    with azure_errors(f"environment {ENVIRONMENT}:{version}"):
        try:
            client.environments.get(ENVIRONMENT, version)
        except ResourceNotFoundError:
            write_atomic(folder / "Dockerfile", dockerfile)
            write_atomic(folder / LOCK, packages)
            made = Environment(
                name=ENVIRONMENT,
                version=version,
                description=f"The packages of {LOCK}, for training",
                build=BuildContext(path=str(folder)),
            )
            client.environments.create_or_update(made)
    return f"azureml:{ENVIRONMENT}:{version}"


def command_of(spec: JobSpec, settings: TrainingSettings, code: Path, environment: str) -> Command:
    """The job as azure-ai-ml takes it."""
    from azure.ai.ml import Input, command

    places = " ".join(f"{name}=${{{{inputs.{name}}}}}" for name in spec.inputs)
    return command(
        name=spec.name,
        display_name=f"{spec.mode} {spec.model}",
        experiment_name=f"mlops-{spec.model}",
        tags={
            "mlops_model": spec.model,
            "mlops_identity": spec.identity,
            "mlops_run": spec.run,
        },
        code=str(code),
        command=f"python -P -m mlops_assets.training.remote {places}",
        environment=environment,
        environment_variables=_variables(spec, settings),
        inputs={
            name: Input(type=kind, path=address, mode="download")
            for name, (kind, address) in spec.inputs.items()
        },
        compute=settings.compute,
        instance_type=settings.instance_type,
        instance_count=settings.instance_count,
        distribution=_distribution(settings),
        identity=_identity(settings),
        timeout=spec.limit,
    )


def _variables(spec: JobSpec, settings: TrainingSettings) -> dict[str, str]:
    found = {"PYTHONPATH": ".", remote.STORAGE: spec.storage}
    if settings.client_id:
        found[remote.IDENTITY] = settings.client_id
    return found


def _distribution(settings: TrainingSettings) -> Any:
    from azure.ai.ml import MpiDistribution, PyTorchDistribution, TensorFlowDistribution

    asked = settings.distribution
    if asked is None:
        return None
    if asked.type == "tensorflow":
        return TensorFlowDistribution(worker_count=settings.instance_count)
    kind = PyTorchDistribution if asked.type == "pytorch" else MpiDistribution
    return kind(process_count_per_instance=asked.process_count_per_instance or 1)


def _identity(settings: TrainingSettings) -> Any:
    from azure.ai.ml.entities import ManagedIdentityConfiguration, UserIdentityConfiguration

    # Serverless compute has no identity of its own.
    managed = settings.compute or settings.client_id
    if (settings.identity or ("managed" if managed else "user")) == "user":
        return UserIdentityConfiguration()
    return ManagedIdentityConfiguration(client_id=settings.client_id)
