"""A fitted estimator as an ONNX model: one typed input per column, named outputs.

That a conversion succeeds proves nothing; ``parity`` does.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlops_assets.scoring.schema import Feature
from mlops_assets.scoring.session import LABEL, PREDICTION, PROBABILITIES
from mlops_assets.training import onnx_converters

if TYPE_CHECKING:
    import onnx

#: Operators of this version; onnxruntime reads it from 1.14 on, in every language.
OPSET = 18
ML_OPSET = 3
#: A text that no data holds: an imputer that looks for it leaves every text as it is.
NO_TEXT = "\0"

Precision = Literal["double", "float"]


class NotConvertedError(Exception):
    """The estimator has no ONNX form; the message is one sentence."""


def convert(
    estimator: Any, features: Sequence[Feature], classifies: bool, precision: Precision
) -> bytes:
    """Convert an estimator that was fitted on the frame of ``features``.

    Args:
        estimator: fitted; it is not changed.
        features: the columns of its frame, in training order.
        classifies: whether it predicts labels.
        precision: of the numbers between inputs and outputs, which are 32 bits wide at the end.

    Returns:
        the model: inputs of shape [n, 1] under the columns' names; output ``prediction``, or
        ``label`` and, where the estimator has them, ``probabilities`` in the order of classes_.

    Raises:
        NotConvertedError: a column or a step has no ONNX form.
    """
    times = [feature.name for feature in features if feature.type == "timestamp"]
    if times:
        raise NotConvertedError(f"ONNX has no timestamps: {', '.join(times)}")
    import skl2onnx

    onnx_converters.register()
    pipeline = _from_columns(_with_text_imputers(estimator), features)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: Any = skl2onnx.convert_sklearn(
                pipeline,
                name="model",
                initial_types=[(f.name, _input_type(f, precision)) for f in features],
                options={id(pipeline): {"zipmap": False}} if classifies else None,
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            )
    except Exception as error:  # converters raise whatever the step they do not know makes them
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotConvertedError(f"skl2onnx does not convert it: {first}") from error
    names = [PREDICTION]
    if classifies:
        names = [LABEL, PROBABILITIES] if hasattr(estimator, "predict_proba") else [LABEL]
    return _with_outputs(model, names).SerializeToString()


def _input_type(feature: Feature, precision: Precision) -> Any:
    from skl2onnx.common import data_types

    if feature.type == "string":
        return data_types.StringTensorType([None, 1])
    if precision == "double":
        # Converters take the type of their first column for that of all.
        return data_types.DoubleTensorType([None, 1])
    if feature.type == "integer" and not feature.nullable:
        return data_types.Int64TensorType([None, 1])
    if feature.type == "boolean" and not feature.nullable:
        return data_types.BooleanTensorType([None, 1])
    return data_types.FloatTensorType([None, 1])


def _with_text_imputers(estimator: Any) -> Any:
    """A copy whose imputers of texts look for a text, as their converter wants.

    A missing text is the empty one in every frame, so those that look for NaN never find any.
    """
    from sklearn.impute import SimpleImputer

    found = copy.deepcopy(estimator)
    for step in _parts(found):
        if not isinstance(step, SimpleImputer) or isinstance(step.missing_values, str):
            continue
        if hasattr(step, "statistics_") and np.asarray(step.statistics_).dtype.kind == "O":
            step.set_params(missing_values=NO_TEXT)
    return found


def _parts(estimator: Any) -> Iterator[Any]:
    """An estimator and every fitted one inside it."""
    from sklearn.base import BaseEstimator

    waiting: list[Any] = [estimator]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, BaseEstimator) and id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting += vars(value).values()


def _from_columns(estimator: Any, features: Sequence[Feature]) -> Any:
    """Put the columns side by side first, where the estimator does not pick them by name."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if any(isinstance(part, ColumnTransformer) for part in _parts(estimator)):
        return estimator
    from mlops_assets.scoring.frame import to_frame

    filler = {"float": 0.0, "integer": 0, "boolean": False, "string": ""}
    frame = to_frame({f.name: [filler[f.type]] for f in features}, features)
    columns = ColumnTransformer([("all", "passthrough", list(frame.columns))]).fit(frame)
    return Pipeline([("columns", columns), ("estimator", estimator)])


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Name the first outputs as given, numbers 32 bits wide, and drop the others."""
    import onnx

    graph, kept = model.graph, []
    # skl2onnx's own names of the values inside may be these as well.
    inside = {output.name: f"{output.name}.inside" for output in graph.output}
    for node in graph.node:
        node.input[:] = [inside.get(name, name) for name in node.input]
        node.output[:] = [inside.get(name, name) for name in node.output]
    for output, name in zip(graph.output, names, strict=False):
        kind = output.type.tensor_type.elem_type
        if kind == onnx.TensorProto.DOUBLE:
            kind = onnx.TensorProto.FLOAT
        graph.node.append(onnx.helper.make_node("Cast", [inside[output.name]], [name], to=kind))
        kept.append(onnx.helper.make_tensor_value_info(name, kind, _shape(output)))
    del graph.output[:]
    graph.output.extend(kept)
    onnx.checker.check_model(model)
    return model


def _shape(output: onnx.ValueInfoProto) -> list[int | None]:
    dimensions = output.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value else None for d in dimensions]
