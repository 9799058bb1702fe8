from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.table import out_of_contract

SCHEMA = Schema(
    model="m",
    task="regression",
    target="y",
    features=(
        Feature("f", "float", nullable=True, minimum=0, maximum=10),
        Feature("i", "integer"),
        Feature("b", "boolean", nullable=True),
        Feature("s", "string", nullable=True, categories=("x", "y")),
        Feature("t", "timestamp", nullable=True),
    ),
)
ROW: dict[str, Any] = {"f": 1.5, "i": 2, "b": True, "s": "x", "t": "2024-01-01T00:00:00Z"}
VALUES = [1.5, 2, True, "x", dt.datetime(2024, 1, 1)]
NAMES = ["f", "i", "b", "s", "t"]


@pytest.mark.parametrize(
    "payload",
    [
        {"data": [ROW]},
        {"data": [dict(reversed(ROW.items()))]},
        {"data": [list(ROW.values())]},
        {"input_data": [ROW]},
        {"input_data": {"columns": NAMES, "index": [0], "data": [list(ROW.values())]}},
        {"input_data": {"columns": NAMES[::-1], "data": [list(ROW.values())[::-1]]}},
    ],
)
def test_every_form_gives_the_same_table(payload: Any) -> None:
    table = parse(json.dumps(payload).encode(), SCHEMA)
    assert table.rows == 1
    assert table.columns == {name: [value] for name, value in zip(NAMES, VALUES, strict=True)}
    assert list(table.columns) == NAMES


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"f": 3}, 3.0),
        ({"f": None}, None),
        ({"f": 1e38}, 1e38),
        ({"i": 3.0}, 3),
        ({"i": -(2**63)}, -(2**63)),
        ({"s": "never seen"}, "never seen"),
        ({"s": "\u0000é😀"}, "\u0000é😀"),
        ({"b": None}, None),
        ({"t": None}, None),
        ({"t": "2024-01-01T02:00:00+02:00"}, dt.datetime(2024, 1, 1)),
        ({"t": "2024-01-01"}, dt.datetime(2024, 1, 1)),
    ],
)
def test_values_that_are_taken(change: dict[str, Any], value: Any) -> None:
    table = parse(json.dumps({"data": [{**ROW, **change}]}).encode(), SCHEMA)
    (name,) = change
    assert table.columns[name] == [value]
    assert type(table.columns[name][0]) is type(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": "1.5"}, "row 1, column 'f': wants a number, found '1.5'"),
        ({"f": True}, "row 1, column 'f': wants a number, found true"),
        ({"f": 1e39}, "row 1, column 'f': wants a finite number below 3.4e38, found 1e+39"),
        (
            {"f": 10**400},
            "column 'f': wants a finite number below 3.4e38, found an integer of more",
        ),
        ({"f": [1]}, "row 1, column 'f': wants a number, found a list"),
        ({"i": 1.5}, "row 1, column 'i': wants an integer, found 1.5"),
        ({"i": None}, "row 1, column 'i': null, and the column is not nullable"),
        ({"i": 2**63}, "row 1, column 'i': wants an integer of 64 bits"),
        ({"i": 1e300}, "row 1, column 'i': wants an integer of 64 bits"),
        ({"i": False}, "row 1, column 'i': wants an integer, found false"),
        ({"b": 1}, "row 1, column 'b': wants true or false, found 1"),
        ({"s": 1}, "row 1, column 's': wants a text, found 1"),
        ({"s": "\ud800"}, "row 1, column 's': 'utf-8' codec can't encode"),
        ({"t": "yesterday"}, "row 1, column 't': wants an ISO 8601 time, found 'yesterday'"),
        ({"t": 5}, "row 1, column 't': wants an ISO 8601 text, found 5"),
        ({"t": "0001-01-01T00:00:00+14:00"}, "row 1, column 't': "),
        ({"y": 1, "z": 2}, "row 1: unknown column 'y', 'z'; the columns are: f, i, b, s, t"),
    ],
)
def test_values_that_are_refused_name_row_and_column(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(json.dumps({"data": [ROW, {**ROW, **change}]}).encode(), SCHEMA)
    assert message in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"{", "not JSON: Expecting property name"),
        (b"\xff", "not UTF-8"),
        (b'{"data": [{"f": NaN}]}', "NaN is not JSON; send null"),
        (b'{"data": [{"f": -Infinity}]}', "-Infinity is not JSON"),
        (b'{"data": [{"f": ' + b"1" * 5000 + b"}]}", "a number of the body is too long"),
        (b'{"data": ' + b"[" * 100_000, "nested too deeply"),
        (b"[1]", "the body must be an object"),
        (
            b"{}",
            "0 keys; the body has one key of data, input_data, dataframe_split, dataframe_records",
        ),
        (b'{"data": [], "input_data": []}', "2 keys"),
        (b'{"data": [], "method": "x"}', "unknown key 'method'"),
        (b'{"data": []}', "data holds no row"),
        (b'{"input_data": []}', "data holds no row"),
        (b'{"data": {"f": 1}}', "data: wants a list of rows"),
        (b'{"data": [1]}', "row 0: wants an object of columns, found 1"),
        (b'{"data": [[1, 2]]}', "row 0: 2 values for 5 columns: f, i, b, s, t"),
        (b'{"data": [[1, 2, true, "x", null], {}]}', "row 1: wants a list of values"),
        (b'{"data": [{}]}', "row 0: missing column 'f', 'i', 'b', 's', 't'"),
        (b'{"data": [{"f": 1, "f": 2}]}', "'f' is written twice in one object"),
        (b'{"input_data": {"columns": ["f"]}}', "wants the lists 'columns' and 'data'"),
        (b'{"input_data": {"columns": [], "data": [], "x": 1}}', "unknown key 'x'; allowed"),
        (b'{"input_data": {"columns": ["f", "f"], "data": [[1, 2]]}}', "'f' written twice"),
        (b'{"input_data": {"columns": [1], "data": [[1]]}}', "columns: wants texts, found 1"),
        (b'{"input_data": {"columns": ["f"], "data": [[1]]}}', "missing column 'i', 'b', 's', 't'"),
        (
            b'{"input_data": {"columns": ["f","i","b","s","t"], "index": [1], "data": []}}',
            "input_data.index: wants a list as long as data",
        ),
        (
            b'{"input_data": {"columns": ["f","i","b","s","t"], "data": []}}',
            "data holds no row",
        ),
    ],
)
def test_bodies_that_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(body, SCHEMA)
    assert message in caught.value.message
    assert caught.value.status == 400


def test_many_unknown_columns_make_a_short_message() -> None:
    record = {**ROW, **{f"x{number}": 1 for number in range(1000)}}
    with pytest.raises(RequestError, match="and 990 more") as caught:
        parse(json.dumps({"data": [record]}).encode(), SCHEMA)
    assert len(caught.value.message) < 300


def test_what_lies_outside_the_contract_is_found() -> None:
    def outside(*rows: dict[str, Any]) -> list[str]:
        table = parse(json.dumps({"data": rows}).encode(), SCHEMA)
        return [found.message for found in out_of_contract(table, SCHEMA)]

    assert outside(ROW, {**ROW, "f": None, "s": None}) == []
    high = "row 1, column 'f': 11.0 is outside the contract's range 0 to 10"
    assert outside(ROW, {**ROW, "f": 11}) == [high]
    unseen = "row 0, column 's': 'z' is none of the contract's categories"
    assert outside({**ROW, "s": "z"}) == [unseen]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{" + ",".join(f'"k{n}":0' for n in range(300_000)) + ',"k0":0}', "'k0' is written twice"),
        ('{"input_data":{"columns":[' + '"f","s",' * 300_000 + '"f"],"data":[]}}', "written twice"),
    ],
)
def test_a_million_names_are_looked_at_once_each(body: str, message: str) -> None:
    """Comparing each with each would take hours; the test's own time limit ends that."""
    with pytest.raises(RequestError, match=message):
        parse(body.encode(), SCHEMA)
