"""The profile: which environments there are, and what stands behind the resources.

The only place that reads the variables ``MLOPS_*``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator

import mlops_assets
from mlops_assets.errors import UserError
from mlops_assets.spec import (
    ChampionGate,
    ParityLimits,
    SliceGate,
    Threshold,
)
from mlops_assets.strict import SpecError, Strict, describe_errors
from resources.alerts import AlertSettings
from resources.azure.settings import FILE, AzureSettings, read_settings
from resources.tracker import TrackerSettings
from resources.traffic import Traffic

#: An environment with Azure's documents beside it: a folder of its name with this file.
IN_FOLDER = "environment.json"
#: The environment whose live version is the champion.
PRODUCTION = "production"


class EnvironmentGates(Strict):
    """What one environment asks of a model beyond the model's own gates."""

    quality: dict[str, Threshold] = Field(default_factory=dict)
    champion: ChampionGate | None = None
    parity: ParityLimits | None = None
    slices: SliceGate | None = None


Workers = Annotated[int, Field(ge=1, le=64)]


class LocalSettings(Strict):
    """How the target ``local`` serves: one server process per endpoint, on 127.0.0.1."""

    ports: dict[str, int] = Field(
        default_factory=dict, description="Fixed port per model; the system chooses the others."
    )
    workers: Workers | dict[str, Workers] = Field(
        default=1,
        description="Worker processes of each endpoint, or of those of the models named.",
    )

    def workers_of(self, model: str) -> int:
        """How many worker processes serve a model."""
        return self.workers if isinstance(self.workers, int) else self.workers.get(model, 1)


class ServerSettings(Strict):
    """How the scoring server behaves, on whatever target."""

    cors_origins: list[str] = Field(
        default_factory=list,
        description="Pages of these origins may ask from a browser; '*' is any.",
    )
    access_log: bool = Field(
        default=False, description="A log line for every request; never with its payload."
    )


class CapturePolicy(Strict):
    """Which requests and answers are kept; never a key, nor any header but the request's id."""

    share: float = Field(
        default=1.0, gt=0, le=1, description="Share of the requests, each with all its rows."
    )
    columns: list[str] | None = Field(
        default=None, min_length=1, description="The columns that are kept; all by default."
    )
    exclude: list[str] = Field(
        default_factory=list,
        description="Columns of any model that are kept nowhere; the target's name stands for the "
        "prediction.",
    )
    rotate_megabytes: float = Field(
        default=16, ge=0.001, le=1024, description="Begin another file when so much waits for one."
    )
    rotate_seconds: float = Field(
        default=60, ge=0.1, le=3600, description="Begin another file after this long."
    )
    keep_days: int = Field(default=30, ge=0, description="Files of older days are removed.")


class SigningSettings(Strict):
    """Who must have signed what serves here."""

    public_key: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]*$",
        description="Environment variable with the public key: PEM, or the path of a PEM file.",
    )


class PreviewSettings(Strict):
    """How long the branches' own environments live."""

    hours: float = Field(default=24, gt=0, le=24 * 30, description="Until each one ends.")


class Environment(Strict):
    """One file of ``environments/<profile>/``."""

    json_schema: str | None = Field(default=None, alias="$schema", description="For editors.")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")
    target: Literal["local", "aci", "aks", "managed"] = Field(
        description="What serves here: processes of this machine, Azure Container Instances, a "
        "Kubernetes or a managed online endpoint of Azure ML."
    )
    promotes_from: str | None = Field(
        default=None, description="A version must have served there, with its samples passed."
    )
    development: bool = Field(
        default=False,
        description="Takes uncommitted work; of the gates only contract and integrity hold.",
    )
    approval: Literal["none", "required"] = Field(
        default="none", description="Whether a person must approve each version that serves here."
    )
    override: Literal["forbidden", "allowed"] = Field(
        default="forbidden",
        description="Whether a person may deploy past closed gates, by name and reason.",
    )
    preview: PreviewSettings | None = Field(
        default=None,
        description="Serves experiments, each branch in an environment of its own that ends by "
        "itself: `mlops preview`. Nothing is released to it.",
    )
    latency_ms: float = Field(
        default=200.0, gt=0, description="95th percentile of one-row requests, in milliseconds."
    )
    traffic: Traffic = Field(
        default_factory=Traffic, description="How traffic comes to a new version."
    )
    local: LocalSettings = Field(default_factory=LocalSettings)
    deploy_seconds: float = Field(
        default=1800,
        gt=0,
        description="How long Azure may take to bring a deployment up, in seconds.",
    )
    server: ServerSettings = Field(default_factory=ServerSettings)
    capture: CapturePolicy | None = Field(
        default=None, description="Keep requests and answers, for monitoring; off by default."
    )
    signing: SigningSettings | None = Field(
        default=None, description="Serve only versions that were signed: `mlops sign`."
    )
    gates: dict[str, EnvironmentGates] = Field(
        default_factory=dict, description="Per model: stricter limits than model.yaml's."
    )

    @model_validator(mode="after")
    def _captured_by_azure(self) -> Environment:
        if self.target in ("aks", "managed") and self.capture is not None:
            ours = self.capture.model_fields_set - {"share", "keep_days"}
            if ours:
                raise ValueError(
                    f"capture.{min(ours)}: Azure ML's data collector keeps whole bodies in files "
                    "of its own making; leave it out, or serve in a container group (target 'aci')"
                )
        return self

    @model_validator(mode="after")
    def _traffic_as_azure_has_it(self) -> Environment:
        if self.target in ("aks", "managed") and self.traffic.sticky_header:
            raise ValueError(
                "traffic.sticky_header: online endpoints of Azure ML have nothing like it; leave "
                "it out"
            )
        if self.target == "aks" and self.traffic.mirror_percent:
            raise ValueError(
                "traffic.mirror_percent: Azure ML copies no requests on Kubernetes; leave it and "
                "mirror_seconds out, or use target 'managed'"
            )
        return self

    def gates_of(self, model: str) -> EnvironmentGates:
        """This environment's own limits for ``model``; without an entry there are none."""
        return self.gates.get(model, EnvironmentGates())


class UnknownEnvironmentError(UserError):
    """A name that is no environment; the message lists the known ones."""


@dataclass(frozen=True)
class Profile:
    """Everything that depends on where the platform runs."""

    name: str
    #: The checkout: models, environments and samples are read below it.
    root: Path
    #: The one folder that holds all state.
    home: Path
    #: Each after the one it promotes from; not the one for previews.
    environments: tuple[Environment, ...]
    #: What ``source.repository: .`` stands for; None for the checkout.
    repository: str | None = None
    #: Address of Dagster's page, for links in alerts.
    page: str | None = None
    #: Which Azure this is; None where nothing of it is used.
    azure: AzureSettings | None = None
    #: Where people are told what they must know, beside the log.
    alerts: AlertSettings = field(default_factory=AlertSettings)
    #: Where revisions of models are asked for.
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    #: What the branches' own environments are made after; None where there are none.
    preview: Environment | None = None

    @property
    def models(self) -> Path:
        """The folder that holds one folder per model."""
        return self.root / "mlops_assets" / "models"

    def environment(self, name: str) -> Environment:
        """The environment of that name; UnknownEnvironmentError otherwise."""
        for environment in self.environments:
            if environment.name == name:
                return environment
        known = ", ".join(e.name for e in self.environments)
        raise UnknownEnvironmentError(
            f"no environment '{name}' in profile {self.name}; there are: {known}"
        )

    def file_of(self, environment: str) -> Path:
        """The JSON file that declares an environment."""
        folder = self.root / "environments" / self.name
        own = folder / environment / IN_FOLDER
        return own if own.is_file() else folder / f"{environment}.json"

    def documents_of(self, environment: str) -> Path:
        """The folder with Azure's own documents of an environment."""
        return self.root / "environments" / self.name / environment

    def samples_of(self, model: str, environment: str) -> Path:
        """The file of named requests that a version must answer in an environment."""
        return self.root / "samples" / "requests" / model / f"{environment}.json"


def checkout() -> Path:
    """The checkout that the running platform was installed from."""
    return Path(mlops_assets.__file__).resolve().parent.parent


def load_profile(variables: Mapping[str, str] | None = None, root: Path | None = None) -> Profile:
    """Read the profile that the environment variables name.

    Args:
        variables: ``os.environ`` by default; ``MLOPS_PROFILE`` (default ``local``) picks the
            folder of environments, ``MLOPS_HOME`` (default ``.mlops`` in the checkout) the state,
            ``MLOPS_REPOSITORY`` (default the checkout) where models' own commits come from,
            ``MLOPS_ALERT_*`` where alerts go, ``MLOPS_PAGE`` the page's address for their links,
            ``MLOPS_TRACKER*`` where revisions of models are asked for.
        root: another checkout than the platform's own.

    Raises:
        SpecError: with every problem of every file.
    """
    variables = os.environ if variables is None else variables
    root = root or checkout()
    name = variables.get("MLOPS_PROFILE", "local")
    home = Path(variables.get("MLOPS_HOME") or root / ".mlops").expanduser().absolute()
    folder = root / "environments" / name
    if not folder.is_dir():
        known = sorted(p.name for p in (root / "environments").glob("*") if p.is_dir())
        raise SpecError(
            folder, [f"no profile '{name}'; MLOPS_PROFILE is one of: {', '.join(known)}"]
        )
    environments = _read_environments(folder)
    preview = _preview(folder, environments)
    return Profile(
        name=name,
        root=root,
        home=home,
        environments=_in_order(folder, [e for e in environments if e.preview is None]),
        preview=preview,
        repository=_repository(variables.get("MLOPS_REPOSITORY")),
        page=variables.get("MLOPS_PAGE") or None,
        azure=read_settings(folder / FILE) if (folder / FILE).is_file() else None,
        alerts=AlertSettings.from_variables(variables),
        tracker=TrackerSettings.from_variables(variables),
    )


def _repository(value: str | None) -> str | None:
    """Refuse a password in a URL: it would lie in Dagster's database."""
    if value and urlsplit(value).password:
        raise SpecError(
            "environment variable MLOPS_REPOSITORY",
            ["holds a password; leave it out, and give it to git: `git help credentials`"],
        )
    return value or None


def _read_environments(folder: Path) -> list[Environment]:
    environments: list[Environment] = []
    problems: list[str] = []
    on_azure = (folder / FILE).is_file()
    for path in sorted([*folder.glob("*.json"), *folder.glob(f"*/{IN_FOLDER}")]):
        if path == folder / FILE:
            continue
        place = path.relative_to(folder).as_posix()
        try:
            environment = Environment.model_validate_json(path.read_bytes())
        except ValidationError as error:
            problems += [f"{place}: {line}" for line in describe_errors(error, Environment)]
            continue
        called = path.parent.name if path.parent != folder else path.stem
        if environment.name != called:
            what = "file" if path.parent == folder else "folder"
            problems.append(
                f"{place}: name: found '{environment.name}', must be the {what}'s: '{called}'"
            )
        if environment.name in {other.name for other in environments}:
            problems.append(f"{place}: there is {environment.name}.json too; remove one of them")
        if environment.target != "local" and not on_azure:
            problems.append(f"{place}: target: '{environment.target}' needs {folder.name}/{FILE}")
        environments.append(environment)
    if not environments and not problems:
        problems.append("no environment; add a file such as staging.json")
    if problems:
        raise SpecError(folder, problems)
    return environments


def _preview(folder: Path, environments: list[Environment]) -> Environment | None:
    """The environment that previews are made after."""
    found = [environment for environment in environments if environment.preview]
    problems: list[str] = []
    if len(found) > 1:
        names = ", ".join(environment.name for environment in found)
        problems.append(f"preview: in {names}; only one environment can have it")
    for environment in found:
        place = f"{environment.name}.json"
        if environment.target != "local":
            problems.append(f"{place}: target: previews are served on this machine, target local")
        if environment.promotes_from or environment.name == PRODUCTION:
            problems.append(f"{place}: preview: no version is promoted to previews")
        if environment.local.ports:
            problems.append(f"{place}: local.ports: each preview has a port of its own")
    if problems:
        raise SpecError(folder, problems)
    return found[0] if found else None


def _in_order(folder: Path, environments: list[Environment]) -> tuple[Environment, ...]:
    """Sort so that each environment comes after the one it promotes from."""
    ordered: list[Environment] = []
    waiting = list(environments)
    while waiting:
        names = {e.name for e in ordered}
        ready = [e for e in waiting if e.promotes_from is None or e.promotes_from in names]
        if not ready:
            raise SpecError(
                folder,
                [
                    f"{e.name}.json: promotes_from: '{e.promotes_from}' is no other environment "
                    "here, or the chain is a circle"
                    for e in waiting
                ],
            )
        ordered += ready
        waiting = [e for e in waiting if e not in ready]
    return tuple(ordered)


def public_key(environment: Environment, variables: Mapping[str, str] | None = None) -> str | None:
    """The key, as PEM, with which an environment's versions must be signed; None for any or none.

    Raises:
        SpecError: the variable that the environment names holds none.
    """
    if environment.signing is None:
        return None
    name = environment.signing.public_key
    value = (os.environ if variables is None else variables).get(name, "").strip()
    place = f"{environment.name}.json: signing.public_key: environment variable {name}"
    if not value:
        raise SpecError(place, ["is not set; it holds the public key, or a path of it"])
    if value.startswith("-----BEGIN"):
        return value + "\n"
    try:
        return Path(value).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise SpecError(place, [f"names {value}: {error}"]) from None


def schema() -> str:
    """The JSON Schema of an environment's file, for editors."""
    return json.dumps(Environment.model_json_schema(by_alias=True), indent=2) + "\n"


def profile_schema() -> str:
    """The JSON Schema of the profile's file on Azure, for editors."""
    return json.dumps(AzureSettings.model_json_schema(by_alias=True), indent=2) + "\n"


if __name__ == "__main__":  # make schema
    (checkout() / "environments" / "environment.schema.json").write_text(schema())
    (checkout() / "environments" / "profile.schema.json").write_text(profile_schema())
