"""Requests that nobody should send, made out of those that everybody does.

For the version of ``tests.bundles.exported_classifier``: a float ``size``, a nullable ``colour``.
"""

from __future__ import annotations

import copy
import http.client
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scoring.raw_client import KEY, PATIENCE

SCORE, INFER = "/score", "/v2/models/tiny/infer"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, -0.0]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["red", "", "\ud800", "\0", "size"]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)

# -- as they should be

sizes = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)
colours = st.sampled_from(["red", "blue", "green", "", None, "é"])
records = st.lists(
    st.fixed_dictionaries({"size": sizes, "colour": colours}), min_size=1, max_size=3
)  # fmt: skip
rows = records.map(lambda found: [[*row.values()] for row in found])


def _split(found: list[list[Any]], *, swapped: bool, index: bool) -> dict[str, Any]:
    split: dict[str, Any] = {"columns": ["size", "colour"], "data": found}
    if swapped:
        split = {"columns": ["colour", "size"], "data": [row[::-1] for row in found]}
    return {**split, "index": [*range(len(found))]} if index else split


splits = st.builds(_split, rows, swapped=st.booleans(), index=st.booleans())
scored = st.one_of(
    records.map(lambda value: {"data": value}),
    rows.map(lambda value: {"data": value}),
    splits.map(lambda value: {"input_data": value}),
    splits.map(lambda value: {"dataframe_split": value}),
    records.map(lambda value: {"dataframe_records": value}),
)


def _tensors(found: list[list[Any]], *, nested: bool) -> dict[str, Any]:
    columns = [*zip(*found, strict=True)]
    shape = [len(found), 1] if nested else [len(found)]
    data = [[[value] for value in column] if nested else [*column] for column in columns]
    inputs = [
        {"name": name, "shape": shape, "datatype": datatype, "data": values}
        for name, datatype, values in zip(["size", "colour"], ["FP64", "BYTES"], data, strict=True)
    ]
    return {"inputs": inputs}


inferred = st.builds(
    lambda inputs, more: {**inputs, **more},
    st.builds(_tensors, rows, nested=st.booleans()),
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.sampled_from(["\ud800", "7", "", "é"]),
            "outputs": st.sampled_from([["label"], [], ["probabilities", "label"]]).map(
                lambda names: [{"name": name} for name in names]
            ),
            "parameters": st.just({"x": 1}),
        },
    ),
)


# -- as they should not be


@st.composite
def harmed(draw: st.DrawFn, whole: Any) -> Any:
    """A body with something else in a place of it, or nothing, or the same once more."""
    body = copy.deepcopy(whole)
    parent: Any = None
    key: Any = None
    place = body
    while isinstance(place, (dict, list)) and place and (parent is None or draw(st.booleans())):
        parent = place
        key = draw(st.sampled_from([*place]) if isinstance(place, dict) else _numbers(place))
        place = parent[key]
    if parent is None:
        return draw(anything)
    what = draw(st.integers(0, 3))
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, list):
        parent.insert(key, place)
    else:
        parent[key] = draw(anything)
    return body


def _numbers(place: list[Any]) -> st.SearchStrategy[int]:
    return st.integers(0, len(place) - 1)


SPELLINGS = ("bytes", "cut", "struck", "deep", "twice", "led")


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> bytes:
    """JSON, whole or damaged; now and then a deep nest, or bytes."""
    body = json.dumps(value).encode()
    match draw(st.sampled_from([*("whole",) * 10, *SPELLINGS])):
        case "bytes":
            return draw(st.binary(max_size=80))
        case "cut":
            return body[: draw(st.integers(0, len(body)))]
        case "struck":
            place = draw(st.integers(0, len(body)))
            return body[:place] + draw(st.binary(min_size=1, max_size=4)) + body[place:]
        case "deep":
            depth = draw(st.integers(1, 20_000))
            return draw(st.sampled_from([b"[", b'{"data":', b'{"data":[{"size":'])) * depth
        case "twice":
            return body.replace(b'"size"', b'"size": 1, "size"')
        case "led":
            return draw(st.sampled_from([b"\xef\xbb\xbf", b" \n", b"\0"])) + body
        case _:
            return body


@dataclass(frozen=True, slots=True)
class Odd:
    """A request of which something may be odd."""

    path: str
    headers: dict[str, str]
    body: bytes


headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/xml", "", "a/b; charset=utf-7"]),
        "content-encoding": st.sampled_from(["gzip", "identity"]),
        "azureml-model-deployment": st.sampled_from(["live", "nobody", "", "\xff"]),
        "x-request-id": st.sampled_from(["i", "\xff", "i" * 101]),
        "accept": st.sampled_from(["*/*", "text/plain"]),
    },
)


NONE: dict[str, str] = {}


@st.composite
def requests(draw: st.DrawFn) -> Odd:
    """A request; one in a few is as it should be."""
    path = draw(st.sampled_from([SCORE, INFER]))
    right, other = (scored, inferred) if path == SCORE else (inferred, scored)
    value = draw(draw(st.sampled_from([*(right,) * 9, other])))
    if draw(st.sampled_from([False, True, True])):
        value = draw(harmed(value))
    return Odd(
        path, draw(draw(st.sampled_from([*(st.just(NONE),) * 7, headers]))), draw(spelled(value))
    )


#: What may come of them.
ALLOWED = {200, 400, 404, 413, 431}


@dataclass(slots=True)
class Fuzz:
    """Asks on one connection, and counts."""

    port: int
    #: Called with the number of answers, after each.
    then: Callable[[int], None] | None = None
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    def run(self, examples: int) -> None:
        """Ask so many odd requests, the same ones each time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(requests())
        def ask(odd: Odd) -> None:
            connection.request("POST", odd.path, odd.body, self._headers(odd))
            answer = connection.getresponse()
            value = json.loads(answer.read())
            assert answer.status in ALLOWED, (answer.status, odd, value)
            if answer.status == 200:
                assert ("predictions" in value) == (odd.path == SCORE), value
            else:
                assert set(value) == {"error"}
                assert value["error"]["message"]
            self.statuses[odd.path, answer.status] += 1
            if self.then is not None:
                self.then(self.statuses.total())

        ask()
        connection.close()

    def answered(self, path: str, status: int) -> float:
        """The share of a path's requests with a status."""
        asked = sum(count for (other, _), count in self.statuses.items() if other == path)
        return self.statuses[path, status] / asked

    @staticmethod
    def _headers(odd: Odd) -> dict[str, str]:
        return {"authorization": f"Bearer {KEY}", **odd.headers}
