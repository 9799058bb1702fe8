from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_assets.files import digest_file
from mlops_assets.scoring.errors import IntegrityError, ModelError, RequestError
from mlops_assets.scoring.predictor import Predictor
from tests.bundles import (
    NUMBERS,
    broken,
    classifier,
    exported,
    regression,
    write_bundle,
    write_manifest,
)


def load(bundle: Path) -> Predictor:
    """A bundle whose manifest is what was registered."""
    return Predictor.load(bundle, digest_file(bundle / "manifest.json"))


def test_a_regression_answers_plain_numbers(tmp_path: Path) -> None:
    version = regression(tmp_path, 3)
    predictor = Predictor.load(version.bundle, version.digest)
    answer = predictor.predict([{"a": 1.5, "b": 2}, {"b": 0, "a": 0}])
    assert answer.values == pytest.approx([3003.5, 3000.0])
    assert [type(value) for value in answer.values] == [float, float]
    assert answer.probabilities is None
    assert predictor.digest == version.digest


def test_a_classifier_answers_labels_and_probabilities(tmp_path: Path) -> None:
    predictor = load(classifier(tmp_path).bundle)
    answer = predictor.predict(
        [{"size": 1, "colour": None}, {"size": 99, "colour": "a colour never seen"}]
    )
    assert answer.values == ["low", "high"]
    assert answer.probabilities is not None
    assert predictor.schema.labels == ("high", "low", "mid")
    for row, label in zip(answer.probabilities, answer.values, strict=True):
        assert sum(row) == pytest.approx(1)
        assert predictor.schema.labels[int(np.argmax(row))] == label


class Detonator:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_changed_model_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    (version.bundle / "model.pkl").write_bytes(pickle.dumps(Detonator(tmp_path / "exploded")))
    with pytest.raises(IntegrityError, match=r"model\.pkl: SHA-256 is .* the manifest says"):
        Predictor.load(version.bundle, version.digest)
    assert not (tmp_path / "exploded").exists()


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    (version.bundle / "model.pkl").write_bytes(pickle.dumps(Detonator(tmp_path / "exploded")))
    write_manifest(version.bundle, NUMBERS, None)  # it now agrees with the changed model
    with pytest.raises(IntegrityError, match=r"manifest\.json: SHA-256 is"):
        Predictor.load(version.bundle, version.digest)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["manifest.json", "model.pkl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    version = regression(tmp_path, 1)
    (version.bundle / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}: No such file"):
        Predictor.load(version.bundle, version.digest)


@pytest.mark.parametrize("text", ["[]", "{", '{"files": {}}', '{"files": {"model.pkl": "0"}}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"manifest\.json: not a manifest"):
        load(tmp_path)


def test_a_model_that_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    path = version.bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["model.pkl"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=r"model\.pkl: the manifest does not name it"):
        load(version.bundle)


def test_a_model_that_fails_inside_its_contract_is_its_own_fault(tmp_path: Path) -> None:
    predictor = load(broken(tmp_path).bundle)
    assert predictor.predict([{"a": 1, "b": 1}]).values == [0.0]
    with pytest.raises(RuntimeError, match="secret detail"):
        predictor.predict([{"a": 7, "b": 1}])
    with pytest.raises(ModelError, match="the model answered nan"):
        predictor.predict([{"a": 8, "b": 1}])


def test_a_model_that_fails_outside_its_contract_blames_the_value(tmp_path: Path) -> None:
    predictor = load(broken(tmp_path).bundle)
    with pytest.raises(RequestError, match="row 1, column 'b': 11 is outside the contract's range"):
        predictor.predict([{"a": 7, "b": 1}, {"a": 7, "b": 11}])


class TooFew:
    def predict(self, _: Any) -> list[float]:
        return [1.0]


def test_one_answer_per_row_is_asked_for(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", TooFew(), NUMBERS, [{"a": 1.0, "b": 1}])
    predictor = load(tmp_path / "bundle")
    with pytest.raises(ModelError, match="gave 1 answers for 2 rows"):
        predictor.predict([{"a": 1.0, "b": 1}, {"a": 1.0, "b": 1}])


def test_served_from_onnx_a_process_needs_neither_pandas_nor_scikit_learn(tmp_path: Path) -> None:
    version = exported(tmp_path, 1)
    code = f"""
import sys, json
from pathlib import Path
from mlops_assets.scoring.predictor import Predictor
predictor = Predictor.load(Path({str(version.bundle)!r}), {version.digest!r})
heavy = sorted({{"pandas", "sklearn", "onnx", "skl2onnx", "starlette"}} & sys.modules.keys())
print(json.dumps([predictor.format, predictor.predict([{{"a": 1.5, "b": 2}}]).values, heavy]))
"""
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == ["onnx", [1003.5], []]


def test_each_of_its_models_can_be_asked_for(tmp_path: Path) -> None:
    version = exported(tmp_path, 2)
    assert load(version.bundle).format == "onnx"
    pickled = Predictor.load(version.bundle, version.digest, "pickle")
    assert pickled.format == "pickle"
    assert pickled.predict([{"a": 1.5, "b": 2}]).values == [2003.5]


@pytest.mark.parametrize("name", ["model.onnx", "model.pkl"])
def test_neither_model_may_be_another_one(tmp_path: Path, name: str) -> None:
    bundle = exported(tmp_path, 1).bundle
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=re.escape(name)):
        load(bundle)


def test_what_is_not_served_from_may_be_left_out(tmp_path: Path) -> None:
    version = exported(tmp_path, 1)
    (version.bundle / "model.pkl").unlink()
    predictor = Predictor.load(version.bundle, version.digest)
    assert predictor.predict([{"a": 1, "b": 2}]).values == [1003.0]
    with pytest.raises(IntegrityError, match=re.escape("model.pkl")):
        Predictor.load(version.bundle, version.digest, "pickle")
