"""The benchmark of serving: what it takes for an answer, and what it makes of the figures."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resources.environment import checkout
from tests.bench.serving.load import Load, LoadError, measure, median, parse
from tests.bench.serving.plan import Plan
from tests.bench.serving.report import Measured, as_json, fail_on, failures, ratios, tables
from tests.bench.serving.running import Memory, ServerError, same, started
from tests.bench.serving.servers import PEERS, REQUIREMENTS, Server, floor

PLAN = Plan(rows=[1], connections=[1, 8], rounds=1, seconds=1)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """The server that answers 0.0, whatever it is asked."""
    body = tmp_path / "body.json"
    body.write_text('{"data": [{"a": 1}]}')
    return floor({1: body})


def test_reads_what_wrk_printed() -> None:
    figures = {"requests": 500, "microseconds": 2_000_000, "p50": 1500.0, "p99": 90_000.5}
    errors = {"connect": 0, "read": 3, "write": 0, "timeout": 0, "not 2xx": 1}
    text = "Running 2s test\n" + json.dumps({**figures, "errors": errors}) + "\n"
    load = parse(text)
    assert (load.requests, load.rate, load.p50, load.p99) == (500, 250.0, 1.5, 90.0005)
    assert load.errors == {"read": 3, "not 2xx": 1}


@pytest.mark.parametrize("text", ["", "unable to connect", "[]", '{"requests": 1}'])
def test_no_figures_are_an_error(text: str) -> None:
    with pytest.raises(LoadError, match="no figures"):
        parse(text)


def test_the_median_hides_no_error() -> None:
    loads = [Load(10, 1, 9, 9, {}), Load(30, 3, 1, 1, {"read": 1}), Load(20, 2, 2, 7, {"read": 2})]
    found = median(loads)
    assert (found.rate, found.p50, found.p99) == (2, 2, 7)
    assert (found.requests, found.errors) == (60, {"read": 3})


def test_tables_compare_with_the_first() -> None:
    servers = [_measured("ours", 3000), _measured("theirs", 1000, {"not 2xx": 4})]
    lines = tables("diabetes", servers, PLAN, "ours / this").splitlines()
    assert lines[0].startswith("diabetes, 1 row ")
    (row,) = (line for line in lines if line.startswith("theirs  ") and "1000" in line)
    assert re.fullmatch(r"theirs +1000 +1000 +1\.50 +1\.50 +22\.2 +22\.2 +3\.00 +3\.00", row)
    assert re.fullmatch(r"theirs +0\.25 +200 +100 +150 +0\.321", lines[-1])
    assert ratios(servers, "ours", "theirs", PLAN).endswith(": 3.00 at 1, 3.00 at 8")
    assert failures("diabetes", servers) == [
        f"diabetes, theirs, 1 rows, {n} connections: {{'not 2xx': 4}}" for n in (1, 8)
    ]
    (first, _) = as_json("diabetes", servers)
    assert first["loads"][1]["connections"] == 8
    assert first["loads"][1]["rate"] == 3000


def test_errors_fail_the_run() -> None:
    fail_on([])
    with pytest.raises(SystemExit, match="theirs: read 3"):
        fail_on(["theirs: read 3"])


def test_labels_are_compared_exactly_and_numbers_nearly() -> None:
    assert same([150.0001, 2], [150.0, 2.0])
    assert not same([150.1], [150.0])
    assert same(["Adelie"], ["Adelie"])
    assert not same(["Adelie"], ["Gentoo"])
    assert not same([1.0], [1.0, 1.0])


def test_a_server_that_answers_right_is_started_weighed_and_ended(
    server: Server, tmp_path: Path
) -> None:
    with started(server, tmp_path, 1, [0.0]) as running:
        assert 0 < running.first_answer < 60
        memory = running.memory()
        assert 1 < memory.uss <= memory.rss
        assert memory.uss <= memory.all_uss
        with pytest.raises(ServerError, match=r"answers \[0.0\], expected \[1.0\]"):
            running.check(1, [1.0])
    with pytest.raises(ServerError, match="refused"):
        running.check(1, [0.0])


def test_wrong_answers_are_not_measured(server: Server, tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"constant answer: answers \[0.0\], expected \['a'\]"),
        started(server, tmp_path, 1, ["a"]),
    ):
        pass


def test_a_server_that_ends_is_named_with_its_log(server: Server, tmp_path: Path) -> None:
    broken = replace(server, command=(sys.executable, "-c", "raise SystemExit('no model')"))
    with (
        pytest.raises(ServerError, match="ended with exit code 1\nno model"),
        started(broken, tmp_path, 1, [0.0]),
    ):
        pass


@pytest.mark.skipif(shutil.which("wrk") is None, reason="`make wrk` installs it")
def test_wrk_posts_the_body_and_counts_what_went_wrong(server: Server, tmp_path: Path) -> None:
    with started(server, tmp_path, 1, [0.0]) as running:
        load = measure(server.url, server.bodies[1], server.headers, 2, 1, running.cpu_seconds)
    assert load.rate > 0
    assert 0 < load.p50 <= load.p99
    assert load.errors == {}
    assert 0 < load.cpu < 1000 / load.rate * 2
    picky = replace(server, command=(sys.executable, "-c", PICKY, str(server.port)))
    with started(picky, tmp_path, 1, [0.0]) as running:
        right = measure(picky.url, picky.bodies[1], picky.headers, 1, 1, running.cpu_seconds)
        wrong = measure(picky.url, picky.bodies[1], {}, 1, 1, running.cpu_seconds)
    assert right.errors == {}
    assert wrong.errors["not 2xx"] > 0


#: Answers only what is asked in the right form, else 415.
PICKY = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        right = body == b'{"data": [{"a": 1}]}' and self.headers["content-type"]
        answer = b'{"predictions": [0.0]}'
        self.send_response(200 if right else 415)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize("peer", PEERS)
def test_peers_have_the_packages_that_models_were_made_with(peer: str) -> None:
    names = r"^(?:cloudpickle|joblib|numpy|pandas|scikit-learn|scipy)==[^\\\n]*[^\\\s]"
    lock = re.findall(names, (checkout() / "requirements.lock").read_text(), re.MULTILINE)
    pins = re.findall(names, (REQUIREMENTS / f"{peer}.txt").read_text(), re.MULTILINE)
    assert len(pins) >= 5, pins
    assert set(pins) <= set(lock), "`make lock` resolves them anew"


def _measured(name: str, rate: float, errors: dict[str, int] | None = None) -> Measured:
    load = Load(100, rate, 1.5, 22.22, errors or {}, 0.3214)
    memory = Memory(200, 100, 150)
    return Measured(name, 0.25, {(1, 1): [load], (1, 8): [load]}, memory)
