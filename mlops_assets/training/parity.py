"""From which file a version serves: ``model.onnx`` where it answers as the pickle does."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring import parity
from mlops_assets.scoring.pickled import Pickled
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.training import onnx_export
from mlops_assets.training.errors import NotConvertedError
from mlops_assets.training.onnx_export import Precision, TooSlowError

#: Rows that are scored, and lie in memory as Python's own objects, at a time.
CHUNK_ROWS = 10_000
#: As exact as the pickle, where onnxruntime has the operators that it takes; else what it has.
PRECISIONS: tuple[Precision, ...] = ("double", "float")
#: A text that is no category of anybody's.
UNSEEN = "(unseen)"

Columns = dict[str, list[Any]]
Record = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What model.yaml says."""

    #: ``serving.format``.
    format: str
    #: ``gates.parity``: of every number, and share of rows with another label.
    tolerance: float
    labels: float
    #: What a conversion may take.
    seconds: float


@dataclass(frozen=True)
class Export:
    """What came of it."""

    #: ``parity`` of evidence.json.
    record: Record
    #: The model that may be served from, if there is one.
    model: bytes | None = None
    #: The first rows that it gives another label than the pickle.
    label_rows: tuple[int, ...] = ()
    #: Another attempt would end the same.
    final: bool = False


def export(estimator: Any, pickle: Path, schema: Schema, rows: pa.Table, wanted: Wanted) -> Export:
    """Convert an estimator, and measure how far the model answers as its pickle does.

    Args:
        estimator: fitted.
        pickle: its file.
        schema: of the version that it becomes.
        rows: the held-out rows.
        wanted: what model.yaml says.
    """
    record: Record = {
        "status": "pickle", "reason": "model.yaml says serving.format: pickle",
        "wanted": wanted.format, "tolerance": wanted.tolerance, "labels": wanted.labels,
        "opset": None, "precision": None, "rows": 0, "edge_rows": 0, "max_difference": None,
        "differing_rows": 0, "differing_labels": 0, "one_sided": 0,
    }  # fmt: skip
    if wanted.format == "pickle":
        return Export(record)
    found = Export(record)
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        trial = _Trial(estimator, pickle, schema, rows, wanted, Path(name))
        for precision in PRECISIONS:
            tried = trial.run(precision)
            # How far a model is off says more than why the other one was not made.
            if tried.model is not None or found.record["status"] != "differs":
                found = Export({**record, **tried.record}, tried.model, tried.label_rows)
            if tried.model is not None or tried.final:
                break
    return found


@dataclass(frozen=True)
class _Trial:
    """An estimator, converted and measured in one precision after the other."""

    estimator: Any
    pickle: Path
    schema: Schema
    rows: pa.Table
    wanted: Wanted
    #: Where the measuring process looks.
    folder: Path

    def run(self, precision: Precision) -> Export:
        """Convert and measure."""
        features, classifies = self.schema.features, self.schema.labels is not None
        seconds = self.wanted.seconds
        try:
            model = onnx_export.convert(self.estimator, features, classifies, precision, seconds)
        except NotConvertedError as error:
            record = {"status": "not_converted", "reason": str(error)}
            return Export(record, final=isinstance(error, TooSlowError))
        write_atomic(self.folder / parity.MODEL, model)
        if not (self.folder / parity.ROWS).is_file():
            self._write_rows()
        found, reason = _measure(self.folder, self.wanted.tolerance)
        record: Record = {"opset": onnx_export.opset_of(model), "precision": precision}
        if found is None:
            return Export({**record, "status": "not_scored", "reason": reason})
        agrees = found.agrees(self.wanted.tolerance, self.wanted.labels)
        record |= {
            "status": "onnx" if agrees else "differs",
            "reason": f"ONNX {'agrees with' if agrees else 'differs from'} the pickle: {found}",
            "rows": self.rows.num_rows,
            "edge_rows": found.rows - self.rows.num_rows,
            "max_difference": found.max_difference,
            "differing_rows": found.differing_rows,
            "differing_labels": found.differing_labels,
            "one_sided": found.one_sided,
        }
        return Export(record, model if agrees else None, tuple(found.label_rows))

    def _write_rows(self) -> None:
        """Write the schema, and the rows with the pickle's answers."""
        schema = self.schema
        manifest = {
            "model": schema.model,
            "task": schema.task,
            "target": schema.target,
            "features": [feature.to_dict() for feature in schema.features],
            "labels": None if schema.labels is None else list(schema.labels),
        }
        write_atomic(self.folder / parity.MANIFEST, to_json(manifest))
        model = Pickled(self.pickle.read_bytes(), schema)
        with (self.folder / parity.ROWS).open("w", encoding="utf-8") as file:
            for columns in (*self._chunks(), edge_rows(schema.features, self.rows)):
                count = len(columns[schema.names[0]])
                answers = parity.answers(model, columns, count)
                line = {"columns": columns, "rows": count, "answers": answers}
                file.write(json.dumps(line) + "\n")

    def _chunks(self) -> Iterator[Columns]:
        for start in range(0, self.rows.num_rows, CHUNK_ROWS):
            part = self.rows.slice(start, CHUNK_ROWS)
            yield {name: part.column(name).to_pylist() for name in self.schema.names}


def edge_rows(features: Sequence[Feature], rows: pa.Table) -> Columns:
    """What the contract allows at most, and a little more: rows that differ in one column.

    Each bound, each category, a value that is none of them, each nullable column missing, and
    all of these missing at once; the other columns are those of a held-out row.
    """
    base = _complete_row(features, rows)
    found = [base]
    for feature in features:
        found += [{**base, feature.name: value} for value in _edges(feature)]
    if any(feature.nullable for feature in features):
        found.append({**base, **{f.name: None for f in features if f.nullable}})
    return {f.name: [row[f.name] for row in found] for f in features}


def _complete_row(features: Sequence[Feature], rows: pa.Table) -> dict[str, Any]:
    """The held-out row with the fewest values missing, the first of them."""
    names = [feature.name for feature in features]
    missing = np.sum([rows.column(name).is_null().to_numpy() for name in names], axis=0)
    return rows.select(names).slice(int(missing.argmin()), 1).to_pylist()[0]


def _edges(feature: Feature) -> list[Any]:
    whole = feature.type == "integer"
    found: list[Any] = []
    if feature.minimum is not None:
        found.append(math.ceil(feature.minimum) if whole else feature.minimum)
    if feature.maximum is not None:
        found.append(math.floor(feature.maximum) if whole else feature.maximum)
    known = list(feature.categories or ())
    found += known
    if feature.type == "string":
        found.append(UNSEEN)
    elif feature.type == "boolean":
        found += [False, True]
    elif known:
        found.append(max(known) + 1)
    return [*found, None] if feature.nullable else found


def _measure(folder: Path, tolerance: float) -> tuple[parity.Found | None, str]:
    """What a process without any of training's packages finds, or why it finds nothing."""
    command = [sys.executable, "-P", "-m", "mlops_assets.scoring.parity", str(folder)]
    done = subprocess.run([*command, repr(tolerance)], capture_output=True, check=False)
    if done.returncode == 0:
        return parity.Found(**json.loads(done.stdout)), ""
    tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    reason = tail[0] if tail else f"the process ended with exit code {done.returncode}"
    return None, f"the model cannot be scored: {reason}"
