"""Converters in place of skl2onnx's own where those are inexact, slow, or know one width alone.

- Trees: scikit-learn compares in 64 bits (histogram boosting) or rounds a value to 32 bits and
  then compares it with a threshold of 64 (all others). skl2onnx rounds values and thresholds, does
  not know where a missing value goes, and never returns from a threshold that is infinite. Here
  they are compared as scikit-learn compares them, by an ensemble of 64 bits whose sums
  onnxruntime rounds to 32 bits at the end.
- SimpleImputer of numbers: onnxruntime's operator knows 32 bits alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops_assets.training.errors import NotConvertedError

Array = np.ndarray[Any, Any]

#: What skl2onnx calls the estimators of trees.
_TREES = ("DecisionTree", "ExtraTree", "RandomForest", "ExtraTrees", "GradientBoosting",
          "HistGradientBoosting")  # fmt: skip


@functools.cache
def register() -> None:
    """Make skl2onnx use them, in this process."""
    from skl2onnx.common._registration import get_converter, register_converter

    for name in _TREES:
        for kind, convert in (("Classifier", _classifier), ("Regressor", _regressor)):
            alias = f"Sklearn{name}{kind}"
            options = get_converter(alias).get_allowed_options()
            register_converter(alias, convert, overwrite=True, options=options)
    imputer = _imputer(get_converter("SklearnSimpleImputer"))
    register_converter("SklearnSimpleImputer", imputer, overwrite=True)


class _Graph:
    """Appends nodes to what skl2onnx builds."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node of one output, whose name is returned."""
        if output is None:
            output = str(self._scope.get_unique_variable_name(operator.lower()))
        domain = "ai.onnx.ml" if operator.startswith("TreeEnsemble") else ""
        name = self._scope.get_unique_operator_name(operator)
        self._container.add_node(
            operator, list(inputs), output, op_domain=domain, name=name, **attributes
        )
        return output

    def constant(self, values: Array) -> str:
        """An array of the model, whose name is returned."""
        import onnx

        kind = onnx.TensorProto.STRING
        if values.dtype.kind not in "UO":
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        name = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, kind, values.shape, values.ravel().tolist())
        return name

    def cast(self, value: str, dtype: str, output: str | None = None) -> str:
        """A value as another type."""
        import onnx

        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", value, output=output, to=kind)


@dataclass(frozen=True)
class _Tree:
    """The m nodes of one tree; a value goes left if it is not above the threshold."""

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    leaf: Array
    #: m x k, of which those of leaves count.
    values: Array
    #: The first of the k targets they are added to.
    target: int = 0


def _sklearn_tree(tree: Any, target: int = 0, factor: float = 1.0) -> _Tree:
    leaf = tree.children_left == -1
    return _Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=tree.missing_go_to_left,
        leaf=leaf,
        values=tree.value[:, 0, :] * factor,
        target=target,
    )


def _histogram_tree(predictor: Any, target: int) -> _Tree:
    nodes = predictor.nodes
    if nodes["is_categorical"].any():
        raise NotConvertedError("ONNX has no splits by category (categorical_features)")
    return _Tree(
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        left=nodes["left"],
        right=nodes["right"],
        missing_left=nodes["missing_go_to_left"],
        leaf=nodes["is_leaf"].astype(bool),
        values=nodes["value"][:, None],
        target=target,
    )


def _trees(model: Any) -> list[_Tree]:
    if hasattr(model, "_predictors"):
        rounds = model._predictors  # noqa: SLF001
        return [_histogram_tree(p, k) for round_ in rounds for k, p in enumerate(round_)]
    if hasattr(model, "learning_rate"):
        rate = model.learning_rate
        return [
            _sklearn_tree(tree.tree_, k, rate)
            for round_ in model.estimators_
            for k, tree in enumerate(round_)
        ]
    return [_sklearn_tree(tree.tree_) for tree in getattr(model, "estimators_", [model])]


def _base(model: Any) -> Array | None:
    """What a boosted model starts from, one number per target."""
    if hasattr(model, "_baseline_prediction"):
        return np.ravel(model._baseline_prediction)  # noqa: SLF001
    if not hasattr(model, "learning_rate"):
        return None
    if model.init not in (None, "zero"):
        raise NotConvertedError("ONNX knows no boosting that starts from another estimator")
    return np.ravel(model._raw_predict_init(np.zeros((1, model.n_features_in_))))  # noqa: SLF001


def _raw(graph: _Graph, model: Any, value: str) -> str:
    """Add the ensemble: n x targets, summed over boosted trees, averaged over others."""
    base = _base(model)
    if not hasattr(model, "_predictors"):
        value = graph.cast(value, "float32")  # as every other tree of scikit-learn does
    value = graph.cast(value, "float64")
    trees = _trees(model)
    targets = max(tree.target + tree.values.shape[1] for tree in trees)
    attributes = _ensemble(trees)
    if base is not None:
        attributes["base_values_as_tensor"] = _tensor(base)
    how = "AVERAGE" if base is None else "SUM"
    return graph.add(
        "TreeEnsembleRegressor", value, n_targets=targets, aggregate_function=how, **attributes
    )


def _ensemble(trees: Sequence[_Tree]) -> dict[str, Any]:
    """The attributes of the ONNX operator."""

    def joined(of: Callable[[_Tree], Array]) -> Array:
        return np.concatenate([of(tree) for tree in trees])

    def inner(of: Callable[[_Tree], Array]) -> Array:
        return joined(lambda tree: np.where(tree.leaf, 0, of(tree)))

    sizes = [len(tree.leaf) for tree in trees]
    numbers = np.repeat(np.arange(len(trees)), sizes)
    nodes = joined(lambda tree: np.arange(len(tree.leaf)))
    # Each leaf of each tree, with its k values.
    leaves = joined(lambda tree: tree.leaf)
    widths = np.repeat([tree.values.shape[1] for tree in trees], sizes)[leaves]
    targets = joined(lambda t: np.tile(np.arange(t.values.shape[1]) + t.target, int(t.leaf.sum())))
    return {
        "nodes_treeids": numbers.tolist(),
        "nodes_nodeids": nodes.tolist(),
        "nodes_featureids": inner(lambda tree: tree.feature).tolist(),
        "nodes_modes": np.where(leaves, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values_as_tensor": _tensor(inner(lambda tree: tree.threshold)),
        "nodes_truenodeids": inner(lambda tree: tree.left).tolist(),
        "nodes_falsenodeids": inner(lambda tree: tree.right).tolist(),
        "nodes_missing_value_tracks_true": inner(lambda tree: tree.missing_left).tolist(),
        "target_treeids": np.repeat(numbers[leaves], widths).tolist(),
        "target_nodeids": np.repeat(nodes[leaves], widths).tolist(),
        "target_ids": targets.tolist(),
        "target_weights_as_tensor": _tensor(joined(lambda tree: tree.values[tree.leaf].ravel())),
    }


def _tensor(values: Array) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(values, dtype=np.float64))


def _regressor(scope: Any, operator: Any, container: Any) -> None:
    graph, model = _Graph(scope, container), operator.raw_operator
    value = _raw(graph, model, operator.inputs[0].full_name)
    if hasattr(model, "_predictors"):
        link = type(model._loss.link).__name__  # noqa: SLF001
        if link == "LogLink":
            value = graph.add("Exp", value)
        elif link != "IdentityLink":
            raise NotConvertedError(f"ONNX knows no {link} of {type(model).__name__}")
    _finish(graph, value, operator.outputs[0])


def _classifier(scope: Any, operator: Any, container: Any) -> None:
    graph, model = _Graph(scope, container), operator.raw_operator
    shares = _raw(graph, model, operator.inputs[0].full_name)
    if hasattr(model, "learning_rate"):
        shares = _shares(graph, shares, type(model._loss).__name__)  # noqa: SLF001
    classes = np.asarray(model.classes_)
    if classes.dtype.kind == "b":
        classes = classes.astype(np.int64)
    best = graph.add("ArgMax", shares, axis=1, keepdims=0)
    graph.add("Gather", graph.constant(classes), best, output=operator.outputs[0].full_name)
    _finish(graph, shares, operator.outputs[1])


def _shares(graph: _Graph, raw: str, loss: str) -> str:
    """Probabilities from what boosted trees add up to."""
    if loss == "HalfMultinomialLoss":
        return graph.add("Softmax", raw, axis=1)
    if loss not in ("HalfBinomialLoss", "ExponentialLoss"):
        raise NotConvertedError(f"ONNX knows no {loss} of a classifier")
    if loss == "ExponentialLoss":
        raw = graph.add("Add", raw, raw)
    second = graph.add("Sigmoid", raw)
    first = graph.add("Sigmoid", graph.add("Neg", raw))
    return graph.add("Concat", first, second, axis=1)


def _finish(graph: _Graph, value: str, output: Any) -> None:
    """Give a value the type and name that skl2onnx expects."""
    wide = type(output.type).__name__.startswith("Double")
    graph.cast(value, "float64" if wide else "float32", output=output.full_name)


def _imputer(original: Callable[..., None]) -> Callable[..., None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:
        model, kind = operator.raw_operator, type(operator.inputs[0].type).__name__
        numbers = kind in ("DoubleTensorType", "FloatTensorType") and len(operator.inputs) == 1
        missing = isinstance(model.missing_values, float) and np.isnan(model.missing_values)
        filled = np.asarray(model.statistics_)
        if not numbers or not missing or filled.dtype.kind != "f" or np.isnan(filled).any():
            original(scope, operator, container)
            return
        graph = _Graph(scope, container)
        value = operator.inputs[0].full_name
        filling = filled.astype("float64" if kind.startswith("Double") else "float32")
        graph.add(
            "Where", graph.add("IsNaN", value), graph.constant(filling[None, :]), value,
            output=operator.outputs[0].full_name,
        )  # fmt: skip

    return convert
