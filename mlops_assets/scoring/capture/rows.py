"""What was asked and answered, as rows: decoded as the server did it, without what is not kept.

Loaded in the capture process and by who reads Azure's own collection; needs pyarrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from mlops_assets.scoring.capture.settings import PREDICTION, CaptureSettings
from mlops_assets.scoring.capture.wire import Record
from mlops_assets.scoring.decoder import Decoder, Rows
from mlops_assets.scoring.inference_protocol import table as from_tensors
from mlops_assets.scoring.payload import parse, parse_json
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import Table

#: Of so few requests each is read for itself where they cannot be read in one piece.
_FEW = 8
#: So many rows become arrays while the processor's cache has their values.
_PACKED = 512
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
        predicted = settings.keeps_prediction(schema)
        fields: list[Any] = [*META]
        kind = pa.float64() if schema.task == "regression" else pa.string()
        fields += [(PREDICTION, kind)] if predicted else []
        fields += [(feature.name, _TYPES[feature.type]) for feature in kept]
        self.schema = pa.schema(fields)
        count = len(META)
        #: Where each column of a batch stands among those that wait.
        self._places = [*range(count), *([count] if predicted else [])]
        self._places += [count + 1 + names.index(feature.name) for feature in kept]
        self._texts = schema.task != "regression"
        self._decoder = Decoder(schema)
        self._answer = msgspec.json.Decoder(_Answer)
        self._answers = msgspec.json.Decoder(list[_Answer])
        self._nothing = (None,) * len(names)
        self.clear()

    def __len__(self) -> int:
        return len(self._columns[0]) + sum(batch.num_rows for batch in self._packed)

    def add(self, request: Request, body: bytes, answer: bytes) -> None:
        """Take a request; one without a body is a row without values.

        Raises:
            UndecodableError: the body or the answer is none; nothing was taken.
        """
        at, identity, *served, status, seconds = request
        rows, predictions = self._decoded(body, answer) if body else ([self._nothing], [None])
        count = len(predictions)
        meta = [[value] * count for value in (round(at * 1e6), identity, *served, status, seconds)]
        self.requests += 1
        self._append(meta, [*range(count)] if body else [None], rows, predictions)

    def extend(self, served: tuple[str | None, int | None], records: Sequence[Record]) -> list[str]:
        """Take many requests of one deployment, by and large at the price of parsing them.

        Args:
            served: the deployment's name and version.
            records: as workers hand them on; of their sources nothing is asked.

        Returns:
            Why requests cannot be read, one text for each of them; they were not taken.
        """
        if not records:
            return []
        columns = [*zip(*records, strict=True)]
        bodies, answers = columns[5:]
        found = self._decoded_together(bodies, answers) if all(bodies) else None
        if found is not None:
            self._extend(served, columns, *found)
            return []
        if len(bodies) > _FEW:
            # What is unusual in one of them is not the price of all.
            middle = len(bodies) // 2
            halves = (records[:middle], records[middle:])
            return [text for half in halves for text in self.extend(served, half)]
        wrong: list[str] = []
        for at, identity, _, status, seconds, body, answer in records:
            request = Request(at / 1e9, identity.decode("latin-1"), *served, status, seconds)
            try:
                self.add(request, body, answer)
            except UndecodableError as error:
                wrong.append(str(error))
        return wrong

    def batch(self) -> pa.RecordBatch:
        """The rows as a batch; they no longer wait here.

        Raises:
            Exception: Arrow cannot hold a value; all rows are still here.
        """
        self._pack()
        packed = self._packed
        self.clear()
        return packed[0] if len(packed) == 1 else pa.concat_batches(packed)

    def clear(self) -> None:
        """Forget the rows."""
        self._packed: list[pa.RecordBatch] = []
        self._columns = self._no_columns()
        #: Requests whose rows wait here.
        self.requests = 0

    def _no_columns(self) -> list[list[Any]]:
        """Those of META, the prediction, features and keys."""
        return [[] for _ in range(len(META) + 1 + len(self._nothing))]

    def _pack(self) -> None:
        arrays = [
            pa.array(self._columns[place], field.type)
            for place, field in zip(self._places, self.schema, strict=True)
        ]
        self._packed.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._columns = self._no_columns()

    def _extend(
        self,
        served: tuple[str | None, int | None],
        columns: Sequence[Sequence[Any]],
        counts: Sequence[int],
        rows: Rows,
        predictions: Sequence[Any],
    ) -> None:
        requests = len(counts)
        at, identities, _, statuses, seconds = columns[:5]
        names, versions = (((one,) * requests) for one in served)
        identities = [identity.decode("latin-1") for identity in identities]
        at = [nanoseconds // 1000 for nanoseconds in at]
        meta: list[Sequence[Any]] = [at, identities, names, versions, statuses, seconds]
        numbers: Sequence[int] = (0,) * requests
        if len(predictions) != requests:
            meta = [[v for v, n in zip(one, counts, strict=True) for _ in range(n)] for one in meta]
            numbers = [number for count in counts for number in range(count)]
        self.requests += requests
        self._append(meta, numbers, rows, predictions)

    def _append(
        self,
        meta: Sequence[Sequence[Any]],
        numbers: Sequence[int | None],
        rows: Rows,
        predictions: Sequence[Any],
    ) -> None:
        """Take rows, already counted, with what is known of the request of each."""
        columns = [*meta[:2], numbers, *meta[2:], predictions, *zip(*rows, strict=True)]
        nothing = (None,) * len(numbers)  # keys that nobody sent
        columns += [nothing] * (len(self._columns) - len(columns))
        for waiting, values in zip(self._columns, columns, strict=True):
            waiting += values
        if len(self._columns[0]) >= _PACKED:
            self._pack()

    def _decoded(self, body: bytes, answer: bytes) -> tuple[Rows, Sequence[Any]]:
        try:
            found = self._answer.decode(answer)
            predictions = _predictions(found)
            rows = self._from_tensors(body) if found.outputs is not None else self._found(body)
        except Exception as error:  # its text may quote a value that is not to be seen anywhere
            raise UndecodableError(type(error).__name__) from None
        if len(rows) != len(predictions):
            raise UndecodableError("another number of rows than of answers")
        return rows, self._labelled(predictions)

    def _decoded_together(
        self, bodies: Sequence[bytes], answers: Sequence[bytes]
    ) -> tuple[list[int], Rows, Sequence[Any]] | None:
        """Number of rows of each request, the rows, the predictions; None if one is unusual."""
        decoded = self._decoder.whole_rows(bodies)
        if decoded is None:
            return None
        rows, counts = decoded
        try:
            found = self._answers.decode(b"[%b]" % b",".join(answers))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        each = [one.predictions for one in found if one.predictions is not None]
        if [*map(len, each)] != counts:
            return None
        return counts, rows, self._labelled([*chain.from_iterable(each)])

    def _labelled(self, predictions: Sequence[Any]) -> Sequence[Any]:
        if not self._texts:
            return predictions
        return [v if type(v) is str or v is None else json.dumps(v) for v in predictions]

    def _found(self, body: bytes) -> Rows:
        found = self._decoder.whole_rows([body])
        return self._from_table(parse(body, self._input)) if found is None else found[0]

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
