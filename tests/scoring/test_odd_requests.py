"""Requests that nobody should send; tests/system/test_scoring_fuzz.py asks twenty thousand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlops_assets.scoring.connections import Limits
from tests.bundles import exported_classifier
from tests.scoring.bodies import INFER, SCORE, Fuzz
from tests.scoring.raw_client import Worker, post, worker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    root = tmp_path_factory.mktemp("odd")
    with worker(root / "endpoint", exported_classifier(root, ranges="warn"), Limits()) as found:
        yield found


def test_some_hundred_odd_requests(server: Worker) -> None:
    fuzz = Fuzz(server.port)
    fuzz.run(600)
    for path in (SCORE, INFER):
        assert 0.1 < fuzz.answered(path, 200) < 0.5
        assert fuzz.answered(path, 400) > 0.4
    assert server.healthy()


#: Names, keys or values in a body of 2 to 8 MB. What looks at each beside each other one takes
#: hours for them.
MANY = 300_000
NAMES = b",".join(b'"c%d"' % number for number in range(MANY))
KEYS = b",".join(b'"c%d":1' % number for number in range(MANY))
SIZE = b'{"name":"size","shape":[1,1],"datatype":"FP64","data":[3.5]}'
COLOUR = b'{"name":"colour","shape":[1,1],"datatype":"BYTES","data":["red"]}'
ROW = b'[1,"red"]'


def _split(columns: bytes, index: bytes = b"null") -> bytes:
    return b'{"input_data":{"columns":[%b],"index":%b,"data":[%b]}}' % (columns, index, ROW)


def _inputs(inputs: bytes, outputs: bytes = b"null") -> bytes:
    return b'{"inputs":[%b,%b],"outputs":%b}' % (inputs, COLOUR, outputs)


def _many(value: bytes) -> bytes:
    return b",".join([value] * MANY)


LARGE = {
    "a column, again and again": _split(_many(b'"size"')),
    "many columns": _split(NAMES),
    "many columns, one of them twice": _split(NAMES + b',"c9"'),
    "a long index": _split(b'"size","colour"', b"[%b]" % _many(b"1")),
    "many keys": b"{%b}" % KEYS,
    "many keys, one of them twice": b'{%b,"c9":1}' % KEYS,
    "many keys in a record": b'{"data":[{%b}]}' % KEYS,
    "many keys in a record, one of them twice": b'{"data":[{%b,"c9":1}]}' % KEYS,
    "a wide row": b'{"data":[[%b]]}' % _many(b"1"),
    "many rows": b'{"data":[%b]}' % _many(ROW),
    "a long number": b'{"data":[[%b,"red"]]}' % (b"9" * 2**22),
    "a deep nest": b"[" * 2**22,
    "outputs, again and again": _inputs(SIZE, b"[%b]" % _many(b'{"name":"label"}')),
    "an input, again and again": _inputs(b",".join([SIZE] * (MANY // 4))),
    "a long shape": _inputs(SIZE.replace(b"[1,1]", b"[%b]" % _many(b"1"))),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_body_that_is_odd_costs_no_more_than_its_bytes(server: Worker, name: str) -> None:
    body = LARGE[name]
    path = INFER if body.startswith(b'{"inputs"') else SCORE
    client = server.client()
    client.send(post(body, path=path))
    assert server.healthy()
    assert client.answer().error[0] in (400, 413)
