"""What was measured about a version, and what is compared later. Read by gates, written once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


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


class Evidence(Record):
    """``evidence.json`` of a bundle."""

    task: str
    metrics: dict[str, Interval]
    holdout: Holdout
    slices: list[Slice]
    importance: list[Importance]
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


class SnapshotRecord(Record):
    """The data a version was trained on."""

    digest: str
    rows: int
    contract: str


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
    files: dict[str, str]


class Integrity(Record):
    """What a fresh process found: files that differ from the manifest, and whether it predicts."""

    mismatched: list[str]
    loads: bool
    error: str | None
    max_difference: float | None
