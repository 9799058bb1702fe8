"""``/swagger.json``: all routes, with the live version's input and output, as OpenAPI 3."""

from __future__ import annotations

from mlops_assets.scoring.inference_protocol import metadata
from mlops_assets.scoring.openapi_schemas import (
    STRING,
    Json,
    body,
    components,
    examples,
    inference_example,
    ref,
)
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import MAXIMUM_ROWS

_ERRORS = {
    "400": "No HTTP, no JSON, or not of the schema; the message names row and column.",
    "401": "No key, or a wrong one.",
    "404": "No deployment of the name in azureml-model-deployment, no such model or version.",
    "408": "The request did not arrive in time.",
    "413": f"The body is larger than 8 MiB, or has more than {MAXIMUM_ROWS:,} rows.",
    "429": "Too many requests were sent ahead on one connection.",
    "431": "An id, or all headers together, are too long.",
    "500": "The model failed; the server's log has it under the request's id.",
    "503": "Nothing serves, or too much at once: come again after Retry-After.",
}
_ANY = ("400", "408", "429", "431")
_KEYED = (*_ANY, "401")
_MODEL = (*_KEYED, "404", "503")
_SCORE = (*_MODEL, "413", "500")


def openapi(schema: Schema, version: int) -> Json:
    """The OpenAPI document of one version."""
    paths = {
        "/": _get("health", _text("Healthy."), _ANY, key=False),
        "/score": {"post": _score(schema)},
        "/swagger.json": _get("swagger", _json("This document.", {"type": "object"}), _MODEL),
        "/metrics": _get("metrics", _text("Prometheus text."), _KEYED),
        "/v2": _get("v2_server", _json("The server.", ref("Server")), _ANY, key=False),
        "/v2/health/live": _get("v2_live", _json("It runs.", ref("Live")), _ANY, key=False),
        "/v2/health/ready": _ready(),
    }
    for place, number in (("", None), ("/versions/{version}", version)):
        parameters = [_parameter("model", "path", schema.model)]
        if number is not None:
            parameters.append(_parameter("version", "path", str(number)))
        for path, item in _model_routes(schema, version, "" if number is None else "_version"):
            paths[f"/v2/models/{{model}}{place}{path}"] = {"parameters": parameters, **item}
    return {
        "openapi": "3.0.3",
        "info": {"title": schema.model, "version": str(version)},
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": components(schema),
        },
    }


def _score(schema: Schema) -> Json:
    given = {"schema": body(), "examples": examples(schema)}
    answer = _json("One prediction per row.", ref("Prediction"))
    return {
        **_operation("score", answer, _SCORE),
        "requestBody": {"required": True, "content": {"application/json": given}},
    }


def _model_routes(schema: Schema, version: int, suffix: str) -> list[tuple[str, Json]]:
    described = _json("The tensors that go in and come out.", ref("Metadata"))
    described["content"]["application/json"]["example"] = metadata(schema, str(version))
    given = {"schema": ref("InferenceRequest"), "example": inference_example(schema)}
    infer = {
        **_operation(
            f"v2_infer{suffix}", _json("One tensor per output.", ref("InferenceResponse")), _SCORE
        ),
        "requestBody": {"required": True, "content": {"application/json": given}},
    }
    ready = _json("This version serves.", ref("ModelReady"))
    return [
        ("", _get(f"v2_model{suffix}", described, _MODEL)),
        ("/ready", _get(f"v2_model_ready{suffix}", ready, _MODEL)),
        ("/infer", {"post": infer}),
    ]


def _ready() -> Json:
    item = _get("v2_ready", _json("A version serves.", ref("Ready")), _ANY, key=False)
    item["get"]["responses"]["503"] = _json("None does.", ref("Ready"))
    return item


def _get(name: str, answer: Json, errors: tuple[str, ...], *, key: bool = True) -> Json:
    return {"get": _operation(name, answer, errors, key=key)}


def _operation(name: str, answer: Json, errors: tuple[str, ...], *, key: bool = True) -> Json:
    answer = {**answer, "headers": {"x-request-id": {"schema": STRING}}}
    operation: Json = {
        "operationId": name,
        "parameters": [_parameter("x-request-id", "header")],
        "responses": {
            "200": answer,
            **{status: _json(_ERRORS[status], ref("Error")) for status in sorted(errors)},
        },
    }
    if key:
        operation["security"] = [{"key": []}]
    if "404" in errors:
        operation["parameters"].append(_parameter("azureml-model-deployment", "header"))
        for header in ("azureml-model-deployment", "x-mlops-version"):
            answer["headers"][header] = {"required": True, "schema": STRING}
    return operation


_PARAMETERS = {
    "model": "The model's name.",
    "version": "The version that serves.",
    "azureml-model-deployment": "Ask this deployment, whatever its traffic.",
    "x-request-id": "Comes back with the answer, and stands in the log.",
}


def _parameter(name: str, place: str, only: str | None = None) -> Json:
    schema: Json = {"type": "string"}
    if only is not None:
        schema["enum"] = [only]
    if name == "x-request-id":
        schema["maxLength"] = 100
    return {
        "name": name,
        "in": place,
        "description": _PARAMETERS[name],
        "schema": schema,
        **({"required": True} if place == "path" else {}),
    }


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _text(description: str) -> Json:
    return {"description": description, "content": {"text/plain": {"schema": STRING}}}
