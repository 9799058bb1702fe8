"""The Open Inference Protocol, through the server's routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.scoring.test_server import KEY, Server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return Server(tmp_path_factory.mktemp("server")).client


def _tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Any:
    shape = [len(data), 1] if shape is None else shape
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


ROWS = [_tensor("a", "FP32", [1.5, 2.5]), _tensor("b", "INT64", [2, 3], [2])]


def test_health_needs_no_key(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "mlops-assets"
    assert client.get("/v2/models/tiny").status_code == 401


def test_a_model_describes_itself(client: TestClient) -> None:
    found = client.get("/v2/models/tiny", headers=KEY).json()
    assert found["versions"] == ["1"]
    assert found["inputs"] == [
        {"name": "a", "datatype": "FP64", "shape": [-1, 1]},
        {"name": "b", "datatype": "INT64", "shape": [-1, 1]},
    ]
    assert found["outputs"] == [{"name": "prediction", "datatype": "FP64", "shape": [-1]}]
    assert client.get("/v2/models/tiny/versions/1/ready", headers=KEY).json()["ready"] is True
    labels = {**KEY, "azureml-model-deployment": "labels"}
    names = [o["name"] for o in client.get("/v2/models/tiny", headers=labels).json()["outputs"]]
    assert names == ["label", "probabilities"]


def test_inference(client: TestClient) -> None:
    answer = client.post("/v2/models/tiny/infer", json={"id": "7", "inputs": ROWS}, headers=KEY)
    assert answer.status_code == 200, answer.text
    assert answer.headers["azureml-model-deployment"] == "live"
    assert answer.json() == {
        "model_name": "tiny",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "prediction", "datatype": "FP64", "shape": [2], "data": [1003.5, 1005.5]}
        ],
    }
    same = client.post("/v2/models/tiny/versions/1/infer", json={"inputs": ROWS}, headers=KEY)
    assert same.json()["outputs"] == answer.json()["outputs"]


def test_inference_of_labels(client: TestClient) -> None:
    inputs = [_tensor("size", "FP64", [50.0]), _tensor("colour", "BYTES", [None])]
    body = {"inputs": inputs, "outputs": [{"name": "probabilities"}, {"name": "label"}]}
    headers = {**KEY, "azureml-model-deployment": "labels"}
    shares, label = client.post("/v2/models/tiny/infer", json=body, headers=headers).json()[
        "outputs"
    ]
    assert (shares["shape"], len(shares["data"]), sum(shares["data"])) == (
        [1, 3],
        3,
        pytest.approx(1),
    )
    assert (label["name"], label["datatype"], label["data"]) == ("label", "BYTES", ["high"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "the body must be an object"),
        ({}, "inputs: wants a list of tensors"),
        ({"inputs": [1]}, "inputs[0]: wants an object"),
        ({"inputs": ROWS[:1]}, "missing column 'b'"),
        ({"inputs": [*ROWS, ROWS[0]]}, "'a' written twice"),
        ({"inputs": [_tensor("a", "BOOL", [1.0]), ROWS[1]]}, "input 'a': datatype 'BOOL'"),
        ({"inputs": [_tensor("a", "FP32", [1.0], [2]), ROWS[1]]}, "shape [2] does not fit 1"),
        ({"inputs": [_tensor("a", "FP32", [1.0]), ROWS[1]]}, "different numbers of rows: [1, 2]"),
        ({"inputs": [{**ROWS[0], "data": "x"}, ROWS[1]]}, "data: wants a list"),
        ({"inputs": [_tensor("a", "FP32", ["x", 1.0]), ROWS[1]]}, "row 0, column 'a'"),
        ({"inputs": ROWS, "outputs": [{"name": "x"}]}, "no output 'x'; there are: prediction"),
        ({"inputs": ROWS, "outputs": 1}, "outputs: wants a list"),
        ({"inputs": ROWS, "outputs": [{"name": "prediction"}] * 2}, "one is asked for twice"),
        ({"inputs": ROWS, "id": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(client: TestClient, body: Any, message: str) -> None:
    answer = client.post("/v2/models/tiny/infer", content=json.dumps(body), headers=KEY)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v2/models", "/v2/models/other", "/v2/models/tiny/x", "/v2/models/tiny/versions/9"]
)
def test_what_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path, headers=KEY).status_code == 404


def test_nothing_is_ready_before_a_version_serves(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.deployments.serving = type(server.deployments.serving)()
    assert server.client.get("/v2/health/ready").status_code == 503
    assert server.client.get("/v2/health/live").status_code == 200
