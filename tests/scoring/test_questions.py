"""What the scoring route answers beside scores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.scoring.questions import METRICS, asks_for_metrics
from resources.endpoints.observation import observations
from tests.bundles import tried
from tests.local_servers import eventually
from tests.standalone_servers import KEYS, Standalone, standalone


@pytest.mark.parametrize("body", [METRICS, b'{"metrics":true}', b' {"metrics" : true} \n'])
def test_the_question(body: bytes) -> None:
    assert asks_for_metrics(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"true",
        b'"metrics"',
        b'["metrics"]',
        b'{"metrics": 1}',
        b'{"metrics": false}',
        b'{"metrics": true, "data": []}',
        b"\xff",
        b"[" * 60,
        b'{"metrics": true}' + b" " * 100,
    ],
)
def test_what_is_another_one(body: bytes) -> None:
    assert not asks_for_metrics(body)


def metrics(server: Standalone, **more: Any) -> dict[str, Any]:
    status, body, _ = server.ask(body={"metrics": True}, **more)
    assert status == 200
    return body


def test_a_server_says_what_it_counted_and_which_one_it_is(tmp_path: Path) -> None:
    version = tried(tmp_path, 1)
    arguments = ("--bundle", version.bundle, "--version", "1", "--workers", "2")
    edges = "[-100, 0, 100]"
    instances: Counter[str] = Counter()
    for _ in range(2):  # another one, though it has the folder of the first
        with standalone(
            tmp_path / "state", *arguments, "--compared-edges", edges, **KEYS
        ) as server:
            assert server.ask(body={"metrics": True}, key="third")[0] == 401
            assert metrics(server)["edges"] == [-7.875 + 2 * n for n in range(9)]
            for a in (-3.0, 1.0, 2.0):
                assert server.ask(body={"data": [{"a": a, "b": 1}]})[0] == 200
            assert server.ask(body={"metrics": False})[0] == 400
            instances.update(metrics(server)["instance"] for _ in range(10))

            def counted() -> bool:
                told = metrics(server)
                found = observations(told["metrics"], "").get(told["deployment"])
                return found is not None and (
                    found.served.answered,
                    found.served.refused,
                    found.served.predictions,
                ) == (3, 1, {"1": 1, "2": 2})

            eventually(counted)  # a worker hears of the other's counts a second later
    assert sorted(instances.values()) == [10, 10]
