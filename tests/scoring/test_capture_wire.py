"""Blocks of records, however they are cut on their way; and what nobody can take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.scoring.capture import wire
from mlops_assets.scoring.capture.sender import BLOCK_BYTES, Sender, Taken
from mlops_assets.scoring.capture.settings import SOCKET, CaptureSettings
from mlops_assets.scoring.capture.wire import NO_SOURCE, BrokenError, Record, block, cut
from mlops_assets.scoring.capture.writer import Writer
from mlops_assets.scoring.http import SCORE, Reply, Request
from mlops_assets.scoring.metrics import Metrics
from tests.bundles import exported

records = st.tuples(
    st.integers(0, 2**63 - 1),
    st.binary(max_size=20),
    st.integers(NO_SOURCE, 3),
    st.sampled_from([200, 400, 503]),
    st.floats(0, 100),
    st.binary(max_size=300),
    st.binary(max_size=300),
)


@given(st.lists(st.lists(records, min_size=1, max_size=5), max_size=6), st.data())
def test_blocks_arrive_as_they_were_sent(blocks: list[list[Record]], data: st.DataObject) -> None:
    stream = b"".join(block([["v1", n, "d", "b"]], sent) for n, sent in enumerate(blocks))
    received = bytearray()
    found: list[Record] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += stream[:size]
        stream = stream[size:]
        sources, more = cut(received)
        found += more
        assert not more or sources[0][0] == "v1"
    assert found == [record for sent in blocks for record in sent]
    assert not received


@pytest.mark.parametrize("sent", [b"\xff" * 9, b"\0\0\0\3abc", b"\0\0\0\1\x90"])
def test_what_is_no_block(sent: bytes) -> None:
    with pytest.raises(BrokenError):
        cut(bytearray(sent))


def test_a_value_that_no_file_can_hold_costs_the_rows_beside_it_alone(tmp_path: Path) -> None:
    version = exported(tmp_path / "made", 1)
    metrics = Metrics(tmp_path)
    writer = Writer(tmp_path, CaptureSettings(str(tmp_path / "kept")), metrics)
    sources = [["v1", 1, version.digest, str(version.bundle)]]
    body = b'{"data": [{"a": 1, "b": 2}]}'

    def record(answer: bytes) -> Record:
        return 10**18, b"id", 0, 200, 0.1, body, answer

    writer.take(sources, [record(b'{"predictions": ["not a number"]}')] * 600)
    writer.take(sources, [record(b'{"predictions": [1.5]}')] * 3)
    writer.close()
    assert metrics.not_captured == {"unwritable": 600}
    (path,) = (tmp_path / "kept").rglob("*.parquet")
    assert pq.read_table(path, partitioning=None)["mlops_prediction"].to_pylist() == [1.5] * 3


def test_an_answer_that_cannot_be_sent_does_not_hold_up_the_next(tmp_path: Path) -> None:
    dropped: list[tuple[str, int]] = []

    async def answer(*statuses: int) -> bytes:
        sender = Sender(tmp_path, 1.0, lambda reason, count: dropped.append((reason, count)))
        turns = asyncio.create_task(sender.run())
        for status in statuses:
            sender.take(_answered(status))
            await asyncio.sleep(0.1)
        turns.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await turns
        connection, _ = listening.accept()
        with connection:
            sender.close()
            return connection.recv(2**16)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / SOCKET))
        listening.listen()
        sent = asyncio.run(answer(2**70, 200))
    _, records = cut(bytearray(sent))
    assert [record[3] for record in records] == [200]
    assert dropped == [("unwritable", 1)]


def test_a_record_that_no_block_can_hold_is_dropped_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAXIMUM_BLOCK", 1000)
    dropped: list[tuple[str, int]] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / SOCKET))
        listening.listen()
        sender = Sender(tmp_path, 1.0, lambda reason, count: dropped.append((reason, count)))
        for status, size in ((201, 10), (202, BLOCK_BYTES), (203, 10)):
            sender.take(_answered(status, b"x" * size))
        sender.close()
        connection, _ = listening.accept()
        with connection:
            _, records = cut(bytearray(connection.recv(2**16)))
    assert [record[3] for record in records] == [201, 203]
    assert dropped == [("too_large", 1)]


def _answered(status: int, scored: bytes = b"{}") -> Taken:
    async def receive() -> dict[str, Any]:
        return {}

    request = Request("POST", SCORE, {}, [(b"x-request-id", b"1")], receive, [])
    return request, Reply(status, b"{}", scored=scored), 0.0, 0.1
