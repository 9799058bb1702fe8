"""The Open Inference Protocol, version 2: tensors by name, one per column.

Source: the protocol's REST specification (KServe), without its binary extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.payload import parse_json
from mlops_assets.scoring.predictor import Prediction, Predictor
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.table import Table, check_columns, from_rows

#: The datatype in which a feature is described.
_DATATYPES = {
    "float": "FP64",
    "integer": "INT64",
    "boolean": "BOOL",
    "string": "BYTES",
    "timestamp": "BYTES",
}
#: The datatypes in which a feature is taken; its values are checked one by one all the same.
_TAKEN = {
    "float": {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64"},
    "integer": {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"},
    "boolean": {"BOOL"},
    "string": {"BYTES"},
    "timestamp": {"BYTES"},
}
_LABELS = {bool: "BOOL", int: "INT64", float: "FP64"}


def metadata(schema: Schema, version: str) -> dict[str, Any]:
    """``GET /v2/models/M``: the tensors that go in and come out."""
    outputs = [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    if schema.labels is not None:
        labels = {"name": "label", "datatype": _label_type(schema), "shape": [-1]}
        shares = {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(schema.labels)]}
        outputs = [labels, shares]
    return {
        "name": schema.model,
        "versions": [version],
        "platform": "mlops-assets",
        "inputs": [
            {"name": f.name, "datatype": _DATATYPES[f.type], "shape": [-1, 1]}
            for f in schema.features
        ],
        "outputs": outputs,
    }


def infer(body: bytes, predictor: Predictor, version: str) -> tuple[bytes, Prediction]:
    """``POST /v2/models/M/infer``: the answer's body, and what was predicted.

    Raises:
        RequestError: naming the input that is wrong, or row and column.
    """
    request = parse_json(body)
    if not isinstance(request, dict):
        raise RequestError('the body must be an object such as {"inputs": [...]}')
    identity = _identity(request.get("id"))
    prediction = predictor.predict_table(table(request.get("inputs"), predictor.schema))
    answer: dict[str, Any] = {
        **identity,
        "model_name": predictor.schema.model,
        "model_version": version,
        "outputs": _wanted(_outputs(prediction, predictor.schema), request.get("outputs")),
    }
    if prediction.warnings:
        answer["parameters"] = {"warnings": "; ".join(prediction.warnings)}
    return msgspec.json.encode(answer), prediction


def _identity(given: Any) -> dict[str, str]:
    """The request's id as part of the answer; nothing where it has none."""
    if not isinstance(given, str):
        return {}
    try:
        given.encode()
    except UnicodeEncodeError:
        raise RequestError("id: half a surrogate pair cannot be sent back") from None
    return {"id": given}


def table(inputs: Any, schema: Schema) -> Table:
    """The tensors of a request as checked columns; raises RequestError."""
    if not isinstance(inputs, list) or not inputs:
        raise RequestError("inputs: wants a list of tensors, one per column")
    for number, tensor in enumerate(inputs):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise RequestError(
                f"inputs[{number}]: wants an object with name, shape, datatype, data"
            )
    names = check_columns([tensor["name"] for tensor in inputs], schema)
    features = {feature.name: feature for feature in (*schema.features, *schema.keys)}
    columns = [_values(tensor, features[tensor["name"]]) for tensor in inputs]
    lengths = {len(values) for values in columns}
    if len(lengths) != 1:
        raise RequestError(f"inputs: have different numbers of rows: {sorted(lengths)}")
    return from_rows([list(row) for row in zip(*columns, strict=True)], names, schema)


def _values(tensor: dict[str, Any], feature: Feature) -> Sequence[Any]:
    place = f"input {ascii(feature.name)[:60]}"
    datatype, shape, data = tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if not isinstance(datatype, str) or datatype not in _TAKEN[feature.type]:
        allowed = ", ".join(sorted(_TAKEN[feature.type]))
        raise RequestError(f"{place}: datatype {ascii(datatype)[:60]}, wants one of {allowed}")
    if not isinstance(data, list):
        raise RequestError(f"{place}: data: wants a list of values")
    if len(data) and all(isinstance(value, list) and len(value) == 1 for value in data):
        data = [value[0] for value in data]
    if shape not in ([len(data)], [len(data), 1]):
        raise RequestError(
            f"{place}: shape {ascii(shape)[:60]} does not fit {len(data)} values of one column"
        )
    return data


def _outputs(prediction: Prediction, schema: Schema) -> list[dict[str, Any]]:
    rows = len(prediction.values)
    if schema.labels is None:
        return [
            {"name": "prediction", "datatype": "FP64", "shape": [rows], "data": prediction.values}
        ]
    found = [
        {
            "name": "label",
            "datatype": _label_type(schema),
            "shape": [rows],
            "data": prediction.values,
        }
    ]
    if prediction.probabilities is not None:
        shape = [rows, len(schema.labels)]
        flat = [share for row in prediction.probabilities for share in row]
        found.append({"name": "probabilities", "datatype": "FP64", "shape": shape, "data": flat})
    return found


def _wanted(outputs: list[dict[str, Any]], asked: Any) -> list[dict[str, Any]]:
    """The outputs that a request names; all if it names none."""
    if asked is None:
        return outputs
    if not isinstance(asked, list) or not all(isinstance(entry, dict) for entry in asked):
        raise RequestError("outputs: wants a list of objects with a name")
    known = {output["name"]: output for output in outputs}
    for entry in asked:
        if not isinstance(entry.get("name"), str) or entry["name"] not in known:
            raise RequestError(
                f"outputs: no output {ascii(entry.get('name'))[:60]}; there are: {', '.join(known)}"
            )
    names = [entry["name"] for entry in asked]
    if len(set(names)) != len(names):  # a few bytes each would ask for all rows once more
        raise RequestError("outputs: one is asked for twice")
    return [known[name] for name in names]


def _label_type(schema: Schema) -> str:
    kinds = {type(label) for label in schema.labels or ()}
    return _LABELS.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"
