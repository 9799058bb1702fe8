"""The quick way into a model: a body that is surely right, decoded and checked in one pass.

msgspec makes a parser out of types, and the types here are the version's contract: names, types,
ranges, categories. What this parser does not take is not wrong yet: ``payload`` looks at it
again, slowly, and either takes it or says in words what is wrong and where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.table import GREATEST

_TYPES: dict[str, Any] = {
    "float": Annotated[float, msgspec.Meta(ge=-GREATEST, le=GREATEST)],
    "integer": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "boolean": bool,
    "string": str,
}
Rows = Sequence[Sequence[Any]]
_Decoder = msgspec.json.Decoder[Any]


class Decoder:
    """Reads the bodies that applications send day by day."""

    def __init__(self, schema: Schema) -> None:
        self._names = list(schema.names)
        self._decoder = self._many = self._keyed = None
        # A time has too many spellings to be taken without a closer look.
        if all(feature.type in _TYPES for feature in schema.features):
            body = _body_type(schema)
            self._decoder, self._many = _Decoder(body), _Decoder(list[body])
            # A parser of its own: who sends no keys pays nothing for them.
            if schema.keys and all(feature.type in _TYPES for feature in schema.keys):
                self._keyed = _Decoder(list[_keyed_type(schema)])

    def rows(self, body: bytes) -> Rows | None:
        """The rows of a body, each a sequence of values in training order.

        Returns:
            None for whatever is not plainly right: wrong, or merely unusual.
        """
        rows = self._plain(body)
        if rows is not None or self._keyed is None:
            return rows
        count = len(self._names)
        keyed = self._with_keys(b"[%b]" % body, 1)
        return None if keyed is None else [row[:count] for row in keyed[0]]

    def whole_rows(self, bodies: Sequence[bytes]) -> tuple[Rows, list[int]] | None:
        """The rows of many bodies, parsed in one piece.

        Args:
            bodies: each one JSON value, as it is for whoever was answered.

        Returns:
            The rows of all, those with keys going on with all of the schema's; and how many each
            body has. None where one of them is not plainly right, or others have keys.
        """
        text = b"[%b]" % b",".join(bodies)
        found = self._together(text, len(bodies))
        return self._with_keys(text, len(bodies)) if found is None else found

    def _together(self, text: bytes, bodies: int) -> tuple[Rows, list[int]] | None:
        found = _parse(self._many, text)
        # Another number where one of them is none, or several.
        if found is None or len(found) != bodies:
            return None
        entries: list[Any] = []
        counts, colons = [], 0
        for one in found:
            rows, around = self._entries(one)
            if not rows:
                return None
            entries += rows
            counts.append(len(rows))
            colons += around
        rows = self._tuples(entries, colons, text.count(b":"))
        return None if rows is None else (rows, counts)

    def _with_keys(self, text: bytes, bodies: int) -> tuple[Rows, list[int]] | None:
        """The rows of records with keys; a key that a record lacks is None."""
        found = _parse(self._keyed, text)
        if found is None or len(found) != bodies:
            return None
        rows: list[Any] = []
        counts, colons = [], len(found)
        count = len(self._names)
        for one in found:
            given = [value for value in msgspec.structs.astuple(one) if value is not None]
            if len(given) != 1 or not given[0]:
                return None
            entries = [*map(msgspec.structs.astuple, given[0])]
            colons += sum(len(entry) - entry.count(msgspec.UNSET) for entry in entries)
            counts.append(len(entries))
            keys = [[None if v is msgspec.UNSET else v for v in entry[count:]] for entry in entries]
            rows += [(*e[:count], *k) for e, k in zip(entries, keys, strict=True)]
        return (rows, counts) if text.count(b":") == colons else None

    def _plain(self, body: bytes) -> Rows | None:
        found = _parse(self._decoder, body)
        if found is None:
            return None
        entries, colons = self._entries(found)
        return self._tuples(entries, colons, body.count(b":")) if entries else None

    def _tuples(self, entries: list[Any], colons: int, given: int) -> Rows | None:
        """The rows as tuples, if what was parsed accounts for all colons that were given."""
        if type(entries[0]) is not tuple:
            colons += len(entries) * len(self._names)
            try:
                entries = [*map(msgspec.structs.astuple, entries)]
            except TypeError:  # a list among the objects
                return None
        # A key that is written twice, of which the parser took the last, is a colon too many.
        return entries if given == colons else None

    def _entries(self, found: Any) -> tuple[Any, int]:
        """The list of rows, and how many colons stand around it."""
        # Of several forms at once one is taken here: the colons of the others are too many.
        value = found.data
        if value is None:
            others = (found.input_data, found.dataframe_split, found.dataframe_records)
            value = next((other for other in others if other is not None), None)
        if type(value) is list:
            return value, 1
        if value is None:
            return None, 0
        if value.columns != self._names:
            return None, 0  # another order
        if value.index is None:
            return value.data, 3
        return (value.data, 4) if len(value.index) == len(value.data) else (None, 0)


def _parse(decoder: _Decoder | None, text: bytes) -> Any:
    if decoder is None:
        return None
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _body_type(schema: Schema) -> Any:
    values = [_value_type(feature, schema) for feature in schema.features]
    record = msgspec.defstruct(
        "Record",
        [(f"f{number}", value) for number, value in enumerate(values)],
        # A column may have any name, a field may not.
        rename={f"f{number}": name for number, name in enumerate(schema.names)},
        forbid_unknown_fields=True,
        gc=False,
    )
    row = tuple[tuple(values)]  # type: ignore[misc]
    split = msgspec.defstruct(
        "Split",
        [("columns", list[str]), ("data", list[row]), ("index", list[int | str] | None, None)],
        forbid_unknown_fields=True,
    )
    rows = list[record | row]
    return msgspec.defstruct(
        "Body",
        [
            ("data", rows | None, None),
            ("input_data", rows | split | None, None),
            ("dataframe_split", split | None, None),
            ("dataframe_records", list[record] | None, None),
        ],
        forbid_unknown_fields=True,
    )


def _keyed_type(schema: Schema) -> Any:
    """Records that may have keys; all other forms with keys are looked at with care."""
    fields: list[Any] = [
        (f"f{number}", _value_type(feature, schema))
        for number, feature in enumerate(schema.features)
    ]
    fields += [
        (f"k{number}", _TYPES[key.type] | None | msgspec.UnsetType, msgspec.UNSET)
        for number, key in enumerate(schema.keys)
    ]
    names = zip((name for name, *_ in fields), (*schema.names, *schema.key_names), strict=True)
    record = msgspec.defstruct(
        "Keyed", fields, rename=dict(names), forbid_unknown_fields=True, gc=False
    )
    forms = ("data", "input_data", "dataframe_records")
    return msgspec.defstruct(
        "KeyedBody",
        [(form, list[record] | None, None) for form in forms],
        forbid_unknown_fields=True,
    )


def _value_type(feature: Feature, schema: Schema) -> Any:
    found: Any = _TYPES[feature.type]
    # Where nothing follows from the contract's ranges they are no reason for a second look.
    if schema.ranges != "ignore":
        if feature.categories is not None:
            found = Literal[feature.categories]  # pyright: ignore[reportInvalidTypeForm]
        elif feature.minimum is not None or feature.maximum is not None:
            found = _bounded(feature)
    return found | None if feature.nullable else found


def _bounded(feature: Feature) -> Any:
    low = -GREATEST if feature.minimum is None else max(feature.minimum, -GREATEST)
    high = GREATEST if feature.maximum is None else min(feature.maximum, GREATEST)
    if feature.type == "float":
        return Annotated[float, msgspec.Meta(ge=low, le=high)]
    least, most = math.ceil(max(low, -(2**63))), math.floor(min(high, 2**63 - 1))
    return Annotated[int, msgspec.Meta(ge=least, le=most)]
