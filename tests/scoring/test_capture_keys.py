"""Keys beside the features: taken, checked, not scored; and refused by versions without them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.scoring.decoder import Decoder
from mlops_assets.scoring.embedded import Embedded
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.inference_protocol import infer
from mlops_assets.scoring.openapi import openapi
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.scoring.schema import Schema
from tests.bundles import KEYS, NUMBERS, exported, keyed

SCHEMA = Schema("tiny", "regression", "y", NUMBERS, keys=KEYS)
ROW = {"a": 1.5, "b": 2}
KEYED: list[dict[str, Any]] = [
    {"data": [{"patient": 7, **ROW}]},
    {"data": [{**ROW, "visit": "v", "patient": 7}, ROW]},
    {"dataframe_records": [{**ROW, "visit": None}]},
    {"input_data": [{**ROW, "visit": "a:b"}]},
    {"input_data": {"columns": ["visit", "b", "a"], "data": [["v", 2, 1.5]]}},
    {"dataframe_split": {"columns": ["a", "b", "patient"], "data": [[1.5, 2, None]], "index": [1]}},
]


@pytest.mark.parametrize("body", KEYED, ids=str)
def test_the_quick_way_and_the_careful_one_agree(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    table = parse(data, SCHEMA)
    assert table.columns == {"a": [1.5] * table.rows, "b": [2] * table.rows}
    rows, found = Decoder(SCHEMA).rows(data), Decoder(SCHEMA).whole_rows([data, data])
    if rows is None:
        assert found is None
        return
    assert found is not None
    whole, counts = found
    assert counts == [table.rows] * 2
    assert whole[: table.rows] == whole[table.rows :]
    assert rows == [(1.5, 2)] * table.rows
    missing = [None] * table.rows
    keys = [table.keys.get(key.name, missing) for key in KEYS]
    assert [row[2:] for row in whole[: table.rows]] == [*zip(*keys, strict=True)]


def test_records_with_keys_go_the_quick_way() -> None:
    decoder = Decoder(SCHEMA)
    for body in KEYED[:3]:
        assert decoder.rows(json.dumps(body).encode()) is not None
    twice = b'{"data": [{"a": 1.5, "b": 2, "patient": 7, "patient": 8}]}'
    assert decoder.rows(twice) is None
    with pytest.raises(RequestError, match="'patient' is written twice"):
        parse(twice, SCHEMA)


@pytest.mark.parametrize("body", [b"", b" ", b"%b,%b", b"%b],[%b", b"%b,", b"[%b]"])
def test_what_is_not_one_body_goes_the_careful_way(body: bytes) -> None:
    record = b'{"data": [{"a": 1.5, "b": 2, "patient": 7}]}'
    text = body.replace(b"%b", record)
    assert Decoder(SCHEMA).rows(text) is None
    with pytest.raises(RequestError):
        parse(text, SCHEMA)
    assert Decoder(SCHEMA).whole_rows([text, record]) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": [{**ROW, "patient": "x"}]}, "column 'patient': wants an integer"),
        ({"data": [{**ROW, "visit": 1}]}, "column 'visit': wants a text"),
        ({"data": [{**ROW, "other": 1}]}, "unknown column 'other'; the columns are: a, b"),
        ({"data": [{"a": 1, "patient": 1}]}, "missing column 'b'"),
        ({"data": [[1.5, 2, 7]]}, "3 values for 2 columns"),
    ],
)
def test_what_is_wrong_is_refused(body: dict[str, Any], message: str) -> None:
    data = json.dumps(body).encode()
    assert Decoder(SCHEMA).rows(data) is None
    with pytest.raises(RequestError, match=message):
        parse(data, SCHEMA)


def test_a_version_without_keys_refuses_them(tmp_path: Path) -> None:
    version = exported(tmp_path, 1)
    schema = Predictor.load(version.bundle, version.digest).schema
    assert schema.keys == ()
    with pytest.raises(RequestError, match="unknown column 'patient'"):
        parse(json.dumps(KEYED[0]).encode(), replace(SCHEMA, keys=()))


def test_the_answer_is_that_of_the_features(tmp_path: Path) -> None:
    version = keyed(tmp_path, 1)
    predictor = Predictor.load(version.bundle, version.digest)
    tensors = [
        {"name": name, "shape": [1], "datatype": kind, "data": [value]}
        for name, kind, value in [("visit", "BYTES", "v"), ("a", "FP64", 1.5), ("b", "INT64", 2)]
    ]
    body = json.dumps({"inputs": tensors}).encode()
    assert infer(body, predictor, "1")[1].values == [1003.5]
    embedded = Embedded(version.bundle, version.digest)
    assert embedded.predict([{**ROW, "patient": 7}]) == {"predictions": [1003.5]}
    columns = {"a": [1.5], "b": [2], "patient": [7]}
    assert embedded.predict(columns) == {"predictions": [1003.5]}


def test_they_are_described_and_not_asked_for(tmp_path: Path) -> None:
    version = keyed(tmp_path, 1)
    schema = Predictor.load(version.bundle, version.digest).schema
    record = openapi(schema, 1)["components"]["schemas"]["Record"]
    assert record["required"] == ["a", "b"]
    assert set(record["properties"]) == {"a", "b", "patient", "visit"}
