from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PolynomialFeatures, StandardScaler

from mlops_assets.scoring.schema import Feature
from mlops_assets.training import onnx_converters, onnx_export, parity
from mlops_assets.training.parity import Export, Wanted, edge_rows, export
from tests.training.estimators import (
    ALL,
    NUMBERS,
    TABLE,
    TRAINING,
    classes,
    features,
    fitted,
    numbers,
    schema_of,
)

AUTO = Wanted("auto", 1e-4, 0.001, 20)
HELD_OUT = TABLE.slice(TRAINING)


def exported(
    path: Path, estimator: Any, names: tuple[str, ...], target: Any, wanted: Wanted = AUTO
) -> Export:
    estimator = fitted(estimator, names, target)
    pickle = path / "model.pkl"
    pickle.write_bytes(cloudpickle.dumps(estimator))
    return export(estimator, pickle, schema_of(estimator, names), HELD_OUT, wanted)


def test_a_model_that_agrees(tmp_path: Path) -> None:
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour", "town"]), remainder="passthrough"
    )
    names = ("share", "rooms", "lift", "colour", "town")
    found = exported(tmp_path, make_pipeline(columns, LogisticRegression()), names, classes())
    record = found.record
    edges = len(edge_rows(features(names), HELD_OUT)["share"])
    assert record.pop("max_difference") < 1e-7
    assert record.pop("reason").startswith("ONNX agrees with the pickle: greatest difference")
    assert record.pop("opset") == onnx_export.opset_of(found.model or b"")
    assert record == {
        "status": "onnx", "wanted": "auto", "precision": "double",
        "tolerance": 1e-4, "labels": 0.001, "rows": 200, "edge_rows": edges,
        "differing_rows": 0, "differing_labels": 0, "one_sided": 0,
    }  # fmt: skip
    assert found.label_rows == ()


def test_what_is_not_exact_is_tried_in_the_precision_that_onnxruntime_has(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge())
    found = exported(tmp_path, model, NUMBERS, numbers())
    assert (found.record["status"], found.record["precision"]) == ("onnx", "float")
    assert 1e-7 < found.record["max_difference"] < 1e-4
    # Too far off for somebody who wants more.
    wanted = Wanted("auto", 1e-7, 0.0, 20)
    found = exported(tmp_path, model, NUMBERS, numbers(), wanted)
    assert found.record["status"] == "differs"
    assert found.record["differing_rows"] > 0
    assert found.model is None


def categorical() -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = make_column_transformer((encoder, ["colour", "town"]), remainder="passthrough")
    model = HistGradientBoostingClassifier(categorical_features=[0, 1], max_iter=20)
    return make_pipeline(columns, model)


def test_splits_by_category_serve_from_the_pickle(tmp_path: Path) -> None:
    found = exported(tmp_path, categorical(), ALL, classes())
    assert found.model is None
    assert found.record["status"] == "not_converted"
    assert found.record["reason"] == (
        "skl2onnx does not convert it: ONNX has no splits by category (categorical_features)"
    )
    assert found.record["rows"] == found.record["edge_rows"] == 0


def test_a_converter_that_is_silently_wrong_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As skl2onnx's own converter is: it takes a split by category for one by size.
    original = onnx_converters._histogram_tree

    def careless(predictor: Any, target: int) -> Any:
        class Forgetful:
            nodes = predictor.nodes.copy()

        Forgetful.nodes["is_categorical"] = 0
        return original(Forgetful, target)

    monkeypatch.setattr(onnx_converters, "_histogram_tree", careless)
    found = exported(tmp_path, categorical(), ALL, classes())
    assert found.model is None
    record = found.record
    assert record["status"] == "differs"
    assert record["rows"] == 200
    assert record["differing_labels"] > 20
    assert record["max_difference"] > 0.1
    assert f"{record['differing_labels']} in their label" in record["reason"]


def test_an_answer_to_what_the_pickle_refuses_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(unknown: str) -> Any:
        encoder = OneHotEncoder(handle_unknown=unknown)  # pyright: ignore[reportArgumentType]
        return make_pipeline(make_column_transformer((encoder, ["colour"])), Ridge())

    names = ("share", "colour")
    found = exported(tmp_path, build("error"), names, numbers())
    assert (found.record["status"], found.record["one_sided"]) == ("onnx", 0)
    lenient = fitted(build("ignore"), names, numbers())
    model = onnx_export.convert(lenient, features(names), False, "double")
    monkeypatch.setattr(onnx_export, "convert", lambda *_: model)
    found = exported(tmp_path, build("error"), names, numbers())
    assert (found.record["status"], found.record["one_sided"]) == ("differs", 1)


def test_a_model_that_onnxruntime_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "convert", lambda *_: b"\x08\x0a\x42\x00")
    found = exported(tmp_path, Ridge(), NUMBERS, numbers())
    assert found.record["status"] == "not_scored"
    assert "the model cannot be scored: " in found.record["reason"]
    assert "model.onnx: onnxruntime cannot load it" in found.record["reason"]
    assert found.record["max_difference"] is None


def test_a_conversion_without_an_end_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def endless(*arguments: Any) -> bytes:
        asked.append(arguments[3])
        raise onnx_export.TooSlowError("not within 1 s")

    monkeypatch.setattr(onnx_export, "convert", endless)
    found = exported(tmp_path, Ridge(), NUMBERS, numbers())
    assert (found.record["status"], asked) == ("not_converted", ["double"])


def test_who_wants_no_onnx_does_not_wait_for_its_imports() -> None:
    code = (
        "import sys, mlops_assets.training.job\n"
        "print(sorted({'onnx', 'onnxruntime', 'skl2onnx', 'google.protobuf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_pickle_that_is_asked_for(tmp_path: Path) -> None:
    found = exported(tmp_path, Ridge(), NUMBERS, numbers(), Wanted("pickle", 1e-4, 0.0, 20))
    assert found.model is None
    assert found.record["status"] == "pickle"
    assert found.record["reason"] == "model.yaml says serving.format: pickle"


def test_a_holdout_of_more_rows_than_are_scored_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "CHUNK_ROWS", 30)
    found = exported(tmp_path, Ridge(), NUMBERS, numbers())
    assert (found.record["status"], found.record["rows"]) == ("onnx", 200)


def test_rows_at_the_edges_of_the_contract() -> None:
    columns = (
        Feature("a", "float", minimum=-1.5, maximum=2.5),
        Feature("n", "integer", nullable=True, minimum=0.5, maximum=9.5),
        Feature("code", "integer", categories=(1, 4)),
        Feature("on", "boolean"),
        Feature("town", "string", nullable=True, categories=("Bern",)),
        Feature("free", "float"),
    )
    rows = pa.table(
        {
            "a": [0.0, 1.0], "n": [None, 3], "code": [1, 4], "on": [True, False],
            "town": ["Bern", "Köln"], "free": [7.0, 8.0], "key": [1, 2],
        }
    )  # fmt: skip
    found = edge_rows(columns, rows)
    base = {"a": 1.0, "n": 3, "code": 4, "on": False, "town": "Köln", "free": 8.0}
    made = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    assert made[0] == base
    changed = [{k: v for k, v in row.items() if v != base[k] or type(v) is not type(base[k])}
               for row in made[1:]]  # fmt: skip
    assert changed == [
        {"a": -1.5}, {"a": 2.5},
        {"n": 1}, {"n": 9}, {"n": None},
        {"code": 1}, {}, {"code": 5},
        {}, {"on": True},
        {"town": "Bern"}, {"town": parity.UNSEEN}, {"town": None},
        {"n": None, "town": None},
    ]  # fmt: skip
