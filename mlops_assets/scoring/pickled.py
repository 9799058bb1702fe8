"""A version as its pickled estimator, for what ONNX cannot say: columns in, plain Python out."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_assets.scoring.errors import ModelError
from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Schema


class Pickled:
    """Scores tables whose values are checked already, through a pandas frame."""

    def __init__(self, data: bytes, schema: Schema) -> None:
        """Unpickle an estimator: bytes whose digest the caller has checked, for they run."""
        self.estimator = pickle.loads(data)  # noqa: S301
        self._features = schema.features
        self._names = schema.names
        self._has_probabilities = schema.labels is not None and hasattr(
            self.estimator, "predict_proba"
        )

    def run(
        self, columns: Mapping[str, Sequence[Any]], rows: int
    ) -> tuple[list[Any], list[list[float]] | None]:
        """Score a table; see ``Session.run``."""
        frame = to_frame(columns, self._features)
        values = _plain(self.estimator.predict(frame), rows)
        probabilities = None
        if self._has_probabilities:
            probabilities = _plain(self.estimator.predict_proba(frame), rows)
            for row in probabilities:
                _finite(row)
        _finite(values)
        return values, probabilities

    def run_row(self, values: Sequence[Any]) -> tuple[list[Any], list[list[float]] | None]:
        """Score one row, its values in training order."""
        return self.run({n: [v] for n, v in zip(self._names, values, strict=True)}, 1)


def _plain(answer: Any, rows: int) -> list[Any]:
    values = answer.tolist() if hasattr(answer, "tolist") else list(answer)
    if len(values) != rows:
        raise ModelError(f"the model gave {len(values)} answers for {rows} rows")
    return values


def _finite(values: list[Any]) -> None:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"the model answered {value}")
