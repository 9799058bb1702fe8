"""The body of a scoring request: the forms that Azure's clients send, read strictly.

``{"data": [{column: value}, ...]}``          records
``{"data": [[value, ...], ...]}``             rows in training order
``{"input_data": {"columns", "index", "data"}}``  pandas' "split" form, as MLflow models take it
``{"input_data": [{column: value}, ...]}``    records
``{"dataframe_split": {"columns", "index", "data"}}``  as MLflow's server takes it
``{"dataframe_records": [{column: value}, ...]}``      likewise
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import Table, check_columns, from_records, from_rows, written_twice

KEYS = ("data", "input_data", "dataframe_split", "dataframe_records")
FORMS = '{"data": [{column: value, ...}, ...]}'


def parse(body: bytes, schema: Schema) -> Table:
    """Read a request's body.

    Raises:
        RequestError: it is no JSON, has another form, or does not fit the schema.
    """
    payload = parse_json(body)
    if not isinstance(payload, dict):
        raise RequestError(f"the body must be an object such as {FORMS}")
    unknown = sorted(payload.keys() - set(KEYS))
    if unknown or len(payload) != 1:
        found = f"unknown key {ascii(unknown[0])[:60]}" if unknown else f"{len(payload)} keys"
        raise RequestError(f"{found}; the body has one key of {', '.join(KEYS)}: {FORMS}")
    key, value = next(iter(payload.items()))
    if key in ("input_data", "dataframe_split") and isinstance(value, dict):
        return _split(key, value, schema)
    if not isinstance(value, list) or key == "dataframe_split":
        raise RequestError(f"{key}: {_wanted(key)}")
    if value and isinstance(value[0], list) and key != "dataframe_records":
        return from_rows(value, schema.names, schema)
    return from_records(value, schema)


def parse_json(body: bytes) -> Any:
    """JSON as the standard has it: UTF-8, no NaN or Infinity, no key twice."""
    if not body.strip():
        raise RequestError(f"the body is empty; send {FORMS}", code="empty_body")
    try:
        return json.loads(body.decode(), parse_constant=_constant, object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise RequestError("the body is not UTF-8", code="bad_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="bad_json") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise RequestError(f"not JSON: {error.msg} at {place}", code="bad_json") from None
    except ValueError:  # an integer longer than Python converts
        raise RequestError("a number of the body is too long", code="bad_json") from None


def _wanted(key: str) -> str:
    if key == "dataframe_split":
        return 'wants {"columns": [...], "data": [[...], ...]}'
    return f"wants a list of rows: {FORMS}"


def _split(key: str, value: dict[str, Any], schema: Schema) -> Table:
    unknown = sorted(value.keys() - {"columns", "index", "data"})
    if unknown:
        raise RequestError(
            f"{key}: unknown key {ascii(unknown[0])[:60]}; allowed: columns, index, data"
        )
    columns, rows, index = value.get("columns"), value.get("data"), value.get("index")
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise RequestError(f"{key}: wants the lists 'columns' and 'data'")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise RequestError(f"{key}.index: wants a list as long as data")
    return from_rows(rows, check_columns(columns, schema), schema)


def _constant(name: str) -> NoReturn:
    raise RequestError(f"{name} is not JSON; send null for a missing number", code="bad_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = written_twice(key for key, _ in pairs)[0]
        raise RequestError(f"{ascii(twice)[:60]} is written twice in one object")
    return result
