"""A fitted estimator as an ONNX model: one typed input per column, named outputs.

That a conversion succeeds proves nothing; ``parity`` does.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlops_assets.scoring.schema import Feature
from mlops_assets.training import onnx_converters
from mlops_assets.training.errors import NotConvertedError
from mlops_assets.training.onnx_simplify import simplify

if TYPE_CHECKING:
    import onnx

#: No later operators than these, and of ONNX-ML; onnxruntime reads them from 1.14 on.
OPSET, ML_OPSET = 18, 3
#: What a conversion may take: some converters of skl2onnx never come to an end.
SECONDS = 60.0
#: A text that no data holds: an imputer that looks for it leaves every text as it is.
NO_TEXT = "\0"
#: A value of each type, for a frame of which nothing but the types matters.
_FILLER = {"float": 0.0, "integer": 0, "boolean": False, "string": ""}

#: Width of the numbers inside.
Precision = Literal["double", "float"]


class TooSlowError(NotConvertedError):
    """It would perhaps be converted some day."""


class _TooLongError(BaseException):
    """Passes through a converter that catches every Exception."""


def convert(
    estimator: Any,
    features: Sequence[Feature],
    classifies: bool,
    precision: Precision,
    seconds: float = SECONDS,
) -> bytes:
    """Convert an estimator that was fitted on the frame of ``features``.

    Args:
        estimator: fitted; it is not changed.
        features: the columns of its frame, in training order.
        classifies: whether it predicts labels.
        precision: of the numbers between inputs and outputs; the latter have 32 bits.
        seconds: that it may take.

    Returns:
        the model: inputs of shape [n, 1] under the columns' names; output ``prediction``, or
        ``label`` and, where the estimator has them, ``probabilities`` in the order of classes_.

    Raises:
        NotConvertedError: a column or a step has no ONNX form.
        TooSlowError: it takes longer.
    """
    times = [feature.name for feature in features if feature.type == "timestamp"]
    if times:
        raise NotConvertedError(f"ONNX has no timestamps, and {', '.join(times)} is one")
    import skl2onnx

    from mlops_assets.scoring.session import LABEL, PREDICTION, PROBABILITIES

    names = [PREDICTION]
    if classifies:
        names = [LABEL, PROBABILITIES] if hasattr(estimator, "predict_proba") else [LABEL]
    inputs = [(feature.name, _input_type(feature, precision)) for feature in features]
    try:
        with _within(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            onnx_converters.register()
            pipeline = _from_columns(_mended(estimator), features)
            model: Any = skl2onnx.convert_sklearn(
                pipeline,
                name="model",
                initial_types=inputs,
                # Probabilities as one array.
                options={id(pipeline): {"zipmap": False}} if classifies else None,
                target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
            )
            named = _named(model, [name for name, _ in inputs], names)
            return simplify(named).SerializeToString()
    except _TooLongError:
        raise TooSlowError(f"skl2onnx does not convert it within {seconds:g} s") from None
    except Exception as error:  # converters raise whatever the step they do not know makes them
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotConvertedError(f"skl2onnx does not convert it: {first}") from error


@contextlib.contextmanager
def _within(seconds: float) -> Generator[None]:
    """Interrupt the block after so long, where the system can: in the main thread, on POSIX."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def expired(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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


def _mended(estimator: Any) -> Any:
    """A copy without what no converter takes, though no prediction depends on it."""
    found = copy.deepcopy(estimator)
    for part in _parts(found):
        kind = type(part).__name__
        if kind == "VotingClassifier":
            part.flatten_transform = False  # of transform, which nobody calls
        elif kind == "SimpleImputer" and _looks_for_no_text(part):
            part.missing_values = NO_TEXT
    return found


def _looks_for_no_text(imputer: Any) -> bool:
    """Whether it is one of texts, and never finds any: a missing text is the empty one."""
    of_texts = np.asarray(getattr(imputer, "statistics_", 0.0)).dtype.kind == "O"
    return of_texts and not isinstance(imputer.missing_values, str)


def _parts(estimator: Any) -> Iterator[Any]:
    """An estimator and every one inside it, fitted or not."""
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

    from mlops_assets.scoring.frame import to_frame

    if any(isinstance(part, ColumnTransformer) for part in _parts(estimator)):
        return estimator
    frame = to_frame({f.name: [_FILLER[f.type]] for f in features}, features)
    columns = ColumnTransformer([("all", "passthrough", list(frame.columns))]).fit(frame)
    return Pipeline([("columns", columns), ("estimator", estimator)])


def _named(model: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    """Name inputs and the first outputs as given, numbers 32 bits wide, and drop other outputs."""
    import onnx

    graph, kept = model.graph, []
    # skl2onnx spells the columns as identifiers, and its own values may be called as ours.
    spelled = {entry.name: name for entry, name in zip(graph.input, inputs, strict=True)}
    spelled |= {output.name: f"{output.name}.inside" for output in graph.output}
    for node in graph.node:
        node.input[:] = [spelled.get(name, name) for name in node.input]
        node.output[:] = [spelled.get(name, name) for name in node.output]
    for entry in graph.input:
        entry.name = spelled[entry.name]
    for output, name in zip(graph.output, outputs, strict=False):
        kind = output.type.tensor_type.elem_type
        if kind == onnx.TensorProto.DOUBLE:
            kind = onnx.TensorProto.FLOAT
        graph.node.append(onnx.helper.make_node("Cast", [spelled[output.name]], [name], to=kind))
        kept.append(onnx.helper.make_tensor_value_info(name, kind, _shape(output)))
    del graph.output[:]
    graph.output.extend(kept)
    onnx.checker.check_model(model)
    return model


def opset_of(model: bytes) -> int:
    """The version of ONNX's operators that a model needs; at most OPSET."""
    import onnx

    versions = {e.domain: e.version for e in onnx.load_model_from_string(model).opset_import}
    return versions[""]


def _shape(output: onnx.ValueInfoProto) -> list[int | None]:
    dimensions = output.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value else None for d in dimensions]
