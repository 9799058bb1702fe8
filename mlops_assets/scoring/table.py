"""A request's rows as checked columns: whatever form they came in, this is what is scored.

Types are strict: a text is no number, 3.5 is no integer, true is no 1. Ranges and categories of
the contract are not: a model must also answer for what it has not seen.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.schema import Feature, Schema

#: Trees and ONNX compute in 32 bits; a greater number would overflow in some model and not others.
GREATEST = 3.4028234663852886e38
INTEGERS = range(-(2**63), 2**63)
#: Rows of one request. What is more is a batch job, and would only time out.
MAXIMUM_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of one length, in training order, every value of its feature's type or None."""

    columns: Mapping[str, Sequence[Any]]
    rows: int
    #: Those of the schema's keys that the request has; they are not scored.
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, Sequence[Any]])


def from_records(records: Sequence[Any], schema: Schema, most: int | None = MAXIMUM_ROWS) -> Table:
    """Turn objects ``{column: value}`` into a table.

    Args:
        records: one object per row.
        schema: what the model wants.
        most: so many rows at most; None takes any number.

    Raises:
        RequestError: naming row and column.
    """
    _some(records, most)
    names = schema.names
    wanted, keys = set(names), set(schema.key_names)
    found: set[str] = set()
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise RequestError(f"row {row}: wants an object of columns, found {_shown(record)}")
        if record.keys() != wanted:
            if record.keys() - keys != wanted:
                _refuse_columns(record, schema, f"row {row}: ")
            found |= record.keys() & keys
    columns = {name: [record[name] for record in records] for name in names}
    columns |= {name: [record.get(name) for record in records] for name in found}
    return _checked(columns, schema)


def from_rows(rows: Sequence[Any], columns: Sequence[str], schema: Schema) -> Table:
    """Turn lists of values into a table.

    Args:
        rows: one list of values per row.
        columns: the columns' names in the order of the values.
        schema: what the model wants.

    Raises:
        RequestError: naming row and column, both counted from 0.
    """
    _some(rows, MAXIMUM_ROWS)
    for row, values in enumerate(rows):
        if not isinstance(values, list):
            raise RequestError(f"row {row}: wants a list of values, found {_shown(values)}")
        if len(values) != len(columns):
            raise RequestError(
                f"row {row}: {len(values)} values for {len(columns)} columns: {', '.join(columns)}"
            )
    transposed = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return _checked({name: list(values) for name, values in transposed.items()}, schema)


def from_columns(columns: Mapping[str, Sequence[Any]], schema: Schema) -> Table:
    """Turn columns of one length, of any number of rows, into a table.

    Raises:
        RequestError: naming row and column.
    """
    check_columns(columns, schema)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        shown = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise RequestError(f"columns: want one number of values, and {shown}")
    _some(columns[schema.names[0]], None)
    return _checked({name: list(values) for name, values in columns.items()}, schema)


def check_columns(columns: Iterable[Any], schema: Schema) -> list[str]:
    """The names of a request's columns, if they are those of the schema; raises RequestError."""
    names = list(columns)
    for name in names:
        if not isinstance(name, str):
            raise RequestError(f"columns: wants texts, found {_shown(name)}")
    if twice := written_twice(names):
        raise RequestError(f"columns: {_listed(twice)} written twice")
    if set(names) - set(schema.key_names) != set(schema.names):
        _refuse_columns(names, schema, "")
    return names


class Outside(NamedTuple):
    """A value that the data contract does not allow; there may be as many as values."""

    row: int
    feature: Feature
    value: Any

    @property
    def column(self) -> str:
        """Where it stands."""
        return self.feature.name

    @property
    def message(self) -> str:
        """The value's place and what is wrong with it."""
        low, high = _range(self.feature)
        problem = f"is outside the contract's range {low} to {high}"
        if not _listed_in(self.value, self.feature.categories):
            problem = "is none of the contract's categories"
        return f"row {self.row}, column '{self.column}': {_shown(self.value)} {problem}"


def out_of_contract(table: Table, schema: Schema) -> list[Outside]:
    """The values that the data contract does not allow, column by column."""
    found: list[Outside] = []
    for feature in schema.features:
        allowed, (low, high) = feature.categories, _range(feature)
        if allowed is None and (low, high) == (-math.inf, math.inf):
            continue
        for row, value in enumerate(table.columns[feature.name]):
            if value is None:
                continue
            beyond = isinstance(value, (int, float)) and not low <= value <= high
            if beyond or not _listed_in(value, allowed):
                found.append(Outside(row, feature, value))
    return found


def written_twice(names: Iterable[str]) -> list[str]:
    """The names that stand there more than once; a body may hold a million."""
    return [name for name, count in Counter(names).items() if count > 1]


def _some(rows: Sequence[Any], most: int | None) -> None:
    if not rows:
        raise RequestError("data holds no row; send at least one")
    if most is not None and len(rows) > most:
        raise too_many_rows(len(rows))


def too_many_rows(rows: int) -> RequestError:
    """What becomes of a request that is too long."""
    message = f"{rows} rows; send at most {MAXIMUM_ROWS} at a time"
    return RequestError(message, 413, "too_many_rows")


def _refuse_columns(found: Iterable[str], schema: Schema, place: str) -> None:
    given, known = dict.fromkeys(found), {*schema.names, *schema.key_names}
    missing = [name for name in schema.names if name not in given]
    unknown = [name for name in given if name not in known]
    parts = [f"missing column {_listed(missing)}"] if missing else []
    parts += [f"unknown column {_listed(unknown)}"] if unknown else []
    raise RequestError(f"{place}{'; '.join(parts)}; the columns are: {', '.join(schema.names)}")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def _checked(columns: dict[str, list[Any]], schema: Schema) -> Table:
    rows = len(columns[schema.features[0].name])
    checked = {f.name: list(_values(columns[f.name], f)) for f in schema.features}
    keys = {f.name: list(_values(columns[f.name], f)) for f in schema.keys if f.name in columns}
    return Table(checked, rows, keys)


def _values(values: list[Any], feature: Feature) -> Iterator[Any]:
    convert = _CONVERTERS[feature.type]
    for row, value in enumerate(values):
        if value is None:
            if not feature.nullable:
                raise RequestError(
                    f"row {row}, column '{feature.name}': null, and the column is not nullable"
                )
            yield None
            continue
        try:
            yield convert(value)
        except (ValueError, OverflowError) as error:
            raise RequestError(f"row {row}, column '{feature.name}': {error}") from None


def _float(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise ValueError(f"wants a number, found {_shown(value)}")
    if not -GREATEST <= value <= GREATEST:  # NaN is in no range
        raise ValueError(f"wants a finite number below 3.4e38, found {_shown(value)}")
    return float(value)


def _integer(value: Any) -> int:
    whole = type(value) is int or (type(value) is float and value.is_integer())
    if not whole:
        raise ValueError(f"wants an integer, found {_shown(value)}")
    if int(value) not in INTEGERS:
        raise ValueError(f"wants an integer of 64 bits, found {_shown(value)}")
    return int(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"wants true or false, found {_shown(value)}")
    return value


def _string(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"wants a text, found {_shown(value)}")
    if not value.isascii():
        value.encode()  # a lone surrogate, which JSON can spell, is a ValueError here
    return value


def _timestamp(value: Any) -> dt.datetime:
    if type(value) is not str:
        raise ValueError(f"wants an ISO 8601 text, found {_shown(value)}")
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"wants an ISO 8601 time, found {_shown(value)}") from None
    return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment


_CONVERTERS = {
    "float": _float,
    "integer": _integer,
    "boolean": _boolean,
    "string": _string,
    "timestamp": _timestamp,
}


def _listed_in(value: Any, categories: tuple[Any, ...] | None) -> bool:
    return categories is None or value in categories


def _range(feature: Feature) -> tuple[float, float]:
    low = -math.inf if feature.minimum is None else feature.minimum
    high = math.inf if feature.maximum is None else feature.maximum
    return low, high


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value not in INTEGERS:
        return "an integer of more than 64 bits"  # its digits may be longer than Python prints
    text = ascii(value)  # a lone surrogate cannot be sent back as it is
    return text if len(text) <= 60 else f"{text[:57]}..."
