"""Fewer nodes, the same answers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Feature
from mlops_assets.training import onnx_export
from mlops_assets.training.onnx_export import convert
from mlops_assets.training.onnx_simplify import simplify

FEATURES = (
    Feature("size", "float", nullable=True),
    Feature("colour", "string", nullable=True),
    Feature("shape", "string", nullable=True),
)
COLOURS, SHAPES = ("red", "blue", "green", "", "mauve"), ("round", "square", "", "oval")


def _fitted(imputer: Any, encoder: Any) -> Any:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["size"]),
        (make_pipeline(imputer, encoder), ["colour", "shape"]),
    )
    rows = [*itertools.product(range(4), COLOURS[:4], SHAPES[:3])]
    named = zip(("size", "colour", "shape"), zip(*rows, strict=True), strict=True)
    frame = to_frame({name: [*values] for name, values in named}, FEATURES)
    target = [(len(colour) + size * len(shape)) % 3 for size, colour, shape in rows]
    return make_pipeline(columns, LogisticRegression()).fit(frame, [f"c{n}" for n in target])


def _answers(model: bytes) -> list[Any]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = [*itertools.product((0.5, -1e9, float("nan"), 3.0), COLOURS, SHAPES)]
    feeds = {
        feature.name: np.array(values, object if feature.type == "string" else float)[:, None]
        for feature, values in zip(FEATURES, zip(*rows, strict=True), strict=True)
    }
    return [array.tolist() for array in session.run(None, feeds)]


@pytest.mark.parametrize("filled", ["red", "unheard of"])
@pytest.mark.parametrize("missing", ["", "green"])
def test_fewer_nodes_answer_the_same(
    monkeypatch: pytest.MonkeyPatch, filled: str, missing: str
) -> None:
    imputer = SimpleImputer(missing_values=missing, strategy="constant", fill_value=filled)
    estimator = _fitted(imputer, OneHotEncoder(handle_unknown="ignore"))
    simple = convert(estimator, FEATURES, classifies=True, precision="double")
    monkeypatch.setattr(onnx_export, "simplify", lambda model: model)
    whole = convert(estimator, FEATURES, classifies=True, precision="double")
    assert _answers(simple) == _answers(whole)
    kinds = [node.op_type for node in onnx.load_model_from_string(simple).graph.node]
    assert len(kinds) <= len(onnx.load_model_from_string(whole).graph.node) - 12
    assert "Where" in kinds  # of the numbers
    assert kinds.count("LabelEncoder") == 2
    again = simplify(onnx.load_model_from_string(simple)).SerializeToString()
    assert again == simple


def test_a_model_with_branches_stays_as_it_is() -> None:
    helper = onnx.helper
    kind = onnx.TensorProto.FLOAT
    one = helper.make_tensor_value_info("one", kind, [1])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["one"], value_floats=[1.0])], "branch", [], [one]
    )
    test = helper.make_tensor_value_info("test", onnx.TensorProto.BOOL, [])
    unused = helper.make_node("Not", ["test"], ["unused"])
    choice = helper.make_node("If", ["test"], ["one_of"], then_branch=branch, else_branch=branch)
    answer = helper.make_tensor_value_info("one_of", kind, [1])
    graph = helper.make_graph([unused, choice], "model", [test], [answer])
    model = helper.make_model(graph)
    before = model.SerializeToString()
    assert simplify(model).SerializeToString() == before
