"""The quick path takes nothing that the careful one refuses, and means the same by it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.scoring.decoder import Decoder
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.table import out_of_contract

SCHEMA = Schema(
    model="m",
    task="regression",
    target="y",
    features=(
        Feature("a size", "float", minimum=0, maximum=10),
        Feature("n", "integer", nullable=True, minimum=0.5, maximum=7),
        Feature("class", "string", nullable=True, categories=("x", "y")),
        Feature("free", "string"),
        Feature("code", "integer", categories=(1, 2)),
        Feature("b", "boolean"),
    ),
    ranges="warn",
)
ROW: dict[str, Any] = {"a size": 1, "n": None, "class": None, "free": "é", "code": 2, "b": True}
DECODER = Decoder(SCHEMA)


def _body(value: Any) -> bytes:
    return json.dumps(value).encode()


def _split(*rows: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"columns": list(ROW), "data": [list(row.values()) for row in rows], **extra}


@pytest.mark.parametrize(
    "body",
    [
        {"data": [ROW]},
        {"data": [dict(reversed(ROW.items())), ROW]},
        {"data": [list(ROW.values())]},
        {"input_data": [ROW]},
        {"input_data": _split(ROW, ROW, index=[0, 1])},
        {"input_data": _split(ROW, index=["a"])},
        {"dataframe_split": _split(ROW)},
        {"dataframe_records": [ROW, ROW]},
    ],
)
def test_the_forms_of_every_day_are_taken(body: dict[str, Any]) -> None:
    rows = DECODER.rows(_body(body))
    assert rows is not None
    assert {tuple(row) for row in rows} == {(1.0, None, None, "é", 2, True)}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"data": []}',
        b'{"data": null}',
        b"\xff",
        b"[" * 100_000,
        _body({"data": [ROW], "input_data": [ROW]}),
        _body({"data": [ROW, list(ROW.values())]}),
        _body({"data": [list(ROW.values()), ROW]}),
        _body({"data": [{**ROW, "a size": 11}]}),
        _body({"data": [{**ROW, "n": 8}]}),
        _body({"data": [{**ROW, "n": 0}]}),
        _body({"data": [{**ROW, "n": 1.5}]}),
        _body({"data": [{**ROW, "class": "z"}]}),
        _body({"data": [{**ROW, "code": 3}]}),
        _body({"data": [{**ROW, "b": 1}]}),
        _body({"data": [{**ROW, "free": None}]}),
        _body({"data": [{**ROW, "more": 1}]}),
        _body({"data": [ROW]}).replace(b'"a size": 1', b'"a size": 1, "a size": 2'),
        _body({"data": [ROW]}).replace(b"1", b"NaN", 1),
        _body({"input_data": _split(ROW, index=[0, 1])}),
        _body({"input_data": {**_split(ROW), "columns": list(reversed(ROW))}}),
    ],
)
def test_everything_else_is_left_to_the_careful_path(body: bytes) -> None:
    assert DECODER.rows(body) is None


def test_a_colon_in_a_text_is_unusual_and_not_wrong() -> None:
    body = _body({"data": [{**ROW, "free": "a:b"}]})
    assert DECODER.rows(body) is None
    assert parse(body, SCHEMA).columns["free"] == ["a:b"]


def test_times_are_for_the_careful_path() -> None:
    schema = dataclasses.replace(SCHEMA, features=(Feature("at", "timestamp"),))
    assert Decoder(schema).rows(_body({"data": [{"at": "2026-01-01"}]})) is None


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([2**63 - 1, 2**63, -(2**63) - 1, 10**400]),
    st.floats(allow_nan=True),
    st.text(max_size=3),
    st.sampled_from(["x", "y"]),
)
records = st.fixed_dictionaries({name: values | st.just(ROW[name]) for name in ROW})


@settings(max_examples=400, deadline=None)
@given(
    st.lists(records, min_size=1, max_size=3),
    st.sampled_from(["ignore", "warn", "refuse"]),
    st.booleans(),
)
def test_what_is_taken_quickly_means_the_same_with_care(
    rows: list[dict[str, Any]], ranges: Any, as_lists: bool
) -> None:
    schema = dataclasses.replace(SCHEMA, ranges=ranges)
    data = [list(row.values()) for row in rows] if as_lists else rows
    body = _body({"data": data})
    found = Decoder(schema).rows(body)
    if found is None:
        return
    table = parse(body, schema)
    assert [dict(zip(ROW, row, strict=True)) for row in found] == [
        {name: table.columns[name][number] for name in ROW} for number in range(table.rows)
    ]
    if ranges != "ignore":
        assert not out_of_contract(table, schema)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_rubbish_is_never_taken(body: bytes) -> None:
    assert DECODER.rows(body) is None
    with pytest.raises(RequestError):
        parse(body, SCHEMA)
