"""Twenty thousand bodies that nobody should send, and clients that nobody should be."""

from __future__ import annotations

import http.client
import json
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.scoring.protocol import Limits
from tests.bundles import exported_classifier
from tests.scoring.raw_client import HEALTH, KEY, Client, Worker, post, worker

BODIES = 20_000
#: Bytes by which a worker may have grown after all of them: allocators keep a little.
GROWTH = 16 * 2**20
IDLE = 5_000
ROW: dict[str, Any] = {"size": 3.5, "colour": "red"}
SIZE = {"name": "size", "shape": [1, 1], "datatype": "FP64", "data": [3.5]}
COLOUR = {"name": "colour", "shape": [1, 1], "datatype": "BYTES", "data": ["red"]}

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
rows = st.one_of(
    st.just(ROW),
    st.fixed_dictionaries({"size": anything, "colour": anything}),
    st.lists(anything, max_size=3),
    anything,
)
splits = st.fixed_dictionaries(
    {
        "columns": st.just(["size", "colour"]) | st.lists(scalars, max_size=3),
        "data": st.lists(rows, max_size=3) | anything,
    },
    optional={"index": st.lists(scalars, max_size=3) | anything, "more": scalars},
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["size", "colour"]) | scalars,
        "shape": st.just([1, 1]) | anything,
        "datatype": st.sampled_from(["FP64", "BYTES", "INT64", "BOOL"]) | scalars,
        "data": st.lists(scalars, max_size=3) | anything,
    },
)
forms = st.one_of(
    st.builds(lambda key, value: {key: value}, st.sampled_from(["data", "input_data"]), splits),
    st.builds(
        lambda key, value: {key: value},
        st.sampled_from(["data", "input_data", "dataframe_records", "dataframe_split", "x"]),
        st.lists(rows, max_size=3) | anything,
    ),
    splits.map(lambda value: {"dataframe_split": value}),
    st.builds(
        lambda tensors, more: {"inputs": tensors, **more},
        st.just([SIZE, COLOUR]) | st.lists(tensors, max_size=3),
        st.fixed_dictionaries({}, optional={"id": scalars, "outputs": anything}),
    ),
    anything,
)
texts = forms.map(lambda value: json.dumps(value).encode())


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """JSON of nearly the right form, whole or damaged; deep nests; bytes."""
    body = draw(texts)
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return draw(st.binary(max_size=80))
    if kind == 1:
        return body[: draw(st.integers(0, len(body)))]
    if kind == 2:
        place = draw(st.integers(0, len(body)))
        return body[:place] + draw(st.binary(min_size=1, max_size=4)) + body[place:]
    if kind == 3:
        depth = draw(st.integers(1, 20_000))
        return draw(st.sampled_from([b"[", b'{"data":', b'{"data":[{"size":'])) * depth
    if kind == 4:
        return body.replace(b'"size"', b'"size": 1, "size"')
    return body


def _ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_bodies_that_nobody_should_send(tmp_path: Path) -> None:
    version = exported_classifier(tmp_path, ranges="warn")
    found: Counter[int] = Counter()
    sizes: list[int] = []
    with worker(tmp_path / "endpoint", version, Limits()) as server:
        process = psutil.Process(server.process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

        @settings(
            max_examples=BODIES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(bodies(), st.sampled_from(["/score", "/score", "/v2/models/tiny/infer"]))
        def ask(body: bytes, path: str) -> None:
            status, answer = _ask(connection, path, body)
            assert status in (200, 400, 413), (status, body, answer)
            value = json.loads(answer)
            keys = {"error"} if status != 200 else {"predictions", "outputs"}
            assert keys & set(value), answer
            found[status] += 1
            total = sum(found.values())
            if total % 500 == 0:
                assert server.ask(HEALTH).body == b"Healthy"
                sizes.append(process.memory_info().rss)

        ask()
        assert _ask(connection, "/score", json.dumps({"data": [ROW]}).encode())[0] == 200
    total = sum(found.values())
    print(f"\n{total} bodies: {dict(found)}; RSS {sizes[3] / 2**20:.1f} MB after 2,000, ", end="")
    print(f"{sizes[-1] / 2**20:.1f} MB at the end")
    assert total >= BODIES * 0.9  # hypothesis leaves out what it has asked already
    assert found[400] > total / 2
    assert sizes[-1] - sizes[3] < GROWTH


def _times(server: Worker, count: int = 300) -> list[float]:
    """Milliseconds of each score of a newcomer, sorted."""
    client = server.client()
    found: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        client.send(post(json.dumps({"data": [ROW]}).encode()))
        assert client.answer().status == 200
        found.append(1000 * (time.perf_counter() - started))
    return sorted(found)


def test_others_are_served_beside_clients_that_nobody_should_be(tmp_path: Path) -> None:
    """One byte a second, answers that nobody takes, thousands who say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, IDLE + 1000), hard))
    version = exported_classifier(tmp_path)
    limits = Limits(request=3, answer=3)
    try:
        with worker(tmp_path / "endpoint", version, limits) as server:
            alone = _times(server)
            idle = [server.client() for _ in range(IDLE)]
            deaf = [server.client(buffer=4096) for _ in range(4)]
            batch = post(json.dumps({"data": [ROW] * 3000}).encode())
            for client in deaf:
                client.send(batch, batch, batch)
            dripping = [server.client() for _ in range(20)]
            request = post(json.dumps({"data": [ROW]}).encode())
            for second in range(4):
                _drip(dripping, request[second : second + 1])
                crowd = _times(server)
                time.sleep(1)
            assert server.healthy()
            assert server.refused("timeout") == len(dripping)
            assert not any(client.has_ended() for client in idle)
            print(
                f"\np50 and p99 of a score alone {alone[150]:.2f}, {alone[297]:.2f} ms; beside "
                f"{IDLE} idle, {len(dripping)} slow, {len(deaf)} deaf clients "
                f"{crowd[150]:.2f}, {crowd[297]:.2f} ms"
            )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _drip(clients: list[Client], byte: bytes) -> None:
    for client in clients:
        if not client.has_ended():
            client.send(byte)
