"""From which file a version serves: ``model.onnx`` where it answers as the pickle does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring import parity
from mlops_assets.scoring.pickled import Pickled
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.training import onnx_export
from mlops_assets.training.onnx_export import NotConvertedError, Precision

#: Rows that are scored, and lie in memory as Python's own objects, at a time.
CHUNK_ROWS = 10_000
#: As exact as the pickle, where the operators that are needed have it; else as narrow as possible.
PRECISIONS: tuple[Precision, ...] = ("double", "float")
#: A text that is no category of anybody's.
UNSEEN = "(unseen)"

Columns = dict[str, list[Any]]


def export(
    estimator: Any, schema: Schema, rows: pa.Table, wanted: dict[str, Any], output: Path
) -> tuple[dict[str, Any], list[int]]:
    """Write ``model.onnx`` beside ``model.pkl`` if it may be served from.

    Args:
        estimator: as it was pickled.
        schema: of the version that it becomes.
        rows: the held-out rows.
        wanted: ``format`` of model.yaml's serving; ``tolerance`` and ``labels`` of its
            gates.parity.
        output: holds ``model.pkl``.

    Returns:
        the record of evidence.json, and the first rows whose label differs.
    """
    record: dict[str, Any] = {
        "status": "pickle", "wanted": wanted["format"], "reason": "", "opset": None,
        "precision": None, "tolerance": wanted["tolerance"], "labels": wanted["labels"],
        "rows": 0, "edge_rows": 0,
        "max_difference": None, "differing_rows": 0, "differing_labels": 0, "one_sided": 0,
    }  # fmt: skip
    if wanted["format"] == "pickle":
        return {**record, "reason": "model.yaml says serving.format: pickle"}, []
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        folder = Path(name)
        classifies = schema.labels is not None
        for precision in PRECISIONS:
            try:
                model = onnx_export.convert(estimator, schema.features, classifies, precision)
            except NotConvertedError as error:
                record |= {"status": "not_converted", "reason": str(error)}
                continue
            if not record["rows"]:
                pickled = Pickled((output / "model.pkl").read_bytes(), schema)
                record |= _write_rows(pickled, schema, rows, folder)
            write_atomic(folder / parity.MODEL, model)
            found = _measure(folder, wanted["tolerance"])
            label_rows = found.pop("label_rows", [])
            record |= {"opset": onnx_export.OPSET, "precision": precision, **found}
            record |= _judged(record)
            if record["status"] == "onnx":
                write_atomic(output / "model.onnx", model)
                return record, label_rows
    return record, []


def _judged(record: dict[str, Any]) -> dict[str, str]:
    if record["max_difference"] is None:
        return {"status": "not_scored"}
    total = record["rows"] + record["edge_rows"]
    text = (
        f"greatest difference {record['max_difference']:.2g}, {record['differing_rows']} of "
        f"{total} rows differ"
    )
    agrees = (
        record["max_difference"] <= record["tolerance"]
        and record["differing_labels"] <= record["labels"] * total
        and not record["one_sided"]
    )
    if agrees:
        return {"status": "onnx", "reason": f"ONNX agrees with the pickle: {text}"}
    return {"status": "differs", "reason": f"ONNX differs from the pickle: {text}"}


def _write_rows(model: Pickled, schema: Schema, rows: pa.Table, folder: Path) -> dict[str, int]:
    """Write manifest and rows with the pickle's answers; how many are held out, how many edges."""
    manifest = {
        "model": schema.model,
        "task": schema.task,
        "target": schema.target,
        "features": [feature.to_dict() for feature in schema.features],
        "labels": None if schema.labels is None else list(schema.labels),
    }
    write_atomic(folder / parity.MANIFEST, to_json(manifest))
    edges = edge_rows(schema.features, rows)
    with (folder / parity.ROWS).open("w", encoding="utf-8") as file:
        for columns in (*_chunks(schema, rows), edges):
            count = len(columns[schema.names[0]])
            line = {
                "columns": columns,
                "rows": count,
                "answers": parity.answers(model, columns, count),
            }
            file.write(json.dumps(line) + "\n")
    return {"rows": rows.num_rows, "edge_rows": len(edges[schema.names[0]])}


def _chunks(schema: Schema, rows: pa.Table) -> Iterator[Columns]:
    for start in range(0, rows.num_rows, CHUNK_ROWS):
        part = rows.slice(start, CHUNK_ROWS)
        yield {name: part.column(name).to_pylist() for name in schema.names}


def edge_rows(features: Sequence[Feature], rows: pa.Table) -> Columns:
    """What the contract allows at most, and a little more: rows that differ in one column.

    Each bound, each category, a value that is none of them, each nullable column missing, and
    all of these missing at once; the other columns are those of a held-out row.
    """
    base = _complete_row(features, rows)
    found = [base]
    for feature in features:
        found += [{**base, feature.name: value} for value in _edges(feature)]
    found.append({**base, **{f.name: None for f in features if f.nullable}})
    return {f.name: [row[f.name] for row in found] for f in features}


def _complete_row(features: Sequence[Feature], rows: pa.Table) -> dict[str, Any]:
    """The held-out row with the fewest values missing, the first of them."""
    names = [feature.name for feature in features]
    missing = np.sum([rows.column(name).is_null().to_numpy() for name in names], axis=0)
    return rows.select(names).slice(int(missing.argmin()), 1).to_pylist()[0]


def _edges(feature: Feature) -> list[Any]:
    found: list[Any] = [b for b in (feature.minimum, feature.maximum) if b is not None]
    if feature.type == "integer":
        found = [int(bound) for bound in found]
    known = list(feature.categories or ())
    found += known
    if feature.type == "string":
        found.append(UNSEEN)
    elif known:
        found.append(max(known) + 1)
    elif feature.type == "boolean":
        found += [False, True]
    return [*found, None] if feature.nullable else found


def _measure(folder: Path, tolerance: float) -> dict[str, Any]:
    """What a process without any of training's packages finds."""
    command = [sys.executable, "-P", "-m", "mlops_assets.scoring.parity", str(folder)]
    done = subprocess.run([*command, repr(tolerance)], capture_output=True, check=False)
    if done.returncode:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        reason = f"the model cannot be scored: {tail[0]}"
        return {"max_difference": None, "reason": reason}
    found = json.loads(done.stdout)
    del found["classifies"]
    return found
