"""The JSON schemas of ``/swagger.json``: what a version takes and gives, and examples of it."""

from __future__ import annotations

from typing import Any

from mlops_assets.scoring.inference_protocol import metadata
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.table import GREATEST, INTEGERS

Json = dict[str, Any]
_TYPES: dict[str, Json] = {
    "float": {"type": "number", "minimum": -GREATEST, "maximum": GREATEST},
    "integer": {
        "type": "integer", "format": "int64", "minimum": INTEGERS[0], "maximum": INTEGERS[-1],
    },
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
}  # fmt: skip
_EXAMPLES: Json = {
    "float": 0.5, "integer": 1, "boolean": True, "string": "a", "timestamp": "2026-01-31T12:00:00Z",
}  # fmt: skip
STRING: Json = {"type": "string"}
_BOOLEAN: Json = {"type": "boolean"}


def ref(name: str) -> Json:
    """A schema of ``components``."""
    return {"$ref": f"#/components/schemas/{name}"}


def _array(items: Json, *, least: int | None = None, most: int | None = None) -> Json:
    bounds = {"minItems": least, "maxItems": most}
    bounds = {name: value for name, value in bounds.items() if value is not None}
    return {"type": "array", "items": items, **bounds}


def _object(properties: Json, *, closed: bool = False) -> Json:
    """An object of which all properties are required, and none else allowed if it is closed."""
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        **({"additionalProperties": False} if closed else {}),
    }


def components(schema: Schema) -> Json:
    """All schemas that have a name."""
    return {
        "Record": _record(schema),
        "Row": _row(schema),
        "Split": _split(schema),
        "Prediction": _prediction(schema),
        "Error": _error(),
        "Server": _object(
            {"name": STRING, "version": STRING, "extensions": _array(STRING)}, closed=True
        ),
        "Live": _object({"live": _BOOLEAN}, closed=True),
        "Ready": _object({"ready": _BOOLEAN}, closed=True),
        "ModelReady": _object({"name": STRING, "ready": _BOOLEAN}, closed=True),
        "Metadata": _object(
            {
                "name": STRING,
                "versions": _array(STRING),
                "platform": STRING,
                "inputs": _array(_tensor(-1)),
                "outputs": _array(_tensor(-1)),
            },
            closed=True,
        ),
        "InferenceRequest": _inference_request(schema),
        "InferenceResponse": _inference_response(),
    }


def body() -> Json:
    """What ``/score`` takes, in all its forms."""
    records, rows = _array(ref("Record"), least=1), _array(ref("Row"), least=1)
    forms: list[tuple[str, Json]] = [
        ("data", records),
        ("data", rows),
        ("input_data", ref("Split")),
        ("input_data", records),
        ("input_data", rows),
        ("dataframe_split", ref("Split")),
        ("dataframe_records", records),
    ]
    return {"anyOf": [_object({name: form}, closed=True) for name, form in forms]}


def _record(schema: Schema) -> Json:
    properties = {feature.name: _property(feature, schema) for feature in schema.features}
    keys = {key.name: _property(key, schema) for key in schema.keys}
    record = _object(properties, closed=True)
    return {**record, "properties": {**properties, **keys}}


def _row(schema: Schema) -> Json:
    """One row as a list. OpenAPI 3.0 has no lists of different types: any column's may stand."""
    count = len(schema.features)
    found = _array(_value(schema), least=count, most=count)
    return {**found, "description": f"In this order: {', '.join(schema.names)}"}


def _split(schema: Schema) -> Json:
    count = len(schema.features)
    names = _array({"type": "string", "enum": list(schema.names)}, least=count, most=count)
    index = _array({}, least=1)
    properties = {
        "columns": {**names, "uniqueItems": True},
        "data": _array(_array(_value(schema), least=count, most=count), least=1),
        "index": {**index, "nullable": True, "description": "As long as data; not looked at."},
    }
    return {**_object(properties, closed=True), "required": ["columns", "data"]}


def _value(schema: Schema) -> Json:
    kinds: list[Json] = []
    for feature in schema.features:
        kind = {**_TYPES[feature.type], **({"nullable": True} if feature.nullable else {})}
        if kind not in kinds:
            kinds.append(kind)
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _property(feature: Feature, schema: Schema) -> Json:
    found = {**_TYPES[feature.type], **({"nullable": True} if feature.nullable else {})}
    if schema.ranges == "refuse":
        return {**found, **_bounds(feature)}
    # Told and not enforced: hence no minimum and no enum.
    told: list[str] = []
    if feature.minimum is not None or feature.maximum is not None:
        told.append(f"training data: {feature.minimum} to {feature.maximum}")
    if feature.categories is not None:
        told.append(f"training data: {', '.join(str(c) for c in feature.categories)}")
    return {**found, **({"description": "; ".join(told)} if told else {})}


def _bounds(feature: Feature) -> Json:
    if feature.categories is not None:
        return {"enum": [*feature.categories, *([None] if feature.nullable else [])]}
    bounds = {"minimum": feature.minimum, "maximum": feature.maximum}
    return {name: value for name, value in bounds.items() if value is not None}


def examples(schema: Schema) -> Json:
    """A body of each form, of one row."""
    record = {feature.name: _example(feature) for feature in schema.features}
    row, names = list(record.values()), list(record)
    split: Json = {"columns": names, "index": [0], "data": [row]}
    return {
        "records": {"value": {"data": [record]}},
        "rows": {"value": {"data": [row]}},
        "input_data": {"value": {"input_data": split}},
        "dataframe_split": {"value": {"dataframe_split": split}},
        "dataframe_records": {"value": {"dataframe_records": [record]}},
    }


def _example(feature: Feature) -> Any:
    if feature.categories:
        return feature.categories[0]
    bound = feature.maximum if feature.minimum is None else feature.minimum
    return _EXAMPLES[feature.type] if bound is None else bound


def _prediction(schema: Schema) -> Json:
    value: Json = {"type": "number"} if schema.labels is None else {"enum": list(schema.labels)}
    properties = {"predictions": _array(value, least=1), "warnings": _array(STRING, least=1)}
    if schema.labels is not None:
        shares = {name: {"type": "number"} for name in schema.label_names}
        properties["probabilities"] = _array(_object(shares, closed=True), least=1)
    return {**_object(properties, closed=True), "required": ["predictions"]}


def _error() -> Json:
    inner = _object({"code": STRING, "message": STRING}, closed=True)
    return _object({"error": inner}, closed=True)


def _inference_request(schema: Schema) -> Json:
    tensor = _object(
        {
            "name": {"type": "string", "enum": list(schema.names)},
            "shape": _array({"type": "integer"}, least=1, most=2),
            "datatype": STRING,
            "data": _array({}, least=1),
        }
    )
    count = len(schema.features)
    properties = {
        "id": STRING,
        "inputs": _array(tensor, least=count, most=count),
        "outputs": _array(_object({"name": STRING})),
    }
    return {**_object(properties), "required": ["inputs"]}


def _inference_response() -> Json:
    tensor = _tensor(0)
    tensor["properties"]["data"] = _array({}, least=1)
    tensor["required"].append("data")
    properties = {
        "model_name": STRING,
        "model_version": STRING,
        "id": STRING,
        "parameters": _object({"warnings": STRING}, closed=True),
        "outputs": _array(tensor),
    }
    found = _object(properties, closed=True)
    return {**found, "required": ["model_name", "model_version", "outputs"]}


def inference_example(schema: Schema) -> Json:
    """A body of the Open Inference Protocol, of one row."""
    inputs = metadata(schema, "")["inputs"]
    for tensor, feature in zip(inputs, schema.features, strict=True):
        tensor |= {"shape": [1, 1], "data": [_example(feature)]}
    return {"inputs": inputs}


def _tensor(least: int) -> Json:
    size: Json = {"type": "integer", "minimum": least}
    properties = {"name": STRING, "datatype": STRING, "shape": _array(size, least=1)}
    return _object(properties, closed=True)
