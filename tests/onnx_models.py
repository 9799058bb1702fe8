"""Small ONNX models made by hand, so that tests of serving need no converter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from mlops_assets.scoring.schema import Feature

TYPES = {
    "float": TensorProto.FLOAT,
    "integer": TensorProto.INT64,
    "boolean": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


def _model(nodes: list[onnx.NodeProto], features: Sequence[Feature], *outputs: object) -> bytes:
    inputs = [helper.make_tensor_value_info(f.name, _type(f), [None, 1]) for f in features]
    graph = helper.make_graph(nodes, "tiny", inputs, list(outputs))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _type(feature: Feature) -> int:
    missing = feature.nullable and feature.type in ("integer", "boolean")
    return TensorProto.FLOAT if missing else TYPES[feature.type]


def total(features: Sequence[Feature], offset: float = 0.0) -> bytes:
    """``prediction`` is the sum of all numeric columns, and an offset."""
    nodes = [
        helper.make_node("Cast", [f.name], [f"as_{f.name}"], to=TensorProto.FLOAT) for f in features
    ]
    constant = onnx.numpy_helper.from_array(np.array([[offset]], np.float32))
    nodes += [
        helper.make_node("Constant", [], ["offset"], value=constant),
        helper.make_node("Sum", [*(f"as_{f.name}" for f in features), "offset"], ["prediction"]),
    ]
    answer = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])
    return _model(nodes, features, answer)


def lookup(text: Feature, labels: Sequence[str], others: Sequence[Feature] = ()) -> bytes:
    """``label`` is the text itself, where it is a label, else the last one; certain of it."""
    nodes = [
        helper.make_node(
            "LabelEncoder",
            [text.name],
            ["index"],
            domain="ai.onnx.ml",
            keys_strings=list(labels),
            values_int64s=list(range(len(labels))),
            default_int64=len(labels) - 1,
        ),
        helper.make_node("Constant", [], ["row"], value_ints=[-1]),
        helper.make_node("Reshape", ["index", "row"], ["flat"]),
        helper.make_node(
            "LabelEncoder",
            ["flat"],
            ["label"],
            domain="ai.onnx.ml",
            keys_int64s=list(range(len(labels))),
            values_strings=list(labels),
        ),
        helper.make_node("Constant", [], ["depth"], value_int=len(labels)),
        helper.make_node("Constant", [], ["values"], value_floats=[0.0, 1.0]),
        helper.make_node("OneHot", ["flat", "depth", "values"], ["probabilities"]),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [None])
    shape = [None, len(labels)]
    shares = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)
    return _model(nodes, [text, *others], label, shares)
