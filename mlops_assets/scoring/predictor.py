"""One version, loaded: the only place that unpickles a model, and it checks the bytes first."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.scoring.errors import IntegrityError, RequestError
from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import Table, from_records, outside_contract

MANIFEST, MODEL, SAMPLE = "manifest.json", "model.pkl", "sample.json"


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answers for a table of n rows, as plain Python values."""

    #: n numbers (regression) or labels.
    values: list[Any]
    #: Classifiers that know them: n lists, one probability per label, in the schema's order.
    probabilities: list[list[float]] | None


class Predictor:
    """Answers for one version; has no state that a prediction changes."""

    def __init__(self, estimator: Any, schema: Schema, digest: str) -> None:
        self.schema = schema
        #: SHA-256 of the manifest, which is the version's.
        self.digest = digest
        self.estimator = estimator
        self._has_probabilities = schema.labels is not None and hasattr(estimator, "predict_proba")

    @classmethod
    def load(cls, bundle: Path, digest: str | None = None) -> Predictor:
        """Check a bundle's manifest and model, and unpickle the very bytes that were checked.

        Args:
            bundle: the version's folder.
            digest: SHA-256 that the manifest must have; None trusts the manifest.

        Raises:
            IntegrityError: a file is missing or another than registered; nothing was loaded.
        """
        manifest, found = read_manifest(bundle, digest)
        try:
            schema = Schema.from_manifest(manifest)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{bundle / MANIFEST}: not a manifest: {error!r}") from None
        data = checked_bytes(bundle, MODEL, manifest)
        return cls(pickle.loads(data), schema, found)  # noqa: S301  (checked just above)

    def predict(self, records: Sequence[dict[str, Any]]) -> Prediction:
        """Answer for records ``{column: value}``; raises RequestError naming row and column."""
        return self.predict_table(from_records(records, self.schema))

    def predict_table(self, table: Table) -> Prediction:
        """Answer for a checked table.

        Raises:
            RequestError: the model fails, and a value lies outside the data contract.
            Exception: whatever the model raises for values that the contract allows.
        """
        try:
            return self._predict(table)
        except Exception:
            outside = outside_contract(table, self.schema)
            if outside is None:
                raise
            message = f"{outside}, and the model has no answer for it"
            raise RequestError(message, code="no_answer") from None

    def _predict(self, table: Table) -> Prediction:
        frame = to_frame(table.columns, self.schema.features)
        values = _plain(self.estimator.predict(frame), table.rows)
        probabilities = None
        if self._has_probabilities:
            probabilities = _plain(self.estimator.predict_proba(frame), table.rows)
            for row in probabilities:
                _finite(row)
        _finite(values)
        return Prediction(values, probabilities)


def read_manifest(bundle: Path, digest: str | None) -> tuple[dict[str, Any], str]:
    """A bundle's manifest and its SHA-256; raises IntegrityError if that is not ``digest``."""
    data = _read(bundle / MANIFEST)
    found = hashlib.sha256(data).hexdigest()
    if digest is not None and found != digest:
        raise IntegrityError(
            f"{bundle / MANIFEST}: SHA-256 is {found[:12]}…, the version's digest is {digest[:12]}…"
        )
    try:
        manifest = json.loads(data)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise IntegrityError(f"{bundle / MANIFEST}: not a manifest")
    return manifest, found


def checked_bytes(bundle: Path, name: str, manifest: dict[str, Any]) -> bytes:
    """The bytes of one file, read once; raises IntegrityError if the manifest has others."""
    expected = manifest["files"].get(name)
    if expected is None:
        raise IntegrityError(f"{bundle / name}: the manifest does not name it")
    data = _read(bundle / name)
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise IntegrityError(
            f"{bundle / name}: SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…; "
            "the file was changed after it was registered"
        )
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path}: {error.strerror or error}") from None


def _plain(answer: Any, rows: int) -> list[Any]:
    values = answer.tolist() if hasattr(answer, "tolist") else list(answer)
    if len(values) != rows:
        raise ValueError(f"the model gave {len(values)} answers for {rows} rows")
    return values


def _finite(values: list[Any]) -> None:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the model answered {value}")
