"""Any body: what was answered is read again as the server read it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.scoring.capture.rows import Request, RowBuffer, UndecodableError
from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.capture.wire import Record
from mlops_assets.scoring.deployments import Deployment
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.generation import Entry
from mlops_assets.scoring.inference_protocol import table as from_tensors
from mlops_assets.scoring.metrics import Tally
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.scoring.responder import Responder
from tests.bundles import exported_classifier
from tests.scoring.bodies import SCORE, Odd, requests

REQUEST = Request(1.5, "id", "v1", 1, 200, 0.25)


@pytest.fixture(scope="module")
def responder(tmp_path_factory: pytest.TempPathFactory) -> Responder:
    version = exported_classifier(tmp_path_factory.mktemp("rows"))
    predictor = Predictor.load(version.bundle, version.digest)
    entry = Entry(str(version.bundle), version.digest, 1, 100)
    return Responder(Deployment("v1", entry, predictor), Tally())


@given(requests())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_rows_are_those_that_were_scored(responder: Responder, odd: Odd) -> None:
    schema = responder.deployment.predictor.schema
    try:
        answer, prediction = (responder.work if odd.path == SCORE else responder.infer)(odd.body)
    except RequestError:
        return
    buffer = RowBuffer(schema, CaptureSettings(""))
    if odd.path != SCORE and not any(v in answer for v in (b'"label"', b'"prediction"')):
        return  # it asked for its probabilities alone
    buffer.add(REQUEST, odd.body, answer)
    found = buffer.batch().to_pydict()
    scored = (
        parse(odd.body, schema)
        if odd.path == SCORE
        else from_tensors(json.loads(odd.body)["inputs"], schema)
    )
    assert {name: found[name] for name in schema.names} == scored.columns
    assert found["mlops_prediction"] == prediction.values
    assert found["mlops_row"] == [*range(scored.rows)]


@given(st.lists(st.tuples(requests(), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_requests_are_read_as_each_of_them(
    responder: Responder, asked: list[tuple[Odd, bool]]
) -> None:
    """Plain requests among odd ones, refused ones, and answers that do not fit."""
    records: list[Record] = []
    for number, (odd, spoilt) in enumerate(asked):
        body, answer = odd.body, b""
        try:
            answer, _ = (responder.work if odd.path == SCORE else responder.infer)(body)
        except RequestError:
            body = b""
        if spoilt and body:
            answer = b'{"predictions": [1, 2]}'
        at, status = 1_500_000_000 + 1000 * number, 200 if body else 400
        records.append((at, b"%d" % number, 0, status, 0.25, body, answer))
    schema = responder.deployment.predictor.schema
    one, many = RowBuffer(schema, CaptureSettings("")), RowBuffer(schema, CaptureSettings(""))
    wrong = []
    for at, identity, _, status, seconds, body, answer in records:
        try:
            request = Request(at / 1e9, identity.decode(), "v1", 1, status, seconds)
            one.add(request, body, answer)
        except UndecodableError as error:
            wrong.append(str(error))
    assert many.extend(("v1", 1), records) == wrong
    assert many.requests == one.requests
    assert many.batch().equals(one.batch())


def test_a_row_without_values_and_what_does_not_fit(responder: Responder) -> None:
    buffer = RowBuffer(responder.deployment.predictor.schema, CaptureSettings(""))
    buffer.add(REQUEST._replace(status=400, deployment=None, version=None), b"", b"")
    body = b'{"data": [{"size": 4711.25, "colour": "s3cret"}]}'
    for given_, answer in (
        (b"{", b'{"predictions": [1]}'),
        (body, b'{"predictions": []}'),
        (body, b"s3cret"),
    ):
        with pytest.raises(UndecodableError) as caught:
            buffer.add(REQUEST, given_, answer)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert (len(buffer), buffer.requests) == (1, 1)
    batch = buffer.batch()
    assert batch.to_pylist()[0]["mlops_status"] == 400
    assert batch.schema.field("mlops_time").type == pa.timestamp("us", tz="UTC")
    assert batch.schema.names[7:] == ["mlops_prediction", "size", "colour"]


def test_which_columns_are_kept(responder: Responder) -> None:
    schema = responder.deployment.predictor.schema
    for kept, wanted in (
        (CaptureSettings("", exclude=("colour",)), ["mlops_prediction", "size"]),
        (CaptureSettings("", columns=("colour",)), ["mlops_prediction", "colour"]),
        (CaptureSettings("", columns=("colour",), exclude=("colour", "y")), []),
        (CaptureSettings("", exclude=("mlops_prediction",)), ["size", "colour"]),
    ):
        assert RowBuffer(schema, kept).schema.names[7:] == wanted


def test_settings_are_the_same_from_json(tmp_path: Path) -> None:
    from dataclasses import asdict

    from mlops_assets.scoring.supervisor import Settings

    one = Settings(capture=CaptureSettings("/x", 0.5, ("a",), ("b",)))
    assert Settings.from_dict(json.loads(json.dumps(asdict(one)))) == one
    assert Settings.from_dict(json.loads(json.dumps(asdict(Settings())))) == Settings()
