"""A version as an ONNX session: columns in, plain Python out. Needs numpy and onnxruntime alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from mlops_assets.scoring.errors import IntegrityError, ModelError
from mlops_assets.scoring.schema import Schema

#: What ``model.onnx`` calls its outputs.
PREDICTION, LABEL, PROBABILITIES = "prediction", "label", "probabilities"
#: The numpy type of each ONNX tensor that an input may be.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}
Scores = tuple[list[Any], list[list[float]] | None]


class Session:
    """Scores tables whose values are checked already; any thread may call ``run``."""

    def __init__(self, data: bytes, schema: Schema) -> None:
        """Load a model.

        Args:
            data: the bytes of ``model.onnx``: an input of shape [n, 1] per feature under its name,
                outputs ``prediction``, or ``label`` and perhaps ``probabilities``.
            schema: of the version.

        Raises:
            IntegrityError: the file is no ONNX model, or not of this schema.
        """
        options = onnxruntime.SessionOptions()
        # Small models lose more to threads than they win; workers are the parallelism.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common base of its own
            raise IntegrityError(f"model.onnx: onnxruntime cannot load it: {error}") from None
        types = {entry.name: entry.type for entry in session.get_inputs()}
        names = [entry.name for entry in session.get_outputs()]
        unknown = sorted(set(types.values()) - _DTYPES.keys())
        if set(types) != set(schema.names) or unknown or not {PREDICTION, LABEL} & set(names):
            raise IntegrityError(
                f"model.onnx: inputs {types} and outputs {names} are not those of the manifest"
            )
        self._dtypes = {name: _DTYPES[types[name]] for name in schema.names}
        self._labels = _labels_that_differ(schema)
        self._outputs = [n for n in (PREDICTION, LABEL, PROBABILITIES) if n in names]
        # Below the public class, which looks at the same arguments again for every call.
        self._session: Any = session._sess  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        # onnxruntime binds no texts.
        bindable = self._outputs == [PREDICTION] and "object" not in self._dtypes.values()
        self._bound = _Bound(session, self._dtypes) if bindable else None
        self._cells = _Cells(self._dtypes)

    def run(self, columns: Mapping[str, Sequence[Any]], rows: int) -> Scores:
        """Score a table.

        Args:
            columns: name -> ``rows`` values of its feature's type, None for missing.
            rows: n, at least 1.

        Returns:
            n predictions or labels, and n lists of a probability per label, or None.
        """
        feeds = {
            name: _array(columns[name], dtype).reshape(rows, 1)
            for name, dtype in self._dtypes.items()
        }
        return self._plain(self._session.run(self._outputs, feeds, None))

    def run_row(self, values: Sequence[Any]) -> Scores:
        """Score one row, its values in training order; one caller at a time."""
        if self._bound is not None:
            return self._bound.run(values), None
        self._cells.fill(values)
        return self._plain(self._session.run(self._outputs, self._cells.arrays, None))

    def _plain(self, arrays: Sequence[np.ndarray[Any, Any]]) -> Scores:
        first = arrays[0]
        if self._outputs[0] == PREDICTION:
            if not np.isfinite(first).all():
                raise ModelError("the model answered NaN or infinity")
            return first.reshape(-1).tolist(), None
        values = first.tolist()
        if self._labels is not None:
            values = [self._labels[value] for value in values]
        if len(arrays) == 1:
            return values, None
        probabilities = arrays[1].tolist()
        # Of one row the sum tells as well, and sooner: numbers of 32 bits add up to a finite one.
        one = len(probabilities) == 1
        if not (math.isfinite(sum(probabilities[0])) if one else np.isfinite(arrays[1]).all()):
            raise ModelError("the model answered a probability that is NaN or infinite")
        return values, probabilities


class _Cells:
    """One row after another in the same memory: half the cost of new arrays."""

    def __init__(self, dtypes: Mapping[str, str]) -> None:
        names = list(dtypes)
        #: Input -> its one cell.
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        #: Per type of array its cells, which of a row's values go there, and whether it is texts.
        self._groups: list[tuple[np.ndarray[Any, Any], list[int], bool]] = []
        for dtype in sorted(set(dtypes.values())):
            places = [place for place, name in enumerate(names) if dtypes[name] == dtype]
            cells = np.zeros((len(places), 1, 1), dtype)
            self.arrays |= {names[place]: cells[n] for n, place in enumerate(places)}
            self._groups.append((cells.reshape(len(places)), places, dtype == "object"))

    def fill(self, values: Sequence[Any]) -> None:
        """Put a row's values there, which are in training order."""
        for cells, places, texts in self._groups:
            found = [values[place] for place in places]
            # As in `_array`.
            cells[:] = ["" if value is None else value for value in found] if texts else found


class _Bound:
    """Rows of numbers in, one number out, all of it in the same memory."""

    def __init__(self, session: Any, dtypes: Mapping[str, str]) -> None:
        self._cells = _Cells(dtypes)
        self._binding = session.io_binding()
        for name, cell in self._cells.arrays.items():
            self._binding.bind_cpu_input(name, cell)
        shape = [size if isinstance(size, int) else 1 for size in session.get_outputs()[0].shape]
        self._answer = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
        self._binding.bind_ortvalue_output(PREDICTION, self._answer)
        self._run = session._sess.run_with_iobinding  # noqa: SLF001
        self._bound = self._binding._iobinding  # noqa: SLF001

    def run(self, values: Sequence[Any]) -> list[float]:
        """The prediction, in a list."""
        self._cells.fill(values)
        self._run(self._bound, None)
        value = self._answer.numpy().item()
        if value - value != 0.0:  # NaN or infinite
            raise ModelError(f"the model answered {value}")
        return [value]


def _array(values: Sequence[Any], dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "object":
        # A missing text is the empty one, in training and serving alike.
        return np.array(["" if value is None else value for value in values], dtype=object)
    return np.array(values, dtype=dtype)  # None becomes NaN


def _labels_that_differ(schema: Schema) -> dict[Any, Any] | None:
    """ONNX knows no boolean label: what its integers mean."""
    if schema.labels is None or not any(isinstance(label, bool) for label in schema.labels):
        return None
    return {int(label): label for label in schema.labels}
