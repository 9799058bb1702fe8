"""The models that are measured: released by the platform's own chain, with real rows to ask."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.csv as pa_csv
from dagster import PreviewWarning

from mlops_assets.definitions import build_definitions
from mlops_assets.files import read_json
from mlops_assets.spec import ModelSpec, parse_model
from mlops_assets.wiring import build_resources
from resources.endpoints.base import VersionRef
from resources.environment import Profile, checkout, load_profile
from resources.registry import Registry, Version
from tests.repository import Repository

STEPS = ("dataset", "trained_model", "registered_model")
#: Name -> its folder in the checkout.
MODELS = {
    "diabetes": "mlops_assets/models/diabetes",
    "penguins": "mlops_assets/models/penguins",
    "boosting": "tests/bench/serving/boosting",
}
#: Released a second time under this name, to be served from its pickle.
PICKLED = {"diabetes": "diabetes_pickle"}


@dataclass(frozen=True)
class Released:
    """One registered version, and rows of the data that it was made from."""

    version: VersionRef
    spec: ModelSpec
    #: Rows as this platform's clients send them, in the order of the files.
    records: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The model's."""
        return self.version.model

    @property
    def served_from(self) -> str:
        """``onnx`` or ``pickle``."""
        manifest = read_json(self.version.bundle / "manifest.json")
        return manifest.get("serving", {}).get("format", "pickle")

    @property
    def records_for_estimator(self) -> list[dict[str, Any]]:
        """The same rows as the estimator knows them: a missing text is ``""``."""
        columns = self.spec.data.columns
        texts = {name for name in self.spec.features if columns[name].type == "string"}
        return [
            {n: "" if v is None and n in texts else v for n, v in record.items()}
            for record in self.records
        ]


def release(folder: Path, models: list[str]) -> dict[str, Released]:
    """Train and register models, and those of PICKLED among them, in a state of their own.

    Args:
        folder: where to; an empty one.
        models: names of MODELS.

    Raises:
        RuntimeError: the run failed; its log was printed.
    """
    root = checkout()
    repository = Repository(folder / "clone")
    repository.path.mkdir(parents=True)
    repository.git("init", "--quiet", "--initial-branch", "main")
    for name in models:
        shutil.copytree(root / MODELS[name], _folder(repository, name))
        if name in PICKLED:
            pickled = _folder(repository, PICKLED[name])
            shutil.copytree(root / MODELS[name], pickled)
            with (pickled / "model.yaml").open("a") as file:
                file.write("serving: {format: pickle}\n")
    names = [*models, *(PICKLED[name] for name in models if name in PICKLED)]
    repository.write("environments/local/staging.json", '{"name": "staging", "target": "local"}')
    repository.commit("models to measure")
    profile = load_profile({"MLOPS_HOME": str(folder / "home")}, repository.path)
    shutil.copytree(root / "samples" / "data", profile.home / "storage")
    job = build_definitions(profile).resolve_implicit_global_asset_job_def()
    warnings.filterwarnings("ignore", category=PreviewWarning)  # Dagster's own use of its own
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([name, step]) for name in names for step in STEPS],
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            raise_on_error=False,
        )
    if not result.success:
        raise RuntimeError("the models could not be released")
    registry: Registry = build_resources(profile)["registry"]
    return {name: _released(registry.version(name, 1), profile) for name in names}


def _folder(repository: Repository, model: str) -> Path:
    return repository.path / "mlops_assets" / "models" / model


def _released(version: Version, profile: Profile) -> Released:
    path = profile.models / version.model / "model.yaml"
    spec = parse_model(path.read_text("utf-8"), version.model, path)
    reference = VersionRef(version.model, version.version, version.digest, version.bundle)
    options = pa_csv.ConvertOptions(strings_can_be_null=True)
    folder = profile.home / "storage" / spec.data.location
    tables = [
        pa_csv.read_csv(file, convert_options=options) for file in sorted(folder.glob("*.csv"))
    ]
    table = pa.concat_tables(tables, promote_options="permissive")
    return Released(reference, spec, table.select(list(spec.features)).to_pylist())
