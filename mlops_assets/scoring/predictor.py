"""One version, loaded: the only place that reads a model's bytes, and it checks them first.

Server, package and checks all answer through it: records or a checked table in, plain Python out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from mlops_assets.scoring.errors import IntegrityError, RequestError
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import Table, from_records, out_of_contract

MANIFEST, SAMPLE = "manifest.json", "sample.json"
PICKLE, ONNX = "model.pkl", "model.onnx"
Format = Literal["onnx", "pickle"]
#: The file of each format.
MODELS: dict[Format, str] = {"onnx": ONNX, "pickle": PICKLE}
#: How many warnings an answer carries.
MOST_WARNINGS = 10


class Prediction(NamedTuple):
    """Answers for a table of n rows, as plain Python values."""

    #: n numbers (regression) or labels.
    values: list[Any]
    #: Classifiers that know them: n lists, one probability per label, in the schema's order.
    probabilities: list[list[float]] | None
    #: Values outside the contract that were let through, each with row and column.
    warnings: tuple[str, ...] = ()
    #: The columns of all these values, one entry per value.
    outside: tuple[str, ...] = ()

    def answer(self, labels: Sequence[str]) -> dict[str, Any]:
        """What a client reads, over HTTP and in a package alike.

        Args:
            labels: names of the schema's labels.
        """
        answer: dict[str, Any] = {"predictions": self.values}
        if self.probabilities is not None:
            answer["probabilities"] = [
                dict(zip(labels, row, strict=True)) for row in self.probabilities
            ]
        if self.warnings:
            answer["warnings"] = list(self.warnings)
        return answer


class Model(Protocol):
    """What scores a table of checked values: a session, or an unpickled estimator."""

    def run(self, columns: Mapping[str, Sequence[Any]], rows: int) -> tuple[list[Any], Any]:
        """Score a table; see ``Session.run``."""
        ...

    def run_row(self, values: Sequence[Any]) -> tuple[list[Any], Any]:
        """Score one row, its values in training order; one caller at a time."""
        ...


class Predictor:
    """Answers for one version; has no state that a prediction changes."""

    def __init__(self, model: Model, schema: Schema, digest: str, model_format: Format) -> None:
        self.schema = schema
        #: SHA-256 of the manifest, which is the version's.
        self.digest = digest
        self.model = model
        self.format: Format = model_format

    @classmethod
    def load(cls, bundle: Path, digest: str, model_format: Format | None = None) -> Predictor:
        """Check a bundle's manifest and models, and load the very bytes that were checked.

        Args:
            bundle: the version's folder.
            digest: SHA-256 that the manifest must have: the registry's, not the folder's own word.
            model_format: which of its models; the one that the manifest serves from by default.

        Raises:
            IntegrityError: a file is missing or another than registered; nothing was loaded.
        """
        manifest, found = read_manifest(bundle, digest)
        try:
            schema = Schema.from_manifest(manifest)
            chosen = model_format or served_format(manifest)
            name = MODELS[chosen]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{bundle / MANIFEST}: not a manifest: {error!r}") from None
        for other in set(MODELS.values()) - {name}:
            # What is not served from may be left out, as in a package, but never be another one.
            if other in manifest["files"] and (bundle / other).exists():
                checked_bytes(bundle, other, manifest)
        data = checked_bytes(bundle, name, manifest)
        return cls(_load(chosen, data, schema), schema, found, chosen)

    def predict(self, records: Sequence[dict[str, Any]]) -> Prediction:
        """Answer for records ``{column: value}``; raises RequestError naming row and column."""
        return self.predict_table(from_records(records, self.schema))

    def predict_table(self, table: Table, *, within: bool = False) -> Prediction:
        """Answer for a checked table.

        Args:
            table: n rows, every value of its feature's type or None.
            within: every value is known to lie within the contract, where that matters.

        Raises:
            RequestError: a value lies outside the data contract, and the version refuses that or
                has no answer for it.
            Exception: whatever the model raises for values that the contract allows.
        """
        ignored = within or self.schema.ranges == "ignore"
        outside = [] if ignored else out_of_contract(table, self.schema)
        if outside and self.schema.ranges == "refuse":
            raise RequestError(outside[0].message, code="out_of_contract")
        try:
            values, probabilities = self.model.run(table.columns, table.rows)
        except Exception:
            outside = outside or out_of_contract(table, self.schema)
            if not outside:
                raise
            message = f"{outside[0].message}, and the model has no answer for it"
            raise RequestError(message, code="no_answer") from None
        return Prediction(
            values,
            probabilities,
            tuple(found.message for found in outside[:MOST_WARNINGS]),
            tuple(found.column for found in outside),
        )


def served_format(manifest: dict[str, Any]) -> Format:
    """What a version is served from; versions older than ONNX say nothing of it."""
    serving = manifest.get("serving")
    return serving.get("format", "pickle") if isinstance(serving, dict) else "pickle"


def _load(model_format: Format, data: bytes, schema: Schema) -> Model:
    # Each brings what the other does without: numpy and onnxruntime, or pandas and scikit-learn.
    if model_format == "onnx":
        from mlops_assets.scoring.session import Session

        return Session(data, schema)
    from mlops_assets.scoring.pickled import Pickled

    return Pickled(data, schema)


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
