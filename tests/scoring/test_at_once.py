"""What is answered at once, and what through ASGI: the same bytes and the same counts."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from mlops_assets.files import write_atomic
from mlops_assets.scoring import keys, protocol, responder
from mlops_assets.scoring.connections import Answer, Limits, Watch
from mlops_assets.scoring.deployments import Deployment, Deployments, Serving
from mlops_assets.scoring.generation import Entry, GenerationFile
from mlops_assets.scoring.http import Head, Headers
from mlops_assets.scoring.keys import KeyFile
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.mirror import Mirror
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.scoring.protocol import Connection, watched
from mlops_assets.scoring.responder import THREAD_BYTES
from mlops_assets.scoring.server import Application
from resources.endpoints.base import VersionRef
from tests.bundles import classifier, exported, exported_classifier
from tests.scoring.bodies import SCORE, Odd, requests
from tests.scoring.raw_client import get, post

RECORD = {"size": 1.5, "colour": "red"}
BODY = json.dumps({"data": [RECORD]}).encode()
CHUNKS = b"%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(BODY), BODY)
#: Where the model is served from its pickle.
PICKLED, STAGED = "pickled", "staged"


class Wire(asyncio.Transport):
    """The server's end of a connection; keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed: str | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed is None:  # as real ones: what comes later is lost
            self.written.append(bytes(data))

    def write_eof(self) -> None:
        self.closed = "eof"

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def is_closing(self) -> bool:
        return self.closed is not None

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Side:
    """One application behind its connections, with or without the short way."""

    def __init__(self, serving: Serving, key_file: Path, short: bool, **options: Any) -> None:
        self.deployments = Deployments(GenerationFile(key_file.parent))
        self.deployments.serving = serving
        self.metrics = Metrics()
        self.asked_at_once = 0
        self._application = Application(
            self.deployments, KeyFile(key_file), self.metrics, **options
        )
        limits = Limits(head=4096, framing=4096, pipelined=4)
        self.watch = Watch(limits, self.metrics.refuse, self if short else None)
        protocol = watched(self.watch)
        self._config = uvicorn.Config(
            self._application, http=protocol, ws="none", log_config=None, access_log=False
        )
        self._config.load()
        self._protocol: Callable[..., Connection] = protocol

    def read(self, headers: Headers) -> Head:
        return self._application.read(headers)

    def at_once(self, head: Head, body: bytes) -> Answer | None:
        answer = self._application.at_once(head, body)
        self.asked_at_once += answer is not None
        return answer

    def ask(self, chunks: Sequence[bytes], *, ends: bool = False) -> tuple[bytes, str | None]:
        """What one connection is answered to some chunks, and how it ends.

        Args:
            chunks: each received on its own, after what the one before led to.
            ends: the server is told to end after what the first chunk led to.
        """
        return asyncio.run(self._ask(chunks, ends))

    async def _ask(self, chunks: Sequence[bytes], ends: bool) -> tuple[bytes, str | None]:
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        connection, wire = self._protocol(self._config, state, {}), Wire()
        connection.connection_made(wire)
        for number, chunk in enumerate(chunks):
            if wire.closed is None:
                connection.data_received(chunk)
            await self._settle()
            if ends and number == 0:
                connection.shutdown()
        connection.connection_lost(None)
        await self._settle()
        assert not state.tasks
        written = b"".join(wire.written)
        return re.sub(rb"x-request-id: [0-9a-f]{16}-[0-9a-f]+", b"x-request-id: own", written), (
            wire.closed
        )

    async def _settle(self) -> None:
        """Let all happen that happens without the client, in threads too."""
        quiet = 0
        while quiet < 20:
            waits = self._application._waiting
            await asyncio.sleep(0.001 if waits else 0)
            quiet = 0 if waits else quiet + 1

    def counts(self) -> dict[str, Any]:
        """All that was counted but the times."""
        found = {n: (t.statuses, t.predictions, t.outside) for n, t in self.metrics.tallies.items()}
        return {**found, "refused": self.metrics.refused}


class Pair:
    """The same deployments on both ways."""

    def __init__(self, serving: Serving, key_file: Path, **options: Any) -> None:
        self.short = Side(serving, key_file, True, **options)
        self.long = Side(serving, key_file, False, **options)

    def serve(self, serving: Serving) -> None:
        for side in (self.short, self.long):
            side.deployments.serving = serving

    def same(self, *chunks: bytes, ends: bool = False) -> tuple[bytes, int]:
        """What both answer, and how often the short one did so at once."""
        before = self.short.asked_at_once
        found, expected = (side.ask(chunks, ends=ends) for side in (self.short, self.long))
        assert found == expected
        assert self.short.counts() == self.long.counts()
        return found[0], self.short.asked_at_once - before


def _deployment(name: str, version: VersionRef, traffic: int, served: Any = None) -> Deployment:
    entry = Entry(str(version.bundle), version.digest, version.version, traffic)
    return Deployment(name, entry, Predictor.load(version.bundle, version.digest, served))


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """However slow the machine is, the model is not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responder, "SLOW_SECONDS", math.inf)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("once")
    write_atomic(found / "keys", "first\nsecond\n", 0o600)
    return found


@pytest.fixture(scope="module")
def deployments(folder: Path) -> dict[str, Deployment]:
    (folder / "pickled").mkdir()
    version = exported_classifier(folder, ranges="warn")
    found = [
        _deployment("live", version, 100),
        _deployment(STAGED, exported(folder, 7), 0),
        _deployment(PICKLED, classifier(folder / "pickled", 3), 0),
    ]
    return {deployment.name: deployment for deployment in found}


@pytest.fixture(scope="module")
def pair(folder: Path, deployments: dict[str, Deployment]) -> Pair:
    serving = Serving(1, deployments, {"lost": "IntegrityError: model.pkl"})
    return Pair(serving, folder / "keys", cors_origins=["https://app.example"])


AT_ONCE: dict[str, tuple[bytes, int]] = {
    "a record": (post(BODY), 200),
    "a row": (post(b'{"data": [[1, "red"]]}'), 200),
    "some rows": (post(json.dumps({"data": [RECORD] * 40}).encode()), 200),
    "another order": (
        post(b'{"input_data": {"columns": ["colour", "size"], "data": [["red", 1]]}}'),
        200,
    ),
    "outside the contract": (post(b'{"data": [{"size": -1e9, "colour": "mauve"}]}'), 200),
    "ids of its own": (post(BODY, "x-request-id: 1", "TraceId: \xe9"), 200),
    "a deployment": (
        post(b'{"data": [{"a": 1, "b": 2}]}', f"azureml-model-deployment: {STAGED}"),
        200,
    ),
    "the second key": (post(BODY).replace(b"first", b"second"), 200),
    "an origin": (post(BODY, "origin: https://app.example"), 200),
    "another origin": (post(BODY, "origin: https://evil.example"), 200),
    "chunks": (post(CHUNKS, "transfer-encoding: chunked"), 200),
    "another protocol": (post(BODY, "connection: upgrade", "upgrade: h2c"), 200),
    "no body": (post(b""), 400),
    "no JSON": (post(b"{"), 400),
    "another column": (post(b'{"data": [{"size": 1, "color": "red"}]}'), 400),
    "no key": (post(BODY).replace(b"authorization", b"author"), 401),
    "a wrong key": (post(BODY).replace(b"first", b"third"), 401),
    "no such deployment": (post(BODY, "azureml-model-deployment: none"), 404),
    "a deployment that is lost": (post(BODY, "azureml-model-deployment: lost"), 503),
    "a long id": (post(BODY, "x-request-id: " + "1" * 101), 431),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_ONCE)
def test_answered_at_once(pair: Pair, name: str) -> None:
    request, status = AT_ONCE[name]
    answer, at_once = pair.same(request)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert at_once == 1
    again, at_once = pair.same(request, request, request)
    assert again == answer * 3
    assert at_once == 3


THROUGH_ASGI: dict[str, tuple[Sequence[bytes], int]] = {
    "in two parts": ((post(BODY)[:-1], post(BODY)[-1:]), 200),
    "a head and a body": ((post(BODY)[: -len(BODY)], BODY), 200),
    "the last answer": ((post(BODY, "connection: close"),), 200),
    "HTTP/1.0": ((post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),), 200),
    "an expectation": ((post(BODY, "expect: 100-continue"),), 100),
    "a query": ((post(BODY, path="/score?verbose=1"),), 200),
    "a served pickle": ((post(BODY, f"azureml-model-deployment: {PICKLED}"),), 200),
    "a large body": ((post(BODY + b" " * THREAD_BYTES),), 200),
    "GET with a body": ((post(BODY).replace(b"POST", b"GET"),), 200),
    "GET": ((get("/score"),), 405),
    "HEAD": ((get("/score").replace(b"GET", b"HEAD"),), 405),
    "PUT": ((post(BODY).replace(b"POST", b"PUT"),), 405),
    "OPTIONS": ((get("/score").replace(b"GET", b"OPTIONS"),), 200),
    "health": ((get("/"),), 200),
    "another route": ((post(BODY, path="/scores"),), 404),
    "a body beyond the limit": ((post(BODY, length=10**9),), 413),
    "a head beyond the limit": ((post(BODY, "x: " + "x" * 8000),), 431),
    "two lengths": ((post(BODY, "content-length: 1"),), 400),
    "no HTTP": ((b"nonsense\r\n\r\n",), 400),
}


@pytest.mark.parametrize("name", THROUGH_ASGI)
def test_answered_through_asgi(pair: Pair, name: str) -> None:
    chunks, status = THROUGH_ASGI[name]
    answer, at_once = pair.same(*chunks)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert at_once == 0
    pair.same(post(BODY), *chunks, post(BODY))


@pytest.mark.parametrize("ahead", [2, 4, 5, 9])
def test_requests_sent_ahead(pair: Pair, ahead: int) -> None:
    requests = [post(BODY, f"x-request-id: {number}") for number in range(ahead)]
    answer, at_once = pair.same(b"".join(requests))
    assert at_once == 0
    assert answer.count(b"HTTP/1.1 200 OK") == min(ahead, 5)
    pair.same(b"".join(requests)[:-1], post(BODY)[-1:] + post(BODY), post(BODY))
    pair.same(post(BODY) + b"nonsense", post(BODY))
    pair.same(post(BODY) + b"\x16", post(BODY))
    pair.same(b"\r\n\r\n" + post(BODY), post(BODY) + b"\r\n", post(BODY))


def test_a_server_that_ends(pair: Pair) -> None:
    for chunks in ((post(BODY),), (post(BODY)[:-1], post(BODY)[-1:]), (post(BODY) * 2,)):
        pair.same(*chunks, post(BODY), ends=True)


_REQUESTS = [request for request, _ in AT_ONCE.values()]
_REQUESTS += [b"".join(chunks) for chunks, _ in THROUGH_ASGI.values() if b"expect" not in chunks[0]]


@given(
    st.lists(st.sampled_from([r for r in _REQUESTS if len(r) < 10_000]), min_size=1, max_size=4),
    st.lists(st.integers(0, 2000), max_size=3),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_requests_cut_anywhere(pair: Pair, requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    pair.same(*(data[i:j] for i, j in itertools.pairwise(places)))


@given(requests().filter(lambda odd: odd.path == SCORE))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_body(pair: Pair, odd: Odd) -> None:
    _, at_once = pair.same(post(odd.body))
    assert at_once == (len(odd.body) <= THREAD_BYTES)


def test_shared_traffic_and_copies_go_through_asgi(
    folder: Path, deployments: dict[str, Deployment]
) -> None:
    live, staged = deployments["live"], deployments[STAGED]
    half = [_deployment(name, _ref(live), 50) for name in ("one", "two")]
    sticky = Serving(1, {d.name: d for d in half}, sticky=b"x-user")
    shared = Pair(Serving(1, {"live": live}), folder / "keys")
    for user in map(str, range(10)):
        assert shared.same(post(BODY, f"x-user: {user}"))[1] == 1
    shared.serve(sticky)  # now their heads are known
    for user in map(str, range(10)):
        assert shared.same(post(BODY, f"x-user: {user}"))[1] == 0
    mirror = Mirror(staged, Metrics().mirror(STAGED))
    copied = Pair(Serving(1, {"live": live}, mirror=mirror), folder / "keys")
    assert copied.same(post(BODY))[1] == 0
    mirror.close()
    nothing = Pair(Serving(), folder / "keys")
    assert nothing.same(post(BODY))[0].startswith(b"HTTP/1.1 503 ")


def test_a_key_is_looked_at_whether_its_head_is_known_or_not(
    tmp_path: Path, deployments: dict[str, Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "FOLLOW_SECONDS", 0)
    write_atomic(tmp_path / "keys", "first\n", 0o600)
    pair = Pair(Serving(1, deployments), tmp_path / "keys")
    for _ in range(3):
        assert pair.same(post(BODY))[0].startswith(b"HTTP/1.1 200 ")
    write_atomic(tmp_path / "keys", "another\n", 0o600)
    for _ in range(3):
        assert pair.same(post(BODY))[0].startswith(b"HTTP/1.1 401 ")


def test_which_heads_are_known(
    folder: Path, deployments: dict[str, Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "KNOWN_HEADS", 3)
    pair = Pair(Serving(1, deployments), folder / "keys")
    heads = pair.short.watch.heads
    pair.same(post(BODY, "x-request-id: 1"), post(CHUNKS, "transfer-encoding: chunked"))
    pair.same(post(BODY) * 2, post(BODY)[:-1], post(BODY)[-1:])
    assert not heads
    pair.same(b"\r\n\r\n" + post(BODY))
    assert not heads
    for number in range(10):
        request = post(BODY, f"x: {number}")
        pair.same(request, request[:-1], request[-1:], request + request, request)
        pair.same(request[:-1] + b"x", request + b"x")
        assert request[: -len(BODY)] in heads
        assert len(heads) <= 3


def _ref(deployment: Deployment) -> VersionRef:
    entry = deployment.entry
    return VersionRef("tiny", entry.version, entry.digest, Path(entry.bundle))
