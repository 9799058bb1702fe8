"""``model.yaml``, strict: what a data scientist declares about one model.

Every mistake in a file is reported at once, each with its key path, what was found and what is
allowed. Imports neither pandas nor scikit-learn: the code location loads this for every model.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from mlops_assets.monitoring.policy import OF_PROBABILITIES, Monitoring, live_metric_problems
from mlops_assets.scoring.schema import Ranges
from mlops_assets.strict import SpecError, Strict, describe_errors, load_yaml

Task = Literal["regression", "binary", "multiclass"]
ColumnType = Literal["float", "integer", "string", "boolean", "timestamp"]
Scalar = str | bool | int | float

#: Metrics of each task under scikit-learn's names; True where greater is better.
METRICS: dict[Task, dict[str, bool]] = {
    "regression": {
        "r2": True,
        "root_mean_squared_error": False,
        "mean_absolute_error": False,
    },
    "binary": {
        "accuracy": True,
        "balanced_accuracy": True,
        "f1": True,
        "roc_auc": True,
        "log_loss": False,
    },
    "multiclass": {
        "accuracy": True,
        "balanced_accuracy": True,
        "f1_macro": True,
        "roc_auc_ovr": True,
        "log_loss": False,
    },
}

#: Metrics that have no value outside of 0 to 1.
SHARES = ("accuracy", "balanced_accuracy", "f1", "f1_macro", "roc_auc", "roc_auc_ovr")


def metric_range(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    if metric in SHARES:
        return 0.0, 1.0
    return (-math.inf, 1.0) if metric == "r2" else (0.0, math.inf)


class Source(Strict):
    """Where the model's code comes from."""

    repository: str = Field(
        default=".", description="'.' for this repository, else a path or git URL."
    )
    branch: str = Field(
        default="main", min_length=1, description="The branch whose head is released."
    )
    folder: str | None = Field(
        default=None, description="The model's folder there; default: mlops_assets/models/NAME."
    )
    paths: list[str] = Field(
        default_factory=list,
        description="Further folders of the repository that train.py imports, beside its own.",
    )


class Column(Strict):
    """One column of the data contract."""

    type: ColumnType
    nullable: bool = False
    minimum: float | None = Field(
        default=None, allow_inf_nan=False, description="Least value allowed, in the column's unit."
    )
    maximum: float | None = Field(
        default=None, allow_inf_nan=False, description="Greatest value allowed."
    )
    categories: list[Scalar] | None = Field(
        default=None, min_length=1, description="The values allowed."
    )
    feature: bool = Field(
        default=True, description="False: kept for keys or slices, not for training."
    )
    description: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and self.type not in ("float", "integer"):
            raise ValueError(f"minimum and maximum are for float and integer, not {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is greater than maximum {self.maximum}")
        allowed: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int}
        if self.categories is not None:
            if self.type not in allowed:
                raise ValueError(f"categories are for string and integer, not {self.type}")
            wrong = [c for c in self.categories if not isinstance(c, allowed[self.type])]
            if wrong:
                raise ValueError(f"categories of a {self.type} column hold {wrong}")
        return self


class Data(Strict):
    """Where the data lies, and the contract it must meet."""

    location: str = Field(min_length=1, description="Folder under the storage root, or a URL.")
    format: Literal["csv", "parquet"] = "csv"
    key: list[str] = Field(min_length=1, description="Columns that together name one row.")
    target: str
    columns: dict[str, Column] = Field(min_length=2)
    minimum_rows: int = Field(default=50, ge=2)
    settle_seconds: float = Field(
        default=5.0,
        ge=0,
        le=86400,
        description="How long the files must lie unchanged before they are taken.",
    )

    @model_validator(mode="after")
    def _known_columns(self) -> Data:
        unknown = [c for c in [*self.key, self.target] if c not in self.columns]
        if unknown:
            raise ValueError(f"key and target name {unknown}, which columns does not declare")
        if self.target in self.key:
            raise ValueError(f"target '{self.target}' cannot be part of the key")
        nullable = [c for c in [*self.key, self.target] if self.columns[c].nullable]
        if nullable:
            raise ValueError(f"key and target must not be nullable, but {nullable} are")
        if not self.features:
            raise ValueError("no feature is left beside key and target")
        return self

    @property
    def features(self) -> list[str]:
        """Names of the columns a model is trained on, in the order of the file."""
        outside = {*self.key, self.target}
        return [n for n, c in self.columns.items() if n not in outside and c.feature]


class Split(Strict):
    """Which rows are held out: a hash of the key, so that a row never changes sides."""

    holdout: float = Field(default=0.25, gt=0, lt=1, description="Share of the rows held out.")
    columns: list[str] = Field(default_factory=list, description="Hash these, not the key.")
    salt: str = Field(default="", description="Another salt is another split.")


Thresholded = Literal["pessimistic", "value"]


class Threshold(Strict):
    """A limit on one metric."""

    minimum: float | None = None
    maximum: float | None = None
    on: Thresholded = Field(
        default="pessimistic",
        description="Compare the pessimistic end of the 95 % interval, or the point value.",
    )


class ChampionGate(Strict):
    """Not worse than the version that serves production, on the same rows."""

    metric: str
    tolerance: float = Field(ge=0, description="Loss allowed, in the metric's own unit.")
    on: Thresholded = "pessimistic"


class ParityGate(Strict):
    """How far ONNX may answer otherwise than the pickle, where a version serves from ONNX."""

    tolerance: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Greatest difference of a number a from its own: |a - b| / max(1, |a|). "
        "Holds for every row.",
    )
    labels: float = Field(
        default=0.001, ge=0, lt=1, description="Greatest share of rows with another label."
    )


class ParityLimits(Strict):
    """What an environment asks beyond a model's own ``gates.parity``."""

    tolerance: float | None = Field(default=None, ge=0, lt=1)
    labels: float | None = Field(default=None, ge=0, lt=1)


class SliceGate(Strict):
    """What the worst slice of the rows held out must reach; at least one limit."""

    metric: str
    minimum: float | None = Field(default=None, description="For metrics where greater is better.")
    maximum: float | None = Field(default=None, description="For errors.")
    tolerance: float | None = Field(
        default=None, ge=0, description="Loss against all rows held out, in the metric's own unit."
    )
    minimum_rows: int = Field(
        default=30, ge=1, description="Slices of fewer rows held out are not judged."
    )


class Gates(Strict):
    """What a version must reach before it serves."""

    quality: dict[str, Threshold] = Field(min_length=1)
    champion: ChampionGate
    parity: ParityGate = Field(default_factory=ParityGate)
    slices: SliceGate | None = Field(
        default=None, description="A gate on the worst slice; none by default."
    )


class ServingSpec(Strict):
    """How a version serves."""

    format: Literal["auto", "onnx", "pickle"] = Field(
        default="auto",
        description="auto: from ONNX where that answers as the pickle does, else from the pickle. "
        "onnx: from nothing else, the gate parity says so. pickle: never from ONNX.",
    )
    ranges: Ranges = Field(
        default="warn",
        description="What becomes of a request with a value outside minimum, maximum or "
        "categories: ignore and answer, answer and warn, or refuse.",
    )


def _owner(value: str) -> str:
    # Dagster's own rule for owners; checked here so that the error names the file.
    if not (re.fullmatch(r"team:[\w-]+", value) or re.fullmatch(r"[^@\s]+@[^@\s]+\.\w+", value)):
        raise ValueError("an owner is an e-mail address or 'team:NAME'")
    return value


class ModelSpec(Strict):
    """The whole of ``model.yaml``; the name is the folder's."""

    name: str = Field(exclude=True)
    owner: Annotated[str, AfterValidator(_owner)]
    description: str = ""
    task: Task
    source: Source = Field(default_factory=Source)
    data: Data
    split: Split = Field(default_factory=Split)
    parameters: dict[str, Any] = Field(default_factory=dict)
    slices: list[str] = Field(default_factory=list)
    timeout_seconds: int = Field(
        default=3600, ge=1, description="Training is ended after this long."
    )
    gates: Gates
    serving: ServingSpec = Field(default_factory=ServingSpec)
    monitoring: Monitoring = Field(default_factory=Monitoring)

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        problems = list(self._column_problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _column_problems(self) -> Iterator[str]:
        columns = self.data.columns
        places = {
            "slices": self.slices,
            "split.columns": self.split.columns,
            "monitoring.ignore": self.monitoring.ignore,
        }
        for place, names in places.items():
            unknown = [name for name in names if name not in columns]
            if unknown:
                yield f"{place} names {unknown}, which data.columns does not declare"
        if self.gates.slices is not None and not self.slices:
            yield "gates.slices judges slices, and slices names no column"
        target = columns[self.data.target]
        if self.task == "regression" and target.type not in ("float", "integer"):
            yield f"task regression wants a float or integer target, found {target.type}"
        if self.task != "regression" and target.type not in ("string", "integer", "boolean"):
            yield f"task {self.task} wants a string, integer or boolean target, found {target.type}"
        if self.task == "binary" and target.categories and len(target.categories) != 2:
            yield f"task binary wants two categories of the target, found {len(target.categories)}"

    @property
    def features(self) -> list[str]:
        """Names of the columns a model is trained on."""
        return self.data.features

    @property
    def live_metric(self) -> str:
        """The metric that decides whether the serving version became worse."""
        wanted = self.monitoring.performance.metric or self.gates.champion.metric
        if wanted not in OF_PROBABILITIES:
            return wanted
        return "root_mean_squared_error" if self.task == "regression" else "balanced_accuracy"

    @property
    def live_tolerance(self) -> float:
        """Its loss that is allowed, in the metric's own unit."""
        own, gate = self.monitoring.performance, self.gates.champion
        if own.tolerance is not None:
            return own.tolerance
        # A tolerance in the unit of another metric says nothing about this one.
        return gate.tolerance if gate.metric == self.live_metric else 0.0

    @property
    def folder(self) -> str:
        """The model's folder inside its repository, a POSIX path."""
        return self.source.folder or f"mlops_assets/models/{self.name}"

    @property
    def contract_digest(self) -> str:
        """SHA-256 of what the data must look like; another digest needs another snapshot."""
        return hashlib.sha256(
            self.data.model_dump_json(exclude={"settle_seconds"}).encode()
        ).hexdigest()


def parse_model(text: str, name: str, path: Path | str) -> ModelSpec:
    """Parse the text of a ``model.yaml``.

    Args:
        text: the file's content.
        name: the model's name, which is its folder's.
        path: where the text comes from; every problem is reported under it.

    Raises:
        SpecError: with every problem of the file, each on its own line.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,29}", name):
        raise SpecError(
            path,
            [
                f"folder '{name}': a model's name is 1 to 30 lower-case letters, digits and "
                "underscores, a letter first"
            ],
        )
    loaded = load_yaml(text, path)
    if not isinstance(loaded, dict):
        raise SpecError(path, ["must be a mapping with the keys owner, task, data, gates"])
    if "name" in loaded:
        raise SpecError(path, ["name: unknown key; the model's name is its folder's"])
    # Checked on the raw mapping, so that a wrong metric is reported beside all other problems.
    task = loaded.get("task")
    problems = list(metric_problems(task, loaded.get("gates")))
    if task in METRICS:
        problems += live_metric_problems(task, METRICS[task], loaded.get("monitoring"))
    try:
        spec = ModelSpec.model_validate({**loaded, "name": name})
    except ValidationError as error:
        raise SpecError(path, describe_errors(error, ModelSpec) + problems) from None
    if problems:
        raise SpecError(path, problems)
    return spec


def metric_problems(task: Any, gates: Any) -> Iterator[str]:
    """What is wrong with the metrics that unparsed ``gates`` name, for a model of ``task``."""
    if task not in METRICS or not isinstance(gates, dict):
        return  # reported by the parser
    metrics = METRICS[task]
    allowed = f"task {task} has {', '.join(metrics)}"
    quality, champion = gates.get("quality"), gates.get("champion")
    for name, threshold in (quality if isinstance(quality, dict) else {}).items():
        if name not in metrics:
            yield f"gates.quality.{name}: no such metric; {allowed}"
        elif isinstance(threshold, dict):
            wanted, other = ("minimum", "maximum") if metrics[name] else ("maximum", "minimum")
            if wanted not in threshold or other in threshold:
                yield f"gates.quality.{name}: wants a {wanted} and no {other}"
    metric = champion.get("metric") if isinstance(champion, dict) else None
    if isinstance(metric, str) and metric not in metrics:
        yield f"gates.champion.metric: no metric '{metric}'; {allowed}"
    slices = gates.get("slices")
    metric = slices.get("metric") if isinstance(slices, dict) else None
    if isinstance(slices, dict) and isinstance(metric, str):
        yield from _slice_problems(metric, slices, metrics, allowed)


def _slice_problems(
    metric: str, gate: dict[str, Any], metrics: dict[str, bool], allowed: str
) -> Iterator[str]:
    if metric not in metrics:
        yield f"gates.slices.metric: no metric '{metric}'; {allowed}"
        return
    wanted, other = ("minimum", "maximum") if metrics[metric] else ("maximum", "minimum")
    if other in gate:
        yield f"gates.slices: {metric} has a {wanted} and no {other}"
    elif wanted not in gate and "tolerance" not in gate:
        yield f"gates.slices: wants a {wanted}, a tolerance or both"


def load_model(folder: Path) -> ModelSpec:
    """Read ``folder/model.yaml``; raises SpecError."""
    path = folder / "model.yaml"
    try:
        return parse_model(path.read_text(encoding="utf-8"), folder.name, path)
    except FileNotFoundError:
        raise SpecError(path, ["missing; every folder under models/ holds one"]) from None
    except UnicodeDecodeError as error:
        raise SpecError(path, [f"not UTF-8: {error}"]) from None


def model_folders(root: Path) -> list[Path]:
    """Folders of ``root`` that are models, sorted by name; private and hidden ones are not."""
    return sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and not path.name.startswith(("_", ".")) and any(path.iterdir())
    )
