from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.samples import Sample, judge, load_samples, run_sample
from mlops_assets.spec import load_model
from mlops_assets.strict import SpecError
from resources.endpoints.base import Answer
from resources.environment import checkout

REQUESTS = checkout() / "samples" / "requests"


def _answer(body: Any, status: int = 200, seconds: float = 0.01) -> Answer:
    return Answer(status, json.dumps(body).encode(), {}, seconds)


def _sample(**expect: Any) -> Sample:
    return Sample.model_validate({"name": "one", "request": {"data": []}, "expect": expect})


@pytest.mark.parametrize("path", sorted(REQUESTS.glob("*/*.json")), ids=lambda p: p.parent.name)
def test_the_samples_of_the_repository(path: Path) -> None:
    samples = load_samples(path)
    assert len(samples) >= 3
    assert 400 in {sample.expect.status for sample in samples}
    features = load_model(checkout() / "mlops_assets" / "models" / path.parent.name).features
    good = [s for s in samples if s.expect.status == 200 and "data" in s.request]
    assert good
    for sample in good:
        for record in sample.request["data"]:
            assert list(record) == features


def test_every_environment_of_the_repository_has_samples() -> None:
    found = {f"{path.parent.name}/{path.stem}" for path in REQUESTS.glob("*/*.json")}
    models, environments = ("diabetes", "penguins"), ("staging", "production")
    assert found >= {f"{model}/{name}" for model in models for name in environments}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing; write a list of named requests"),
        ("{", "not readable as JSON"),
        ("[NaN]", "NaN is not JSON"),
        ("[]", "must be a list of at least one sample"),
        ("{}", "must be a list of at least one sample"),
        ("[1]", "[0] input should be"),
        ('[{"name": "a"}]', "[0] request: missing"),
        ('[{"name": "", "request": 1}]', "[0] name: string should have at least 1 character"),
        ('[{"name": "a", "request": 1, "expected": {}}]',
         "[0] expected: unknown key; allowed here: name, request, expect"),
        ('[{"name": "a", "request": 1, "expect": {"code": 1}}]',
         "[0] expect.code: unknown key; allowed here: status, predictions, minimum, maximum,"),
        ('[{"name": "a", "request": 1, "expect": {"minimum": 2, "maximum": 1}}]',
         "[0] expect: minimum 2.0 is greater than maximum 1.0"),
        ('[{"name": "a", "request": 1, "expect": {"status": 400, "predictions": 1}}]',
         "[0] expect: an answer with status 400 holds no predictions to expect"),
        ('[{"name": "a", "request": 1}, {"name": "a", "request": 2}]', "name 'a' is used twice"),
    ],
)  # fmt: skip
def test_a_bad_file_of_samples(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "staging.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_samples(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_problems_of_a_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "staging.json"
    path.write_text('[{"name": 1, "request": 1}, {"name": "b"}]')
    with pytest.raises(SpecError) as caught:
        load_samples(path)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("expect", "answer", "problems"),
    [
        ({}, _answer({"predictions": [1]}), []),
        ({}, _answer({}, 500), ["expected status 200, found 500"]),
        ({"status": 400}, _answer({}, 400), []),
        ({"status": 400}, _answer({"predictions": [1]}), ["expected status 400, found 200"]),
        ({"predictions": 2}, _answer({"predictions": [1]}), ["expected 2 predictions, found 1"]),
        ({}, _answer([1]), ["expected JSON with predictions"]),
        ({}, _answer({"predictions": 1}), ["expected JSON with predictions"]),
        ({}, Answer(200, b"<html>", {}, 0.1), ["expected JSON with predictions"]),
        ({"minimum": 1, "maximum": 2}, _answer({"predictions": [1, 2, 1.5]}), []),
        ({"minimum": 1}, _answer({"predictions": [0.5]}), ["expected at least 1, found 0.5"]),
        ({"maximum": 2}, _answer({"predictions": [2.5]}), ["expected at most 2, found 2.5"]),
        ({"maximum": 2}, _answer({"predictions": ["x"]}), ["expected at most 2, found 'x'"]),
        ({"minimum": 0, "maximum": 0}, _answer({"predictions": [1]}),
         ["expected at most 0, found 1"]),
        ({"labels": ["a"]}, _answer({"predictions": ["a", "b"]}),
         ["expected one of the labels ['a'], found 'b'"]),
        ({"latency_ms": 5}, _answer({"predictions": [1]}),
         ["expected at most 5 ms, found 10.0 ms"]),
    ],
)  # fmt: skip
def test_an_answer_is_judged(expect: dict[str, Any], answer: Answer, problems: list[str]) -> None:
    assert judge(_sample(**expect), answer) == problems


def test_the_fastest_of_three_answers_counts() -> None:
    times = [0.3, 0.2, 0.1, 0.01]

    def ask(_: Any) -> Answer:
        return _answer({"predictions": [1]}, seconds=times.pop(0))

    result = run_sample(ask, _sample(latency_ms=50))
    assert result.problems == ("expected at most 50 ms, found 100.0 ms",)
    assert str(result).startswith("sample 'one': expected at most 50 ms")
    assert run_sample(ask, _sample(latency_ms=50)).problems == ()
    assert times == []
