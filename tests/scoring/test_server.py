"""The routes, in process; tests/resources/test_local_endpoint.py asks over real HTTP."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from mlops_assets.files import write_atomic
from mlops_assets.scoring.deployments import Deployment, Deployments, Serving
from mlops_assets.scoring.generation import Entry, GenerationFile
from mlops_assets.scoring.http import MAXIMUM_BODY
from mlops_assets.scoring.keys import KeyFile
from mlops_assets.scoring.logs import JsonFormatter
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.scoring.questions import asks_for_metrics
from mlops_assets.scoring.responder import THREAD_BYTES
from mlops_assets.scoring.server import MAXIMUM_WAITING, Application
from mlops_assets.scoring.table import MAXIMUM_ROWS
from tests.bundles import MIXED, NUMBERS, broken, classifier, regression

KEY = {"authorization": "Bearer first"}
ROW = {"a": 1.5, "b": 2}


class Server:
    """An application with two keys, one deployment with all traffic and others without."""

    def __init__(self, folder: Path) -> None:
        write_atomic(folder / "keys", "first\nsecond\n", 0o600)
        self.keys = folder / "keys"
        versions = {"live": regression(folder, 1), "staged": regression(folder, 2)}
        versions |= {"labels": classifier(folder, 3), "broken": broken(folder, 4)}
        loaded: dict[str, Deployment] = {}
        for name, version in versions.items():
            traffic = 100 if name == "live" else 0
            entry = Entry(str(version.bundle), version.digest, version.version, traffic)
            loaded[name] = Deployment(name, entry, Predictor.load(version.bundle, version.digest))
        self.deployments = Deployments(GenerationFile(folder))
        self.deployments.serving = Serving(1, loaded, {"lost": "IntegrityError: model.pkl"})
        self.metrics = Metrics()
        app = Application(self.deployments, KeyFile(self.keys), self.metrics, identity="identity")
        self.client = TestClient(app, raise_server_exceptions=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    return Server(tmp_path_factory.mktemp("server"))


@pytest.fixture
def client(server: Server) -> TestClient:
    return server.client


def _error(answer: Any) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    return answer.status_code, error["message"]


def test_health_needs_no_key(client: TestClient) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (200, "Healthy")
    assert answer.headers["x-mlops-endpoint"] == "identity"


def test_an_answer_says_who_gave_it(client: TestClient) -> None:
    answer = client.post("/score", json={"data": [ROW, ROW]}, headers=KEY)
    assert answer.status_code == 200
    assert answer.json() == {"predictions": [pytest.approx(1003.5)] * 2}
    assert answer.headers["azureml-model-deployment"] == "live"
    assert answer.headers["x-mlops-version"] == "1"
    assert answer.headers["content-type"] == "application/json"


def test_a_classifier_answers_probabilities_by_label(client: TestClient) -> None:
    headers = {**KEY, "azureml-model-deployment": "labels"}
    answer = client.post(
        "/score", json={"data": [{"size": 2, "colour": None}]}, headers=headers
    ).json()
    assert answer["predictions"] == ["low"]
    (row,) = answer["probabilities"]
    assert list(row) == ["high", "low", "mid"]
    assert sum(row.values()) == pytest.approx(1)


def test_a_header_picks_a_deployment(client: TestClient) -> None:
    headers = {**KEY, "azureml-model-deployment": "staged"}
    answer = client.post("/score", json={"data": [ROW]}, headers=headers)
    assert answer.json() == {"predictions": [pytest.approx(2003.5)]}
    assert answer.headers["x-mlops-version"] == "2"


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("none", 404, "no deployment 'none'; there are: live, staged, labels, broken"),
        ("lost", 503, "deployment 'lost' could not be loaded"),
    ],
)
def test_a_deployment_that_is_not_there(
    client: TestClient, name: str, status: int, message: str
) -> None:
    headers = {**KEY, "azureml-model-deployment": name}
    assert _error(client.post("/score", json={"data": [ROW]}, headers=headers)) == (status, message)


def test_without_any_deployment(tmp_path: Path) -> None:
    write_atomic(tmp_path / "keys", "first", 0o600)
    empty = Deployments(GenerationFile(tmp_path))
    client = TestClient(Application(empty, KeyFile(tmp_path / "keys"), Metrics()))
    status, message = _error(client.post("/score", json={"data": [ROW]}, headers=KEY))
    assert (status, message) == (503, "no deployment has traffic here")
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "header",
    [None, "", "first", "Bearer", "Bearer ", "Bearer third", "Basic first", "Bearer firs"],
)
@pytest.mark.parametrize("path", ["/score", "/swagger.json"])
def test_no_answer_without_a_key(client: TestClient, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    method = "POST" if path == "/score" else "GET"
    answer = client.request(method, path, json={"data": [ROW]}, headers=headers)
    assert _error(answer)[0] == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer first", "bearer second", "Bearer  first "])
def test_both_keys_are_accepted(client: TestClient, header: str) -> None:
    answer = client.post("/score", json={"data": [ROW]}, headers={"authorization": header})
    assert answer.status_code == 200


def test_a_key_that_is_no_ascii_is_refused(client: TestClient) -> None:
    answer = client.post("/score", json={}, headers={"authorization": b"Bearer \xe9"})
    assert answer.status_code == 401


def test_keys_follow_their_file(tmp_path: Path) -> None:
    server = Server(tmp_path)
    headers = {"authorization": "Bearer third"}
    assert server.client.get("/swagger.json", headers=headers).status_code == 401
    write_atomic(server.keys, "third\nfourth\n", 0o600)
    assert server.client.get("/swagger.json", headers=headers).status_code == 200
    assert server.client.get("/swagger.json", headers=KEY).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/score", 405, "POST, OPTIONS"),
        ("PUT", "/score", 405, None),
        ("DELETE", "/score", 405, None),
        ("POST", "/", 405, None),
        ("POST", "/swagger.json", 405, None),
        ("GET", "/unknown", 404, None),
        ("POST", "/score/", 404, None),
    ],
)
def test_wrong_method_or_path(
    client: TestClient, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = client.request(method, path, headers=KEY)
    assert _error(answer)[0] == status
    assert (answer.headers.get("allow") is not None) == (status == 405)
    assert allow is None or answer.headers["allow"] == allow


def test_get_with_a_body_scores_as_on_azure(client: TestClient) -> None:
    answer = client.request("GET", "/score", json={"data": [ROW]}, headers=KEY)
    assert answer.json() == {"predictions": [pytest.approx(1003.5)]}


def test_options(client: TestClient) -> None:
    answer = client.options("/score")
    assert (answer.status_code, answer.headers["allow"]) == (200, "GET, POST, OPTIONS")


@pytest.mark.parametrize(
    "name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id", "TraceId"]
)
def test_request_ids_come_back_and_must_be_short(client: TestClient, name: str) -> None:
    good, long = "i" * 100, "i" * 101
    for request in (
        {"method": "POST", "url": "/score", "json": {"data": [ROW]}},
        {"method": "GET", "url": "/nowhere"},
    ):
        answer = client.request(**request, headers={**KEY, name: good})
        assert answer.headers[name] == good
        assert "x-request-id" not in answer.headers or name == "x-request-id"
    refused = client.get("/", headers={name: long})
    status, message = _error(refused)
    assert status == 431
    assert message == f"header {name.lower()} is longer than 100 characters"


def test_a_request_without_id_gets_one(client: TestClient) -> None:
    first, second = (client.get("/").headers["x-request-id"] for _ in range(2))
    assert first != second


def _chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 2**16 + 1):
        yield b" " * 2**16


def test_a_body_over_the_limit(client: TestClient) -> None:
    announced = client.post("/score", content=b" " * (MAXIMUM_BODY + 1), headers=KEY)
    assert _error(announced) == (413, "the body is larger than 8388608 bytes")
    chunked = client.post("/score", content=_chunks(MAXIMUM_BODY), headers=KEY)
    assert "content-length" not in chunked.request.headers
    assert _error(chunked)[0] == 413
    lies = client.post(
        "/score", content=_chunks(MAXIMUM_BODY), headers={**KEY, "content-length": "5"}
    )
    assert _error(lies)[0] == 413


def test_large_batches_are_scored_in_a_thread(client: TestClient) -> None:
    many = [[float(i), i % 5] for i in range(5000)]  # a large body
    few = [[1, 2]] * 300  # a small body of many rows
    for rows in (many, few):
        answer = client.post("/score", json={"data": rows}, headers=KEY)
        expected = [1000 + a + b for a, b in rows]
        assert answer.json()["predictions"] == pytest.approx(expected)
    assert _error(client.post("/score", json={"data": [*many, ["x", 1]]}, headers=KEY)) == (
        400, "row 5000, column 'a': wants a number, found 'x'",
    )  # fmt: skip


def test_a_body_of_just_the_limit_is_read(client: TestClient) -> None:
    body = b'{"data": [[1,2]]}'.ljust(MAXIMUM_BODY)
    assert len(body) == MAXIMUM_BODY
    answer = client.post("/score", content=body, headers=KEY)
    assert answer.json()["predictions"] == [pytest.approx(1003)]


@pytest.mark.parametrize(("value", "reason"), [(7, "RuntimeError"), (8, "answered nan")])
def test_a_failing_model_tells_the_log_and_not_the_client(
    client: TestClient, caplog: pytest.LogCaptureFixture, value: int, reason: str
) -> None:
    headers = {**KEY, "azureml-model-deployment": "broken", "x-request-id": "id-5"}
    with caplog.at_level(logging.ERROR):
        answer = client.post("/score", json={"data": [{"a": value, "b": 1}]}, headers=headers)
    assert _error(answer) == (500, "internal error; the server's log has it as id-5")
    assert answer.headers["x-request-id"] == "id-5"
    assert "request id-5 failed" in caplog.text
    assert reason in caplog.text
    assert "secret detail [7" not in caplog.text


def test_swagger_describes_the_live_version(client: TestClient) -> None:
    document = client.get("/swagger.json", headers=KEY).json()
    assert document["openapi"].startswith("3.")
    assert document["info"] == {"title": "tiny", "version": "1"}
    record = document["components"]["schemas"]["Record"]
    assert record["required"] == ["a", "b"]
    assert record["properties"]["a"]["type"] == "number"
    assert "-10 to 10" in record["properties"]["a"]["description"]
    labels = client.get("/swagger.json", headers={**KEY, "azureml-model-deployment": "labels"})
    schemas = labels.json()["components"]["schemas"]
    assert schemas["Record"]["properties"]["colour"]["nullable"]
    text = json.dumps(schemas["Prediction"])
    assert '"enum": ["high", "low", "mid"]' in text


def test_a_websocket_is_closed(client: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/score"):
        raise AssertionError("accepted")


_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400)
)  # fmt: skip
_json = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
_names = st.sampled_from([feature.name for feature in (*NUMBERS, *MIXED)]) | st.text()
_records = st.lists(st.dictionaries(_names, _scalars), max_size=3)
_numbers = st.integers() | st.floats() | st.sampled_from([0, 1e38, -1e38, 5e-324, 2**63 - 1])
_rows = st.lists(
    st.fixed_dictionaries({"a": _numbers, "b": _numbers}), min_size=1, max_size=4
)  # fmt: skip
_texts = st.lists(
    st.fixed_dictionaries({"size": _numbers, "colour": st.text() | st.none()}), min_size=1
)
_split = st.fixed_dictionaries(
    {"columns": st.lists(_names), "data": st.lists(st.lists(_scalars, max_size=3), max_size=3)}
)
_payloads = (
    _json
    | st.fixed_dictionaries({"data": _json | _records | _rows | _texts})
    | st.fixed_dictionaries({"input_data": _json | _records | _rows | _split})
)


@settings(max_examples=400, deadline=None)
@given(payload=_payloads, name=st.sampled_from(["live", "labels"]))
def test_no_json_makes_the_server_fail(server: Server, payload: Any, name: str) -> None:
    headers = {**KEY, "azureml-model-deployment": name}
    answer = server.client.post("/score", content=json.dumps(payload).encode(), headers=headers)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]
    else:
        assert len(answer.json()["predictions"]) == len(next(iter(payload.values())))


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200))
def test_no_bytes_make_the_server_fail(server: Server, body: bytes) -> None:
    answer = server.client.post("/score", content=body, headers=KEY)
    assert answer.status_code == (200 if asks_for_metrics(body) else 400), answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"data": [list(ROW.values())]},
        {"input_data": {"columns": ["b", "a"], "index": [0], "data": [[2, 1.5]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, 2]]}},
        {"dataframe_records": [ROW]},
    ],
)
def test_every_form_gets_the_same_answer(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post("/score", json=body, headers=KEY)
    assert answer.json() == {"predictions": [1003.5]}


def test_large_bodies_are_scored_elsewhere_and_mean_the_same(client: TestClient) -> None:
    rows = [{"a": 1.5, "b": number % 10} for number in range(6000)]
    answer = client.post("/score", json={"data": rows}, headers=KEY)
    assert len(answer.request.content) > THREAD_BYTES
    assert answer.json()["predictions"] == [1001.5 + row["b"] for row in rows]
    wrong = client.post("/score", json={"data": [*rows, {"a": "x", "b": 1}]}, headers=KEY)
    assert _error(wrong) == (400, "row 6000, column 'a': wants a number, found 'x'")


def test_too_many_rows(client: TestClient) -> None:
    answer = client.post("/score", json={"data": [[1, 2]] * (MAXIMUM_ROWS + 1)}, headers=KEY)
    assert _error(answer)[0] == 413


@pytest.mark.parametrize(("ranges", "status"), [("ignore", 200), ("warn", 200), ("refuse", 400)])
def test_values_outside_the_contract(server: Server, ranges: Any, status: int) -> None:
    """Ignored, told of, or refused, as model.yaml says."""
    before = server.deployments.serving
    loaded = before.deployments["live"]
    predictor = copy.copy(loaded.predictor)
    predictor.schema = dataclasses.replace(predictor.schema, ranges=ranges)
    deployment = Deployment("ranges", dataclasses.replace(loaded.entry, traffic=0), predictor)
    server.deployments.serving = Serving(2, {**before.deployments, "ranges": deployment})
    headers = {**KEY, "azureml-model-deployment": "ranges"}
    body = {"data": [ROW, {"a": 11, "b": 2}, {"a": 1, "b": 12}]}
    try:
        answer = server.client.post("/score", json=body, headers=headers)
        counts = server.client.get("/metrics", headers=KEY).text
    finally:
        server.deployments.serving = before
    assert answer.status_code == status
    outside = "row 1, column 'a': 11.0 is outside the contract's range -10 to 10"
    if ranges == "refuse":
        assert _error(answer) == (400, outside)
    elif ranges == "warn":
        assert answer.json()["predictions"] == [1003.5, 1013.0, 1013.0]
        assert answer.json()["warnings"][0] == outside
        assert len(answer.json()["warnings"]) == 2
        assert 'mlops_out_of_contract_total{column="a",deployment="ranges"} 1.0' in counts
    else:
        assert answer.json() == {"predictions": [1003.5, 1013.0, 1013.0]}


def test_metrics_count_and_need_a_key(server: Server) -> None:
    assert server.client.get("/metrics").status_code == 401
    for body in ({"data": [ROW]}, {"data": []}):
        server.client.post("/score", json=body, headers=KEY)
    answer = server.client.get("/metrics", headers=KEY)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for status in ("200", "400"):
        line = f'mlops_requests_total{{deployment="live",status="{status}"}}'
        (value,) = [x for x in answer.text.splitlines() if x.startswith(line)]
        assert float(value.split()[-1]) >= 1


def test_pages_of_other_origins(tmp_path: Path, server: Server) -> None:
    application = Application(
        server.deployments, KeyFile(server.keys), Metrics(), cors_origins=["https://app.example"]
    )
    client = TestClient(application)
    ours, theirs = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
    asked = client.options("/score", headers=ours)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ours["origin"]
    assert "authorization" in asked.headers["access-control-allow-headers"]
    answer = client.post("/score", json={"data": [ROW]}, headers={**KEY, **ours})
    assert answer.headers["access-control-allow-origin"] == ours["origin"]
    refused = client.post("/score", json={"data": []}, headers={**KEY, **ours})
    assert refused.headers["access-control-allow-origin"] == ours["origin"]  # or nobody reads why
    other = client.post("/score", json={"data": [ROW]}, headers={**KEY, **theirs})
    assert "access-control-allow-origin" not in other.headers
    plain = server.client.post("/score", json={"data": [ROW]}, headers={**KEY, **ours})
    assert "access-control-allow-origin" not in plain.headers


def test_a_busy_server_tells_clients_to_come_again(server: Server) -> None:
    """What waits for a thread is bounded; the others are answered meanwhile."""
    application = Application(server.deployments, KeyFile(server.keys), Metrics())
    application._waiting = MAXIMUM_WAITING
    client = TestClient(application)
    rows = [{"a": 1.5, "b": 1}] * 6000
    answer = client.post("/score", json={"data": rows}, headers=KEY)
    assert _error(answer)[0] == 503
    assert answer.headers["retry-after"] == "1"
    assert client.post("/score", json={"data": [ROW]}, headers=KEY).status_code == 200
    assert 'mlops_refused_total{reason="busy"} 1.0' in client.get("/metrics", headers=KEY).text


def test_the_access_log_has_no_payload(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    application = Application(server.deployments, KeyFile(server.keys), Metrics(), access_log=True)
    client = TestClient(application)
    with caplog.at_level(logging.INFO):
        headers = {**KEY, "x-request-id": "id-9"}
        client.post("/score", json={"data": [{"a": "secret", "b": 1}]}, headers=headers)
    (record,) = [r for r in caplog.records if r.message == "answered"]
    line = json.loads(JsonFormatter().format(record))
    assert (line["request_id"], line["status"], line["deployment"]) == ("id-9", 400, "live")
    assert "secret" not in caplog.text
