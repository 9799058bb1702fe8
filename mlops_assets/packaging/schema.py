"""``schema.json``: all that a program in any language needs to ask ``model.onnx``.

Names, types, ranges and categories are the contract's; the tensors are read from the file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlops_assets.files import digest_file, read_json
from mlops_assets.scoring.predictor import MANIFEST, ONNX, SAMPLE
from mlops_assets.scoring.schema import Schema
from resources.registry import Version

#: What a tensor's type is called here, as in JavaScript and numpy, by ONNX's own name.
_TYPES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "INT64": "int64",
    "BOOL": "bool",
    "STRING": "string",
}
#: How a missing value is written into a tensor; a type that is not here takes none.
_MISSING = {"float32": "NaN", "float64": "NaN", "string": ""}


def describe(version: Version) -> dict[str, Any]:
    """The content of a version's ``schema.json``.

    Returns:
        ``features`` in training order, each with its ``tensor`` where the version serves from
        ONNX; ``onnx`` with the file's digest and its outputs, else None.
    """
    bundle = version.bundle
    schema = Schema.from_manifest(read_json(bundle / MANIFEST))
    features, onnx = [feature.to_dict() for feature in schema.features], None
    if version.manifest.serving.format == "onnx":
        tensors, onnx = _onnx(bundle / ONNX, schema)
        for feature in features:
            feature["tensor"] = _for_feature(tensors[feature["name"]], feature["nullable"])
    return {
        "model": schema.model,
        "version": version.version,
        "digest": version.digest,
        "task": schema.task,
        "target": schema.target,
        "labels": None if schema.labels is None else list(schema.labels),
        "probabilities": read_json(bundle / SAMPLE).get("probabilities") is not None,
        "ranges": schema.ranges,
        "features": features,
        "onnx": onnx,
    }


def _for_feature(tensor: dict[str, Any], nullable: bool) -> dict[str, Any]:
    return {**tensor, "missing": _MISSING.get(tensor["type"]) if nullable else None}


def _onnx(path: Path, schema: Schema) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs by name, and what there is to say of the file as a whole."""
    import onnx

    model = onnx.load_model(path)
    outputs = [_tensor(output) for output in model.graph.output]
    for output in outputs:
        if output["name"] == "label":
            # ONNX knows no boolean label; its integers stand for them.
            integers = output["type"] == "int64"
            output["values"] = [int(v) if integers else v for v in schema.labels or ()]
    about = {
        "sha256": digest_file(path),
        "ir_version": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "outputs": outputs,
    }
    return {entry.name: _tensor(entry) for entry in model.graph.input}, about


def _tensor(entry: Any) -> dict[str, Any]:
    import onnx

    kind = entry.type.tensor_type
    return {
        "name": entry.name,
        "type": _TYPES[onnx.TensorProto.DataType.Name(kind.elem_type)],
        # None: as many as there are rows.
        "shape": [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim],
    }
