"""Clients that are slow, silent, greedy or broken, on raw sockets, against a real worker."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mlops_assets.scoring.connections import Limits
from tests.bundles import constant, wordy
from tests.local_servers import eventually
from tests.scoring.raw_client import BODY, HEALTH, PATIENCE, Client, Worker, get, post, worker

#: Of clients that are to be cut off.
SHORT = Limits(request=0.6, answer=0.3, idle=0.5, linger=0.2, sweep=0.05)
#: Of clients that are not, however slow the machine is that runs the test.
LONG = Limits(head=4096, framing=4096, pipelined=8)
#: With room for few clients.
CROWDED = Limits(connections=40)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocol")


@pytest.fixture(scope="module")
def short(root: Path) -> Iterator[Worker]:
    with worker(root / "short", wordy(root, 1), SHORT) as found:
        yield found


@pytest.fixture(scope="module")
def long(root: Path) -> Iterator[Worker]:
    with worker(root / "long", constant(root, 2), LONG) as found:
        yield found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def _dribble(client: Client, data: bytes) -> None:
    """A byte now and then, until the server has had enough."""
    client.socket.setblocking(False)
    for byte in data * 1000:
        try:
            client.socket.send(bytes([byte]))
            if client.socket.recv(1, socket.MSG_PEEK):
                break
        except BlockingIOError:
            time.sleep(0.05)
    client.socket.settimeout(PATIENCE)


@pytest.mark.parametrize("begin", [b"GET /", b"POST /score HTTP/1.1\r\n", post(length=10**6)])
def test_a_request_that_comes_byte_by_byte(short: Worker, begin: bytes) -> None:
    before = short.refused("timeout")
    client = short.client()
    client.send(begin)
    _dribble(client, b"x")
    answer = client.answer()
    assert answer.error == (408, "timeout")
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert client.ended()
    assert short.refused("timeout") == before + 1
    assert short.healthy()


@pytest.mark.parametrize(
    "request_", [post(length=1000), post(b"4\r\n{\"da", "transfer-encoding: chunked")]
)  # fmt: skip
def test_a_body_that_is_never_whole(short: Worker, request_: bytes) -> None:
    client = short.client()
    client.send(request_)
    assert client.answer().error == (408, "timeout")
    assert client.ended()
    assert short.healthy()


def test_the_time_is_for_one_request_and_not_for_a_connection(short: Worker) -> None:
    client = short.client()
    for _ in range(12):
        client.send(post())
        assert client.answer().status == 200
        time.sleep(0.1)


def test_a_client_that_never_reads(short: Worker) -> None:
    before = short.refused("answer_not_taken")
    client = short.client(buffer=4096)
    unsent = bytearray()
    _until(lambda: _ask_once_more(client, unsent) or not short.healthy())
    assert short.refused("answer_not_taken") == before + 1


def _ask_once_more(client: Client, unsent: bytearray) -> bool:
    """Whether the connection was cut off; what the server does not read stays in ``unsent``."""
    unsent += b"" if unsent else get("/swagger.json") * 30
    with contextlib.suppress(BlockingIOError):
        try:
            del unsent[: client.socket.send(unsent, socket.MSG_DONTWAIT)]
        except ConnectionError:
            return True
    return False


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_a_client_that_never_reads_its_last_answer(short: Worker, version: bytes) -> None:
    # Of HTTP/1.0 the server has closed the connection, and waits for the answer to be taken.
    before = short.refused("answer_not_taken")
    client = short.client(buffer=4096)
    rows = b'{"data": [' + b"[1, 2], " * 49_999 + b"[1, 2]]}"
    client.send(post(rows).replace(b"HTTP/1.1", version))
    assert short.healthy()
    _until(lambda: short.refused("answer_not_taken") == before + 1)
    with pytest.raises(ConnectionError):
        client.answer()


def test_nothing_is_asked(short: Worker) -> None:
    silent, line_ends, once = short.client(), short.client(), short.client()
    line_ends.send(b"\r\n\r\n")
    once.send(HEALTH)
    once.answer()
    once.send(b"\r\n")  # no request either
    for client in (silent, line_ends, once):
        assert client.ended()
    assert short.healthy()


def test_many_idle_connections(short: Worker, long: Worker) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        idle = [Client(long.port) for _ in range(1500)]
        assert all(long.healthy() for _ in range(20))
        for client in idle[::100]:
            client.send(post())
            assert client.answer().status == 200
        for client in idle:
            client.close()
        idle = [Client(short.port) for _ in range(1500)]
        assert short.healthy()
        assert all(client.ended() for client in idle)
        for client in idle:
            client.close()
        served = psutil.Process(short.process.pid)
        _until(lambda: served.num_fds() < 100)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_that_stood_still_blames_nobody(short: Worker) -> None:
    client = short.client()
    head, rest = post()[:30], post()[30:]
    client.send(head)
    os.kill(short.process.pid, signal.SIGSTOP)
    client.send(rest)
    time.sleep(3 * SHORT.request)
    os.kill(short.process.pid, signal.SIGCONT)
    assert client.answer().status == 200


HEADS = {
    "a line": b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\n\r\n",
    "a header": b"GET / HTTP/1.1\r\nx: " + b"x" * 8000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 1000 + b"\r\n",
    "after a body": post() + b"GET / HTTP/1.1\r\nx: " + b"x" * 8000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("step", [2**20, 1000, 50], ids=["at once", "in parts", "in small parts"])
@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_is_too_large(long: Worker, head: str, step: int) -> None:
    client = long.client()
    before = long.refused("headers_too_large")
    data = HEADS[head]
    try:
        for start in range(0, len(data), step):
            client.send(data[start : start + step])
    except ConnectionError:
        pytest.fail("the connection was cut while the client still sent")
    if head == "after a body":
        assert client.answer().status == 200
    answer = client.answer()
    assert answer.error == (431, "headers_too_large")
    assert answer.headers["connection"] == "close"
    assert client.ended()
    assert long.refused("headers_too_large") == before + 1
    assert long.healthy()


@pytest.mark.parametrize("step", [2**20, 1000])
def test_a_head_that_just_fits(long: Worker, step: int) -> None:
    client = long.client()
    data = post(BODY, "x: " + "x" * 3900) + post(b" " * 50_000 + BODY, "x: " + "x" * 3900) * 3
    for start in range(0, len(data), step):
        client.send(data[start : start + step])
    assert [client.answer().status for _ in range(4)] == [200] * 4


def test_a_head_without_end(long: Worker) -> None:
    client = long.client()
    client.send(b"GET / HTTP/1.1\r\n", b"x" * 5000)
    assert client.answer().error == (431, "headers_too_large")


def test_half_a_body_and_then_the_rest(long: Worker) -> None:
    client = long.client()
    whole = post()
    for cut in (1, 40, len(whole) - len(BODY) - 1, len(whole) - 3):
        client.send(whole[:cut])
        assert long.healthy()
        client.send(whole[cut:])
        assert client.answer().status == 200


def test_a_client_that_goes_away(long: Worker) -> None:
    whole = post()
    for cut in (0, 1, 40, len(whole) - len(BODY), len(whole) - 3, len(whole)):
        for reset in (False, True):
            client = long.client()
            client.send(whole[:cut])
            if reset:
                linger = b"\1\0\0\0\0\0\0\0"
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
    assert long.healthy()
    assert b"Traceback" not in long.log.read_bytes()


def test_requests_sent_ahead_are_answered_in_order(long: Worker) -> None:
    client = long.client()
    client.send(b"".join(post(BODY, f"x-request-id: {n}") for n in range(8)))
    assert [client.answer().headers["x-request-id"] for _ in range(8)] == [*map(str, range(8))]
    client.send(HEALTH)
    assert client.answer().status == 200


def test_too_many_requests_sent_ahead(long: Worker) -> None:
    client = long.client()
    client.send(b"".join(post(BODY, f"x-request-id: {n}") for n in range(500)))
    answered = [client.answer() for _ in range(10)]
    assert [answer.headers.get("x-request-id") for answer in answered] == [
        *map(str, range(9)),
        None,
    ]
    assert [answer.status for answer in answered[:9]] == [200] * 9
    assert answered[9].error == (429, "too_many_requests")
    assert answered[9].headers["connection"] == "close"
    assert client.ended()
    assert long.healthy()


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://x HTTP/1.1\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\n\r\n",
        b"CONNECT http://x/ HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nx y: z\r\n\r\n",
        b"POST /score HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /score HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /score HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12",
        b"POST /score HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
@pytest.mark.parametrize("ahead", [0, 3])
def test_what_is_no_request(long: Worker, broken: bytes, ahead: int) -> None:
    before = long.refused("malformed")
    client = long.client()
    client.send(post() * ahead + broken)
    assert [client.answer().status for _ in range(ahead)] == [200] * ahead
    answer = client.answer()
    assert answer.error == (400, "malformed")
    assert answer.headers["connection"] == "close"
    assert client.ended()
    assert long.refused("malformed") == before + 1
    assert long.healthy()


CHUNKED = "transfer-encoding: chunked"


def _chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def test_a_chunked_body(long: Worker) -> None:
    client = long.client()
    trailer = b"0\r\nauthorization: x\r\n\r\n"
    parts = [BODY[n : n + 3] for n in range(0, len(BODY), 3)]
    client.send(post(_chunks(*parts) + trailer, CHUNKED) * 2 + post())
    assert [client.answer().status for _ in range(3)] == [200] * 3
    client.send(post(b"", CHUNKED))
    for part in parts:
        client.send(_chunks(part))
    assert long.healthy()
    client.send(trailer)
    assert client.answer().status == 200


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("broken", [b"x\r\n", b"5\r\n{}\r\n0\r\n\r\n" + b"x" * 9, b"-1\r\n"])
def test_a_broken_chunk(long: Worker, broken: bytes, ahead: int) -> None:
    client = long.client()
    client.send(post() * ahead + post(_chunks(BODY[:9]) + broken, CHUNKED) + post())
    assert [client.answer().status for _ in range(ahead)] == [200] * ahead
    assert client.answer().error == (400, "malformed")
    assert client.ended()
    assert long.healthy()


@pytest.mark.parametrize(
    "endless", [_chunks(b" ") * 2000, b"0\r\n" + b"x: y\r\n" * 2000, b"0\r\nx: " + b"y" * 9000]
)
def test_endless_chunk_sizes_and_trailers(long: Worker, endless: bytes) -> None:
    client = long.client()
    client.send(post(b"", CHUNKED))
    try:
        for start in range(0, len(endless), 1000):
            client.send(endless[start : start + 1000])
    except ConnectionError:
        pytest.fail("the connection was cut while the client still sent")
    assert client.answer().error == (413, "too_large")
    assert client.ended()
    assert long.healthy()


def test_a_body_that_is_asked_for(long: Worker) -> None:
    client = long.client()
    client.send(post(b"", "expect: 100-continue", length=len(BODY)))
    assert client.answer().status == 100
    client.send(BODY)
    assert client.answer().status == 200
    client.send(HEALTH)
    assert client.answer().status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(b"", "expect: 100-continue", length=10**9), 413),
        (post(b"", "authorization: Bearer wrong", length=10**6), 401),
        (post(b"{", length=10**9), 413),
    ],
)
def test_an_answer_before_the_end_of_the_request(
    short: Worker, request_: bytes, status: int
) -> None:
    client = short.client()
    client.send(request_)
    answer = client.answer()
    assert answer.error[0] == status
    assert client.ended()  # the rest never comes
    again = short.client()
    again.send(request_)
    assert again.answer().error[0] == status
    assert short.healthy()


def test_a_refused_body_may_still_come_and_the_connection_stays(long: Worker) -> None:
    client = long.client()
    client.send(post(b"", "authorization: Bearer wrong", length=300_000))
    assert client.answer().status in (200, 401)
    client.send(b" " * 300_000)
    client.send(post())
    assert client.answer().status == 200


@pytest.mark.parametrize("keep_alive", [b"", b"connection: keep-alive\r\n"])
def test_http_1_0(long: Worker, keep_alive: bytes) -> None:
    client = long.client()
    client.send(post().replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n" + keep_alive))
    answer = client.answer()
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    assert client.ended()


@pytest.mark.parametrize("step", [2**20, 7])
def test_another_protocol_is_asked_for(long: Worker, step: int) -> None:
    """As Java's own client does before it sends anything: the answer is in HTTP/1.1."""
    client = long.client()
    upgrade = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAA")
    chunked = post(_chunks(BODY) + b"0\r\n\r\n", CHUNKED, *upgrade)
    data = (post(BODY, *upgrade) + post() + chunked + post(BODY, *upgrade)) * 2
    for start in range(0, len(data), step):
        client.send(data[start : start + step])
    assert [client.answer().status for _ in range(8)] == [200] * 8
    client.send(post(BODY, "connection: close, upgrade", "upgrade: websocket"))
    assert client.answer().status == 200
    assert client.ended()


def test_where_it_is_crowded_the_longest_idle_make_room(root: Path) -> None:
    with worker(root / "crowded", constant(root, 3), CROWDED) as crowded:
        slow = crowded.client()
        slow.send(post()[:-1])
        used = crowded.client()
        idle = [crowded.client() for _ in range(100)]
        for client in idle[-30:]:
            client.send(HEALTH)
            assert client.answer().status == 200
        used.send(HEALTH)
        assert used.ended()
        assert all(client.ended() for client in idle[:50])
        for client in (slow, *idle[-10:]):
            client.send(HEALTH[-1:] if client is slow else HEALTH)
        assert slow.answer().status == 400  # it began before all that were closed
        assert [client.answer().status for client in idle[-10:]] == [200] * 10
        assert crowded.refused("crowded") >= 60
        # None is idle any more: those that are longest on the way go. Which of them came first
        # among so many at once is the worker's own affair.
        slow = [crowded.client() for _ in range(100)]
        for client in slow:
            client.send(b"GET")
        eventually(lambda: sum(client.has_ended() for client in slow) >= 50, PATIENCE)
        assert crowded.healthy()


def test_a_worker_ends_whatever_its_clients_do(root: Path) -> None:
    limits = Limits(linger=60, sweep=0.1, request=0.4)
    with worker(root / "ending", constant(root, 4), limits) as ending:
        idle, half, refused = (ending.client() for _ in range(3))
        refused.send(b"nonsense\r\n\r\n")
        refused.answer()
        half.send(post()[:-1])
        idle.send(HEALTH)
        idle.answer()
        assert half.answer().status == 408


@pytest.mark.parametrize(
    ("soft", "hard", "connections"), [(300, 4000, 3744), (4000, 4000, 3744), (100, 200, 1)]
)
def test_as_many_connections_as_the_system_allows_files(
    soft: int, hard: int, connections: int
) -> None:
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from mlops_assets.scoring.connections import Limits, Watch
print(Watch(Limits(), print).maximum, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    asked = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert asked.stdout.split() == [str(n) for n in (connections, hard, hard)]
