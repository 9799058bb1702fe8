"""``environments/azure/profile.json``: which Azure the profile works in, the same for all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from mlops_assets.strict import SpecError, Strict, describe_errors
from resources.azure.document_files import filled, variables_of

#: The profile's own file, beside the environments' folders.
FILE = "profile.json"

VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class StorageSettings(Strict):
    """The storage account that holds everything: data, artifacts, records, what serves."""

    account: str = Field(description="Name of the storage account.")
    container: str = Field(default="mlops", description="Its container; made if it is not there.")
    data: str = Field(default="data", description="Folder in it that data.location is below.")
    account_key: VariableName | None = Field(
        default=None, description="Environment variable with the account's key."
    )
    sas: VariableName | None = Field(
        default=None,
        description="Environment variable with a shared access signature. Without either of the "
        "two: azure-identity's DefaultAzureCredential.",
    )

    @property
    def url(self) -> str:
        """Address of the account's blob endpoint."""
        return f"https://{self.account}.blob.core.windows.net"


class DistributionSettings(Strict):
    """How the processes of a job on several machines find each other."""

    type: Literal["pytorch", "mpi", "tensorflow"] = Field(description="As Azure ML names it.")
    process_count_per_instance: int | None = Field(default=None, ge=1)


class TrainingSettings(Strict):
    """Where training runs."""

    compute: str | None = Field(
        default=None, description="Name of an AmlCompute cluster; without one, serverless compute."
    )
    instance_type: str | None = Field(
        default=None, description="VM size; serverless compute chooses one where none is named."
    )
    instance_count: int = Field(default=1, ge=1, description="Machines of one job.")
    distribution: DistributionSettings | None = Field(
        default=None, description="For more than one machine."
    )
    image: str = Field(
        default="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest",
        description="Base image; the packages of requirements.lock are installed on it.",
    )
    identity: Literal["managed", "user"] | None = Field(
        default=None,
        description="Whose rights a job has in the storage account: those of a managed identity, "
        "or those of whoever starts it. Without it: managed on a cluster or with client_id.",
    )
    client_id: str | None = Field(
        default=None,
        description="Of the managed identity; a cluster that has only one needs no client_id.",
    )
    queue_seconds: float = Field(
        default=1800,
        gt=0,
        description="How long a job may wait for its machine and image, beyond the model's own "
        "timeout_seconds.",
    )


class AzureSettings(Strict):
    """``profile.json`` of the profile ``azure``. ``${NAME}`` is that environment variable."""

    json_schema: str | None = Field(default=None, alias="$schema", description="For editors.")
    subscription_id: str
    resource_group: str
    workspace: str = Field(description="The Azure ML workspace.")
    location: str = Field(description="Region of what is made, such as westeurope.")
    registry: str | None = Field(
        default=None,
        description="A shared Azure ML registry for the versions; the workspace's own without it.",
    )
    storage: StorageSettings
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    def missing(self, variables: Mapping[str, str] | None = None) -> list[str]:
        """Names of the environment variables that the file names and that are not set."""
        variables = os.environ if variables is None else variables
        named = variables_of(self.model_dump())
        named |= {n for n in (self.storage.account_key, self.storage.sas) if n}
        return sorted(name for name in named if not variables.get(name))

    def resolved(self, variables: Mapping[str, str] | None = None) -> AzureSettings:
        """The same with every ``${NAME}`` replaced; SpecError names the variables not set."""
        variables = os.environ if variables is None else variables
        missing = self.missing(variables)
        if missing:
            raise SpecError(
                f"environments/azure/{FILE}",
                [f"environment variable {name} is not set" for name in missing],
            )
        return type(self).model_validate(filled(self.model_dump(by_alias=True), variables))


def filled_in(text: str) -> str:
    """A text of the file with its variables' values."""
    return filled(text, os.environ)


def read_settings(path: Path) -> AzureSettings:
    """Parse the file; SpecError with every problem."""
    try:
        return AzureSettings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise SpecError(path, ["no such file; it says which Azure the profile works in"]) from None
    except ValidationError as error:
        raise SpecError(path, describe_errors(error, AzureSettings)) from None
