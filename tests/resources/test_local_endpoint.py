"""Local endpoints asked over real HTTP: the target's verbs, keys and versions."""

from __future__ import annotations

import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from resources.endpoints.base import Deployment, EndpointError, Request, split_traffic
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.endpoints.process import read_key
from tests.bundles import broken, classifier, regression
from tests.local_servers import (
    ASK,
    answering_version,
    eventually,
    serve,
    staging_folder,
)


def test_the_five_verbs(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    first, second = regression(tmp_path, 1), regression(tmp_path, 2)
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert target.live() == {}
        assert target.score(None, ASK).status == 503
        assert target.stage(first) == Deployment("v1", 1, first.digest, 0)
        target.promote("v1", 100)
        assert target.stage(second) == Deployment("v2", 2, second.digest, 0)
        assert target.stage(second) == Deployment("v2", 2, second.digest, 0)
        assert target.score(None, ASK).json() == {"predictions": [pytest.approx(1003)]}
        assert target.score("v2", ASK).json() == {"predictions": [pytest.approx(2003)]}
        target.promote("v2", 30)
        assert {name: d.traffic for name, d in target.live().items()} == {"v1": 70, "v2": 30}
        asked = [target.score(None, ASK).headers["azureml-model-deployment"] for _ in range(60)]
        assert set(asked) == {"v1", "v2"}
        target.promote("v2", 100)
        target.discard("v1")
        target.discard("v1")
        assert list(target.live()) == ["v2"]
        assert target.score("v1", ASK).status == 404
        with pytest.raises(EndpointError, match="no deployment 'v1'"):
            target.promote("v1", 50)
        with pytest.raises(EndpointError, match="0 to 100 percent, not 101"):
            target.promote("v2", 101)
    assert answering_version(endpoints) == 2
    serving = endpoints.serving("tiny", "staging")
    assert serving == Deployment("v2", 2, second.digest, 100)


def test_keys(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    status = endpoints.status("tiny", "staging")
    assert stat.S_IMODE(status.key_file.stat().st_mode) == 0o600
    assert status.url is not None
    for key in status.key_file.read_text().split():
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.post(status.url, content=ASK.body, headers=headers).status_code == 200
    refused = endpoints.ask("tiny", "staging", Request(ASK.body, authorized=False))
    assert refused.status == 401
    status.key_file.chmod(0o644)
    with endpoints.open("tiny", "staging", LocalSettings()):
        assert stat.S_IMODE(status.key_file.stat().st_mode) == 0o600
    status.key_file.unlink()
    with pytest.raises(EndpointError, match="keys: no key; deploy to this endpoint first"):
        endpoints.ask("tiny", "staging", ASK)


def test_a_version_that_cannot_be_loaded_changes_nothing(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    serve(endpoints, regression(tmp_path, 1))
    bad = regression(tmp_path, 2)
    (bad.bundle / "model.pkl").write_bytes(b"tampered")
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        with pytest.raises(EndpointError, match=r"version 2 cannot be loaded: .*model\.pkl: SHA-"):
            target.stage(bad)
        assert list(target.live()) == ["v1"]
    assert answering_version(endpoints) == 1


def test_a_bundle_that_is_lost_while_it_serves(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    serve(endpoints, version)
    (version.bundle / "model.pkl").unlink()
    endpoints.stop("tiny", "staging")
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        assert target.score(None, ASK).status == 503
        with pytest.raises(EndpointError, match=r"model\.pkl: No such file"):
            target.stage(version)
        assert list(target.live()) == ["v1"]  # it has the traffic: nothing is forgotten
        target.promote(target.stage(regression(tmp_path, 2)).name, 100)
    assert answering_version(endpoints) == 2


def test_a_registry_made_anew_may_reuse_a_version(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    old, new = regression(tmp_path / "old", 1), classifier(tmp_path / "new", 1)
    serve(endpoints, old)
    with endpoints.open("tiny", "staging", LocalSettings()) as target:
        staged = target.stage(new)
        assert staged.name == f"v1-{new.digest[:8]}"
        assert target.score(None, ASK).status == 200


def test_a_damaged_generation_is_named(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, regression(tmp_path, 1))
    (staging_folder(tmp_path) / "generation.json").write_text("{")
    with (
        pytest.raises(EndpointError, match=r"generation\.json: not a generation"),
        endpoints.open("tiny", "staging", LocalSettings()),
    ):
        raise AssertionError("opened")
    assert endpoints.ask("tiny", "staging", ASK).status == 200  # the server goes on


def test_health_stays_quick_while_a_large_batch_is_scored(
    endpoints: LocalEndpoints, tmp_path: Path
) -> None:
    serve(endpoints, classifier(tmp_path))
    url = endpoints.status("tiny", "staging").url
    assert url is not None
    batch = Request.of({"data": [{"size": i % 90, "colour": "red"} for i in range(100_000)]})
    with ThreadPoolExecutor(1) as pool, httpx.Client() as client:
        scoring = pool.submit(endpoints.ask, "tiny", "staging", batch)
        times: list[float] = []
        while not scoring.done():
            started = time.perf_counter()
            assert client.get(url.removesuffix("score")).status_code == 200
            times.append(time.perf_counter() - started)
        answer = scoring.result()
    assert answer.status == 200
    assert len(answer.json()["predictions"]) == 100_000
    assert len(times) > 3
    assert max(times) < answer.seconds / 2


def test_real_http_is_held_to_the_same_limits(endpoints: LocalEndpoints, tmp_path: Path) -> None:
    serve(endpoints, broken(tmp_path))
    status = endpoints.status("tiny", "staging")
    assert status.url is not None
    headers = {"authorization": f"Bearer {read_key(staging_folder(tmp_path))}"}
    chunks = (b" " * 2**16 for _ in range(200))
    with httpx.Client(headers=headers) as client:
        assert client.post(status.url, content=chunks).status_code == 413
        assert client.post(status.url, content=b" " * (8 * 2**20 + 1)).status_code == 413
        assert client.post(status.url, content=b"{").status_code == 400
        assert client.get(status.url).status_code == 405
        assert client.get(status.url, headers={"x-request-id": "i" * 101}).status_code == 431
        failed = client.post(status.url, content=b'{"data": [[7, 1]]}', headers={"traceid": "t9"})
        assert failed.status_code == 500
        assert "secret" not in failed.text
        assert "Traceback" not in failed.text
    log = staging_folder(tmp_path) / "server.log"
    eventually(lambda: "request t9 failed" in log.read_text())
    assert "RuntimeError" in log.read_text()
    assert "secret detail [7" not in log.read_text()  # it may quote what was asked
    assert _raw(status.url, b"NONSENSE\r\n\r\n").startswith(b"HTTP/1.1 400")


def _raw(url: str, data: bytes) -> bytes:
    port = int(url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(data)
        return connection.recv(4096)


@pytest.mark.parametrize(
    ("shares", "percent", "expected"),
    [
        ({"new": 0}, 100, {"new": 100}),
        ({"old": 100, "new": 0}, 10, {"old": 90, "new": 10}),
        ({"a": 50, "b": 50, "new": 0}, 33, {"a": 34, "b": 33, "new": 33}),
        ({"a": 70, "b": 10, "new": 20}, 100, {"a": 0, "b": 0, "new": 100}),
        ({"old": 0, "new": 100}, 40, {"old": 0, "new": 40}),
    ],
)
def test_the_others_share_the_rest(
    shares: dict[str, int], percent: int, expected: dict[str, int]
) -> None:
    assert split_traffic(shares, "new", percent) == expected
