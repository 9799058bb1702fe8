"""What was asked and answered, as rows: decoded as the server did it, without what is not kept.

Loaded in the capture process and by who reads Azure's own collection; needs pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from mlops_assets.scoring.capture.settings import PREDICTION, CaptureSettings
from mlops_assets.scoring.decoder import Decoder, Rows
from mlops_assets.scoring.inference_protocol import table as from_tensors
from mlops_assets.scoring.payload import parse, parse_json
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import Table

#: Columns that every row has.
META = (
    ("mlops_time", pa.timestamp("us", tz="UTC")),
    ("mlops_request", pa.string()),
    ("mlops_row", pa.int32()),
    ("mlops_deployment", pa.string()),
    ("mlops_version", pa.int32()),
    ("mlops_status", pa.int16()),
    ("mlops_seconds", pa.float64()),
)
_TYPES = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}


class Request(NamedTuple):
    """One request: what is known of it beside its rows."""

    #: Unix seconds of its answer.
    at: float
    identity: str
    #: None where none answered.
    deployment: str | None
    version: int | None
    status: int
    seconds: float | None


class UndecodableError(Exception):
    """A request and its answer do not fit together; its text has no value of them."""


class _Answer(msgspec.Struct):
    """Of an answer what is kept; the rest of it is passed over."""

    predictions: list[Any] | None = None
    outputs: list[dict[str, Any]] | None = None


class RowBuffer:
    """Rows of one version, until they are a batch."""

    def __init__(self, schema: Schema, settings: CaptureSettings) -> None:
        """No rows yet.

        Args:
            schema: the version's.
            settings: what of it is kept.
        """
        self._input = schema
        names = (*schema.names, *schema.key_names)
        kept = settings.kept(schema)
        #: Where each kept column stands in a row.
        self._places = [names.index(feature.name) for feature in kept]
        self._predicted = settings.keeps_prediction(schema)
        fields: list[Any] = [*META]
        kind = pa.float64() if schema.task == "regression" else pa.string()
        fields += [(PREDICTION, kind)] if self._predicted else []
        fields += [(feature.name, _TYPES[feature.type]) for feature in kept]
        self.schema = pa.schema(fields)
        self._texts = schema.task != "regression"
        self._decoder = Decoder(schema)
        self._answer = msgspec.json.Decoder(_Answer)
        self._missing = (None,) * len(schema.keys)
        self._nothing: tuple[Any, ...] = (None,) * len(names)
        self._wide = len(names)
        self._meta: list[tuple[Any, ...]] = []
        self._rows: list[Sequence[Any]] = []
        #: Requests whose rows wait here.
        self.requests = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, request: Request, body: bytes, answer: bytes) -> None:
        """Take a request; one without a body is a row without values.

        Raises:
            UndecodableError: the body or the answer is none; nothing was taken.
        """
        at = round(request.at * 1e6)
        head, tail = (at, request.identity), request[2:]
        if not body:
            self._meta.append((*head, None, *tail, None))
            self._rows.append(self._nothing)
        else:
            rows, predictions = self._decoded(body, answer)
            self._rows += rows
            self._meta += [
                (*head, number, *tail, prediction) for number, prediction in enumerate(predictions)
            ]
        self.requests += 1

    def batch(self) -> pa.RecordBatch:
        """The rows as a batch; they no longer wait here."""
        meta, rows = [*zip(*self._meta, strict=True)], [*zip(*self._rows, strict=True)]
        columns = [*meta[:-1], *([meta[-1]] if self._predicted else [])]
        columns += [rows[place] for place in self._places]
        self.clear()
        arrays = [
            pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def clear(self) -> None:
        """Forget the rows."""
        self._meta, self._rows, self.requests = [], [], 0

    def _decoded(self, body: bytes, answer: bytes) -> tuple[Rows, list[Any]]:
        try:
            found = self._answer.decode(answer)
            predictions = _predictions(found)
            rows = self._from_tensors(body) if found.outputs is not None else self._found(body)
        except Exception as error:  # its text may quote a value that is not to be seen anywhere
            raise UndecodableError(type(error).__name__) from None
        if len(rows) != len(predictions):
            raise UndecodableError("another number of rows than of answers")
        if self._texts:
            predictions = [v if type(v) is str or v is None else json.dumps(v) for v in predictions]
        if len(rows[0]) < self._wide:
            rows = [(*row, *self._missing) for row in rows]
        return rows, predictions

    def _found(self, body: bytes) -> Rows:
        rows = self._decoder.whole_rows(body)
        return self._from_table(parse(body, self._input)) if rows is None else rows

    def _from_tensors(self, body: bytes) -> Rows:
        return self._from_table(from_tensors(parse_json(body)["inputs"], self._input))

    def _from_table(self, table: Table) -> Rows:
        missing = (None,) * table.rows
        features = [table.columns[name] for name in self._input.names]
        keys = [table.keys.get(name, missing) for name in self._input.key_names]
        return [*zip(*features, *keys, strict=True)]


def _predictions(answer: _Answer) -> list[Any]:
    if answer.predictions is not None:
        return answer.predictions
    for output in answer.outputs or ():
        if output["name"] in ("prediction", "label"):
            return output["data"]
    raise UndecodableError("no predictions")
