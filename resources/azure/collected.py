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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from mlops_assets.scoring.capture.rows import Request, RowBuffer, UndecodableError
from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.questions import asks_for_metrics
from mlops_assets.scoring.schema import Schema

#: Where it writes by default, below the container of the workspace's blob store.
FOLDER = "modelDataCollector"
#: What a path says, below the folder of an endpoint.
_PATH = re.compile(
    r"(?P<deployment>[^/]+)/(?:request|response|model_inputs|model_outputs)/"
    r"(?P<hour>\d{4}/\d\d/\d\d/\d\d)/[^/]+\.jsonl"
)
#: Pairs of collections, those that say more first.
PAIRS = (("request", "response"), ("model_inputs", "model_outputs"))
#: The two sides of a request may lie in neighbouring hours.
_HOUR = dt.timedelta(hours=1)


@dataclass
class Collected:
    """Captured rows of a deployment, and what could not be read of them."""

    table: pa.Table
    #: Events without the other side, of large bodies that lie elsewhere, or not to be understood.
    unread: int


@dataclass
class _Sides:
    """The two sides of the requests, by their id."""

    asked: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    answered: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    #: Of the span's own hours.
    unread: int = 0

    def alone(self, since: dt.datetime, until: dt.datetime) -> int:
        """Requests of a span of which one side is missing."""
        every = {**self.asked, **self.answered}
        times = [_time(every[key]) for key in self.asked.keys() ^ self.answered.keys()]
        return sum(time is None or since <= time < until for time in times)


def read_collected(
    folder: UPath | Path,
    endpoint: str,
    deployment: str,
    schema: Schema,
    since: dt.datetime,
    until: dt.datetime,
    *,
    version: int | None = None,
    settings: CaptureSettings | None = None,
) -> Collected:
    """Read what was collected of a deployment in a span of time.

    Its status is not collected: an answer that is an error of ours is 500 where it says
    ``internal``, and else 400; all others are 200. Nor is the time that a request took.

    Args:
        folder: the collector's.
        endpoint: its name on Azure.
        deployment: likewise.
        schema: of the version that it serves.
        since: with a time zone; the first moment.
        until: likewise; the first moment after it.
        version: the version; by default as the platform names deployments, ``v7-3ac66b21``.
        settings: what is taken; all by default.

    Raises:
        OSError: storage does not answer.
    """
    place = folder / endpoint / deployment
    buffer = RowBuffer(schema, settings or CaptureSettings(""))
    number = version_of(deployment) if version is None else version
    unread = 0
    for names in PAIRS:
        sides = _sides(place, names, since, until)
        unread += sides.unread + sides.alone(since, until)
        for key in [k for k in sides.asked if k in sides.answered]:
            unread += not _add(buffer, sides, key, (deployment, number), (since, until))
        if sides.asked:
            break  # the other pair would tell of the same requests again
    batches = [buffer.batch()] if len(buffer) else []
    return Collected(pa.Table.from_batches(batches, buffer.schema), unread)


def place_of(name: str) -> tuple[str, dt.datetime] | None:
    """Deployment and hour of a file, by its name below the endpoint's folder."""
    found = _PATH.fullmatch(name)
    if found is None:
        return None
    hour = dt.datetime.strptime(found["hour"], "%Y/%m/%d/%H")
    return found["deployment"], hour.replace(tzinfo=dt.UTC)


def write_collected(found: Collected, path: Path) -> None:
    """Write rows as captured files have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(found.table, temporary, compression="zstd")
    temporary.replace(path)


def _add(
    buffer: RowBuffer,
    sides: _Sides,
    key: str,
    served: tuple[str, int | None],
    span: tuple[dt.datetime, dt.datetime],
) -> bool:
    asked, answered = sides.asked[key], sides.answered[key]
    moment = _time(answered)
    if moment is None:
        return False
    if not span[0] <= moment < span[1]:
        return True
    body, answer = _body(asked), _answer(answered)
    if asks_for_metrics(body):
        return True
    status = _status(answer)
    if status != 200:
        body = answer = b""
    identity = str(asked.get("xrequestid") or key)
    request = Request(moment.timestamp(), identity, *served, status, None)
    try:
        buffer.add(request, body, answer)
    except UndecodableError:
        return False
    return True


def _sides(
    place: UPath | Path, names: tuple[str, str], since: dt.datetime, until: dt.datetime
) -> _Sides:
    sides = _Sides()
    for name, found in zip(names, (sides.asked, sides.answered), strict=True):
        for line, within in _lines(place / name, since, until):
            event = _event(line)
            key = event and (event.get("correlationid") or event.get("xrequestid"))
            if event is None or not isinstance(key, str):
                sides.unread += within
            else:
                found[key] = event
    return sides


def _lines(
    place: UPath | Path, since: dt.datetime, until: dt.datetime
) -> Iterator[tuple[str, bool]]:
    """The lines of a span and of the hours around it, and whether they are the span's own."""
    hour = since.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0) - _HOUR
    while hour < until + _HOUR:
        folder = place / f"{hour:%Y}" / f"{hour:%m}" / f"{hour:%d}" / f"{hour:%H}"
        if folder.is_dir():
            for path in sorted(folder.glob("*.jsonl"), key=str):
                lines = path.read_text("utf-8").splitlines()
                yield from ((line, since <= hour < until) for line in lines if line.strip())
        hour += _HOUR


def _event(line: str) -> dict[str, Any] | None:
    """An event whose data stand in it; None for any other."""
    try:
        found = json.loads(line)
    except ValueError:  # its last line, half-written
        return None
    large = isinstance(found, dict) and str(found.get("datainblob", "")).lower() == "true"
    return found if isinstance(found, dict) and "data" in found and not large else None


def _body(event: dict[str, Any]) -> bytes:
    """What was asked, as a body of ``/score``."""
    data = event["data"]
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    return json.dumps({"data": data} if isinstance(data, list) else data).encode()


def _answer(event: dict[str, Any]) -> bytes:
    """What was answered, as an answer of ``/score``."""
    data = event["data"]
    if isinstance(data, str):
        return data.encode("utf-8", "replace")
    if isinstance(data, list):
        data = {"predictions": [_prediction(value) for value in data]}
    return json.dumps(data).encode()


def _prediction(value: Any) -> Any:
    """The prediction of a row of a table of outputs: its column ``prediction``, or the first."""
    if not isinstance(value, dict):
        return value
    return value.get("prediction", next(iter(value.values()), None))


def _status(answer: bytes) -> int:
    try:
        found = json.loads(answer)
        code = found["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return 200
    return 500 if code == "internal" else 400


def _time(event: dict[str, Any]) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(str(event.get("time")))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def version_of(deployment: str) -> int | None:
    """The version that a deployment serves, by its name; None for one of another's making."""
    found = re.match(r"v(\d+)-", deployment)
    return int(found[1]) if found else None
