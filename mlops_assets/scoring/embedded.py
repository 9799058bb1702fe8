"""A version inside somebody's program: what a package's ``predict`` stands on."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.scoring.schema import Schema
from mlops_assets.scoring.table import Table, from_columns, from_records


class Embedded:
    """Loaded at the first question, once; asked from any thread."""

    def __init__(self, bundle: Path, digest: str) -> None:
        """Name a version without loading it.

        Args:
            bundle: folder of its manifest and of the model that it serves from.
            digest: SHA-256 of the manifest.
        """
        self._bundle, self._digest = bundle, digest
        self._loading = threading.Lock()
        self._predictor: Predictor | None = None

    def predict(self, rows: Any) -> dict[str, Any]:
        """Answer as the version's endpoint does.

        Args:
            rows: records ``[{column: value}, ...]``, or columns ``{column: values}``: lists,
                arrays, a pandas frame. None is missing, and so is NaN; numpy's numbers are taken.

        Raises:
            RequestError: naming row and column.
            IntegrityError: a file of the package is not the one that was registered.
        """
        predictor = self._loaded()
        prediction = predictor.predict_table(_table(rows, predictor.schema))
        return prediction.answer(predictor.schema.label_names)

    def _loaded(self) -> Predictor:
        if self._predictor is None:
            with self._loading:
                if self._predictor is None:
                    self._predictor = Predictor.load(self._bundle, self._digest)
        return self._predictor


def _table(rows: Any, schema: Schema) -> Table:
    if hasattr(rows, "keys"):
        columns = {name: _values(name, rows[name]) for name in rows.keys()}  # noqa: SIM118  (frames)
        return from_columns(columns, schema)
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise RequestError(
            "wants a list of records [{column: value}, ...] or columns {column: [value, ...]}, "
            f"found {type(rows).__name__}"
        )
    records = [
        {name: _plain(value) for name, value in row.items()} if isinstance(row, dict) else row
        for row in rows
    ]
    return from_records(records, schema, most=None)


def _values(name: Any, column: Any) -> list[Any]:
    values = column.tolist() if hasattr(column, "tolist") else column
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise RequestError(
            f"column {name!r}: wants a list of values, found {type(values).__name__}; "
            "one row is [{column: value}]"
        )
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A value as JSON would have brought it."""
    if hasattr(value, "item"):  # numpy's scalars
        value = value.item()
    return None if type(value) is float and value != value else value
