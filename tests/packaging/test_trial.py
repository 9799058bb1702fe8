from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.files import read_json
from mlops_assets.packaging.trial import Trial, bodies_of, differences, try_out
from mlops_assets.packaging.wheel import Wheel
from resources.registry import Version
from tests.bundles import broken, classifier, exported_classifier
from tests.packages import built, registered

#: Outside the contract of the colours.
GREEN = {"data": [{"size": 12.5, "colour": "green"}]}
FORMS = [
    {"data": [[12.5, "red"], [50.0, None]]},
    {"input_data": {"columns": ["colour", "size"], "index": [7], "data": [["blue", 3]]}},
    {"data": [{"size": 1.0}]},  # refused: nothing to compare
]


def tried(version: Version, wheel: Path, folder: Path, *bodies: object) -> Trial:
    asked = bodies_of(version, [*FORMS, *bodies])
    return try_out(Wheel(version, 0), wheel, asked, folder / "environment")


@pytest.mark.parametrize("make", [exported_classifier, classifier])
def test_a_wheel_answers_as_the_endpoint_does(make: type, tmp_path: Path) -> None:
    version = registered(make(tmp_path))
    sample = len(read_json(version.bundle / "sample.json")["input"])
    found = tried(version, built(version, tmp_path / "built"), tmp_path)
    assert found == Trial("same", f"{1 + sample + 2} requests are answered as by the endpoint")


def test_a_wheel_of_another_version_is_found_out(tmp_path: Path) -> None:
    version = registered(exported_classifier(tmp_path / "one", ranges="warn"))
    other = registered(exported_classifier(tmp_path / "other", ranges="ignore"))
    found = tried(version, built(other, tmp_path / "built"), tmp_path, GREEN)
    assert found.outcome == "different"
    assert found.reason.startswith('answer: the endpoint says {"predictions": ["low"]')
    assert found.reason.endswith("""; asked {"data": [{"size": 12.5, "colour": "green"}]}""")


def test_a_wheel_that_gives_no_answer_is_found_out(tmp_path: Path) -> None:
    version = registered(exported_classifier(tmp_path / "one"))
    other = registered(exported_classifier(tmp_path / "other", ranges="refuse"))
    found = tried(version, built(other, tmp_path / "built"), tmp_path, GREEN)
    assert found.outcome == "different"
    assert "RequestError: row 0, column 'colour': 'green' is none of" in found.reason


def test_without_what_it_depends_on_it_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    version = registered(exported_classifier(tmp_path), packages={"onnxruntime": "99.0"})
    found = tried(version, built(version, tmp_path / "built"), tmp_path)
    assert found.outcome == "not_tried"
    assert "tiny_model-1.0.0-py3-none-any.whl cannot be installed here" in found.reason
    assert "onnxruntime>=99.0" in found.reason


def test_a_version_that_gives_no_answer_is_no_word_against_its_wheel(tmp_path: Path) -> None:
    version = registered(broken(tmp_path))
    found = tried(version, built(version, tmp_path / "built"), tmp_path, {"data": [[7, 1]]})
    assert found.outcome == "not_tried"
    assert "the version itself gives no answer: RuntimeError" in found.reason


def test_numbers_are_the_same_as_far_as_their_kind_is_exact() -> None:
    answer = {"predictions": [1.0, 2], "probabilities": [{"a": 0.25, "b": 0.75}]}
    near = {"predictions": [1.0000001, 2], "probabilities": [{"a": 0.25, "b": 0.75}]}
    assert list(differences(answer, near)) == []
    for path, other in {
        "answer.predictions[0]": {**answer, "predictions": [1.0001, 2]},
        "answer.predictions[1]": {**answer, "predictions": [1.0, 2.0]},
        "answer.probabilities[0].b": {**answer, "probabilities": [{"a": 0.25, "b": 0.7}]},
        "answer.probabilities[0]": {**answer, "probabilities": [{"a": 0.25}]},
        "answer.predictions": {**answer, "predictions": [1.0]},
        "answer": {"predictions": [1.0, 2]},
    }.items():
        (found,) = differences(answer, other)
        assert found.startswith(f"{path}: the endpoint says ")
