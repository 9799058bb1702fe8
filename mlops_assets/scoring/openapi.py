"""``/swagger.json``: the live version's input and output, as OpenAPI 3."""

from __future__ import annotations

from typing import Any

from mlops_assets.scoring.schema import Feature, Schema

_TYPES: dict[str, dict[str, Any]] = {
    "float": {"type": "number"},
    "integer": {"type": "integer", "format": "int64"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
}
_ERRORS = {
    "400": "The body is no JSON, or does not fit the schema; the message names row and column.",
    "401": "No key, or a wrong one.",
    "404": "No deployment of the name in azureml-model-deployment.",
    "413": "The body is larger than 8 MiB.",
}


def openapi(schema: Schema, version: int) -> dict[str, Any]:
    """The OpenAPI document of one version."""
    return {
        "openapi": "3.0.3",
        "info": {"title": schema.model, "version": str(version)},
        "paths": {"/": {"get": _health()}, "/score": {"post": _score(schema)}},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Record": _record(schema), "Error": _error()},
        },
    }


def _health() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {"operationId": "health", "responses": {"200": {"description": "", "content": text}}}


def _score(schema: Schema) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Record"}}
    body = {"type": "object", "required": ["data"], "properties": {"data": rows}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses = {
        status: {"description": text, "content": error} for status, text in _ERRORS.items()
    }
    answer = {"description": "One prediction per row.", "content": _json(_answer(schema))}
    return {
        "operationId": "score",
        "security": [{"key": []}],
        "parameters": [
            {
                "name": "azureml-model-deployment",
                "in": "header",
                "description": "Ask this deployment, whatever its traffic.",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {"200": answer, **responses},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _record(schema: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(schema.names),
        "properties": {feature.name: _property(feature) for feature in schema.features},
    }


def _property(feature: Feature) -> dict[str, Any]:
    # The contract's range and categories are told, not enforced: hence no minimum and no enum.
    told: list[str] = []
    if feature.minimum is not None or feature.maximum is not None:
        told.append(f"training data: {feature.minimum} to {feature.maximum}")
    if feature.categories is not None:
        told.append(f"training data: {', '.join(str(c) for c in feature.categories)}")
    extra: dict[str, Any] = {"description": "; ".join(told)} if told else {}
    return {**_TYPES[feature.type], **({"nullable": True} if feature.nullable else {}), **extra}


def _answer(schema: Schema) -> dict[str, Any]:
    if schema.labels is None:
        value: dict[str, Any] = {"type": "number"}
    else:
        value = {"enum": list(schema.labels)}
    properties: dict[str, Any] = {"predictions": {"type": "array", "items": value}}
    if schema.labels is not None:
        share = {"type": "object", "additionalProperties": {"type": "number"}}
        properties["probabilities"] = {"type": "array", "items": share}
    return {"type": "object", "required": ["predictions"], "properties": properties}


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    inner = {"type": "object", "properties": {"code": text, "message": text}}
    return {"type": "object", "required": ["error"], "properties": {"error": inner}}
