"""What Azure ML's data collector has kept of an online endpoint, as captured rows.

It writes ``<folder>/<endpoint>/<deployment>/<collection>/YYYY/MM/DD/HH/<instance>.jsonl``, one
CloudEvent a line; the two sides of a request have the same ``correlationid``. Collections
``request`` and ``response`` are the bodies as they went over the wire, which any container has;
``model_inputs`` and ``model_outputs`` are tables, of scoring scripts that log them. Source:
Microsoft's "Collect production data from models deployed for real-time inferencing".
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.scoring.capture.rows import RowBuffer
from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.capture.wire import NO_SOURCE, Record
from mlops_assets.scoring.questions import asks_for_metrics
from mlops_assets.scoring.schema import Schema

#: Where it writes by default, below the container of the workspace's blob store.
FOLDER = "modelDataCollector"
#: What a path says, below the folder of an endpoint.
_PATH = re.compile(
    r"(?P<deployment>[^/]+)/(?P<collection>request|response|model_inputs|model_outputs)/"
    r"(?P<hour>\d{4}/\d\d/\d\d/\d\d)/[^/]+\.jsonl"
)
#: Pairs of collections, those that say more first.
_PAIRS = (("request", "response"), ("model_inputs", "model_outputs"))
_ANSWERS = ("response", "model_outputs")
#: Events that are read of one side before it is the other's turn, so that few of them wait.
_IN_TURN = 1_000
#: Requests that are decoded at a time, and become a row group of the file.
_TOGETHER = 20_000


class Place(NamedTuple):
    """What the name of a file says."""

    deployment: str
    collection: str
    hour: dt.datetime


class _Event(msgspec.Struct):
    """Of an event what is read; the data as they stand there."""

    data: msgspec.Raw
    time: dt.datetime
    correlationid: str | None = None
    xrequestid: str | None = None
    datainblob: str | bool | None = None


class _Side(NamedTuple):
    """One side of a request."""

    collection: str
    data: bytes
    #: Of its event.
    at: dt.datetime
    identity: str


def read_collected(
    folder: Path, names: Sequence[str], deployment: str, schema: Schema, path: Path
) -> int:
    """Write what was collected of a deployment as a captured file.

    Its status is not collected: an answer that is an error of ours is 500 where it says
    ``internal``, and else 400; all others are 200. Nor is the time that a request took.

    Args:
        folder: of the endpoint.
        names: of the deployment's files below it.
        deployment: as the platform names deployments, ``v7-3ac66b21``.
        schema: of the version that it serves.
        path: the file to write.

    Returns:
        Requests that are not in it: of large bodies, which lie elsewhere, not to be understood, or
        with one side alone, as the last one may have.
    """
    buffer = RowBuffer(schema, CaptureSettings(""))
    served = (deployment, version_of(deployment))
    collected = _Collected(folder, names)
    asked = (r for r in collected.records() if not asks_for_metrics(r[5]))
    unread = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with pq.ParquetWriter(temporary, buffer.schema, compression="zstd") as writer:
        while some := [*islice(asked, _TOGETHER)]:
            batches, wrong = _batches(buffer, served, some)
            unread += wrong
            for batch in batches:
                writer.write_batch(batch)
    temporary.replace(path)
    return unread + collected.unread


def _batches(
    buffer: RowBuffer, served: tuple[str, int | None], records: Sequence[Record]
) -> tuple[list[pa.RecordBatch], int]:
    """The rows of some requests, and how many of these are not to be understood."""
    try:
        wrong = len(buffer.extend(served, records))
        return [buffer.batch()] if len(buffer) else [], wrong
    except Exception:
        buffer.clear()
        if len(records) == 1:
            return [], 1
        # One of them has a value that no column holds.
        middle = len(records) // 2
        halves = [_batches(buffer, served, half) for half in (records[:middle], records[middle:])]
        return halves[0][0] + halves[1][0], halves[0][1] + halves[1][1]


def place_of(name: str) -> Place | None:
    """What a name below the endpoint's folder says; None for one that is no collector's."""
    found = _PATH.fullmatch(name)
    if found is None:
        return None
    hour = dt.datetime.strptime(found["hour"], "%Y/%m/%d/%H")
    return Place(found["deployment"], found["collection"], hour.replace(tzinfo=dt.UTC))


class _Collected:
    """The events of a deployment, of which at most those of two hours are in memory."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        #: Hour -> collection -> files.
        self._files: dict[dt.datetime, dict[str, list[Path]]] = {}
        for name in sorted(names):
            place = place_of(name)
            if place is not None:
                of_hour = self._files.setdefault(place.hour, {})
                of_hour.setdefault(place.collection, []).append(folder / name)
        #: Key -> the side that waits for the other one, None once both were there; of this hour
        #: and of the one before.
        self._now: dict[str, _Side | None] = {}
        self._before: dict[str, _Side | None] = {}
        #: Events that tell of no request, or of one whose other side is missing.
        self.unread = 0
        self._decode = msgspec.json.Decoder(_Event).decode

    def records(self) -> Iterator[Record]:
        """The requests that have both sides."""
        for asked, answered in self._pairs():
            try:
                yield _record(asked, answered)
            except (ValueError, RecursionError):  # texts that are no JSON, or not UTF-8
                self.unread += 1

    def _pairs(self) -> Iterator[tuple[_Side, _Side]]:
        """What was asked and answered, each once: what is collected may be collected twice."""
        for hour in sorted(self._files):
            for key, side in self._events(self._files[hour]):
                found = self._before if key in self._before else self._now
                other = found.setdefault(key, side)
                if other is not None and other.collection != side.collection:
                    found[key] = None
                    yield (other, side) if side.collection in _ANSWERS else (side, other)
            self._next_hour()
        self._next_hour()

    def _next_hour(self) -> None:
        self.unread += sum(side is not None for side in self._before.values())
        self._before, self._now = self._now, {}

    def _events(self, files: dict[str, list[Path]]) -> Iterator[tuple[str, _Side]]:
        """The events of an hour, by their keys."""
        # The other pair would tell of the same requests again.
        pair = next(pair for pair in _PAIRS if any(name in files for name in pair))
        sides = [(name, _lines(files.get(name, []))) for name in pair]
        while sides:
            for side in [*sides]:
                name, lines = side
                some = [*islice(lines, _IN_TURN)]
                if not some:
                    sides.remove(side)
                yield from self._read(name, some)

    def _read(self, collection: str, lines: Iterable[bytes]) -> Iterator[tuple[str, _Side]]:
        for line in lines:
            try:
                event = self._decode(line)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):  # the last, half-written
                self.unread += 1
                continue
            key = event.correlationid or event.xrequestid
            if key is None or str(event.datainblob).lower() == "true":
                self.unread += 1
                continue
            identity = event.xrequestid or key
            yield key, _Side(collection, bytes(event.data), event.time, identity)


def _lines(files: Sequence[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            yield from (line for line in file if not line.isspace())


def _record(asked: _Side, answered: _Side) -> Record:
    body, answer = _body(asked.data), _answer(answered.data)
    status = _status(answer)
    if status != 200:
        body = answer = b""
    at = answered.at if answered.at.tzinfo else answered.at.replace(tzinfo=dt.UTC)
    # An id is a header's value, and of those bytes.
    identity = asked.identity.encode("latin-1", "replace")
    return round(at.timestamp() * 1e6) * 1000, identity, NO_SOURCE, status, None, body, answer


def _body(data: bytes) -> bytes:
    """What was asked, as a body of ``/score``."""
    if data.startswith(b"["):
        return b'{"data":%b}' % data
    return _text(data)


def _answer(data: bytes) -> bytes:
    """What was answered, as an answer of ``/score``."""
    if data.startswith(b"["):
        predictions = [_prediction(value) for value in json.loads(data)]
        return json.dumps({"predictions": predictions}).encode()
    return _text(data)


def _text(data: bytes) -> bytes:
    """A body, which may stand in its event as a text."""
    return json.loads(data).encode("utf-8", "replace") if data.startswith(b'"') else data


def _prediction(value: Any) -> Any:
    """The prediction of a row of a table of outputs: its column ``prediction``, or the first."""
    if not isinstance(value, dict):
        return value
    return value.get("prediction", next(iter(value.values()), None))


def _status(answer: bytes) -> int:
    if b'"error"' not in answer:
        return 200
    try:
        found = json.loads(answer)
        code = found["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return 200
    return 500 if code == "internal" else 400


def version_of(deployment: str) -> int | None:
    """The version that a deployment serves, by its name; None for one of another's making."""
    found = re.match(r"v(\d+)-", deployment)
    return int(found[1]) if found else None
