"""What was measured about a version, and what is compared later. Read by gates, written once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mlops_assets.scoring.parity import Found
from mlops_assets.scoring.schema import Ranges


class Record(BaseModel):
    """Base of what is read back from disk; a newer writer may have added keys."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Interval(Record):
    """A metric's value on the holdout with its 95 % bootstrap interval, in the metric's unit."""

    value: float
    lower: float
    upper: float


class Holdout(Record):
    """The rows held out of training."""

    rows: int
    training_rows: int
    digest: str


class Slice(Record):
    """A metric table of the held-out rows where one column has one value."""

    column: str
    value: Any
    rows: int
    metrics: dict[str, float | None]


class Importance(Record):
    """Permutation importance of one feature: loss of score when its values are shuffled."""

    column: str
    mean: float
    std: float


class Parity(Record):
    """How far ``model.onnx`` answers as the pickle does, and which of the two serves."""

    #: Serves from ONNX; or from the pickle, for one of four reasons.
    status: Literal["onnx", "pickle", "not_converted", "not_scored", "differs"]
    #: ``serving.format`` of model.yaml.
    wanted: Literal["auto", "onnx", "pickle"]
    reason: str
    opset: int | None
    #: Of the numbers inside: 64 or 32 bits.
    precision: Literal["double", "float"] | None
    #: What was allowed when it was measured.
    tolerance: float
    labels: float
    #: Rows compared: held out, and made from the contract.
    rows: int
    edge_rows: int
    #: Greatest |a - b| / max(1, |a|) of two numbers, a the pickle's.
    max_difference: float | None
    #: Rows that differ at all, and how: in their label, or because one of the two has no answer.
    differing_rows: int
    differing_labels: int
    one_sided: int

    @property
    def found(self) -> Found | None:
        """The figures, for whoever has a tolerance; None where nothing could be compared."""
        if self.max_difference is None:
            return None
        return Found(
            rows=self.rows + self.edge_rows,
            max_difference=self.max_difference,
            differing_rows=self.differing_rows,
            differing_labels=self.differing_labels,
            one_sided=self.one_sided,
        )


class Predictions(Record):
    """How the predictions for the held-out rows are distributed."""

    rows: int
    #: Rows per label of a classifier, by its name.
    labels: dict[str, int] = {}
    #: Upper ends of a regression's bins, and rows in each; the last bin has no upper end.
    edges: list[float] = []
    counts: list[int] = []
    mean: float | None = None
    deviation: float | None = None


class Evidence(Record):
    """``evidence.json`` of a bundle."""

    task: str
    metrics: dict[str, Interval]
    holdout: Holdout
    slices: list[Slice]
    importance: list[Importance]
    #: None in versions from before there was ONNX.
    parity: Parity | None = None
    #: None in versions from before there was monitoring.
    predictions: Predictions | None = None
    seconds: dict[str, float]


class ComparedMetric(Record):
    """One metric of candidate and champion on the same rows, and the paired difference."""

    candidate: float
    champion: float
    difference: Interval


class Comparison(Record):
    """A candidate against a champion; append-only, keyed by (candidate, champion, holdout)."""

    champion: str
    version: int
    holdout: str
    rows: int
    status: Literal["compared", "incomparable"]
    reason: str
    metrics: dict[str, ComparedMetric]


class SourceRecord(Record):
    """Where a version's code came from."""

    repository: str
    branch: str
    commit: str
    author: str
    message: str
    time: str
    on_branch: bool
    dirty: bool
    #: The branch that an experiment was made on; None for a release.
    experiment: str | None = None


class SnapshotRecord(Record):
    """The data a version was trained on."""

    digest: str
    rows: int
    contract: str


class ServingRecord(Record):
    """From which file a version serves, why, and what it does with values out of contract."""

    format: Literal["onnx", "pickle"] = "pickle"
    reason: str = "released before there was ONNX"
    ranges: Ranges = "ignore"


class Manifest(Record):
    """``manifest.json`` of a bundle; its SHA-256 is the version's digest."""

    model: str
    task: str
    identity: str
    target: str
    parameters: dict[str, Any]
    packages: dict[str, str]
    python: str
    platform: str
    source: SourceRecord
    snapshot: SnapshotRecord
    #: Contract that the released model.yaml declares.
    contract: str
    #: ``gates`` of the released model.yaml, unparsed.
    policy: dict[str, Any]
    serving: ServingRecord = ServingRecord()
    #: The nine deciles of a regression's predictions on the holdout.
    predictions: list[float] | None = None
    files: dict[str, str]


class Integrity(Record):
    """What a fresh process found: files that differ from the manifest, and whether it predicts."""

    mismatched: list[str]
    loads: bool
    error: str | None
    max_difference: float | None
