"""Rows of every type of column, estimators fitted on them, and how far ONNX is from these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa

from mlops_assets.scoring import parity
from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.pickled import Pickled
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.session import Session
from mlops_assets.training.onnx_export import Precision, convert
from mlops_assets.training.parity import edge_rows

FEATURES = {
    feature.name: feature
    for feature in (
        Feature("price", "float", minimum=0, maximum=1e6),
        Feature("share", "float", minimum=0, maximum=1),
        Feature("temperature", "float", nullable=True, minimum=-40, maximum=60),
        Feature("rooms", "integer", minimum=1, maximum=9),
        Feature("number", "integer"),
        Feature("floor", "integer", nullable=True, categories=(0, 1, 2, 3)),
        Feature("lift", "boolean"),
        Feature("garden", "boolean", nullable=True),
        Feature("colour", "string", categories=("blue", "green", "red")),
        Feature("town", "string", nullable=True, categories=("Bern", "Köln")),
    )
}
NUMBERS = ("price", "share", "rooms", "number")
WITH_MISSING = (*NUMBERS, "temperature", "floor", "lift", "garden")
ALL = tuple(FEATURES)
TRAINING, ROWS = 400, 600


def features(names: Sequence[str]) -> tuple[Feature, ...]:
    """Those of the table's columns."""
    return tuple(FEATURES[name] for name in names)


def table() -> pa.Table:
    """Values as they come: none is exact in 32 bits."""
    random = np.random.default_rng(7)

    def missing(values: Any) -> list[Any]:
        return [None if random.random() < 0.2 else value for value in values]

    return pa.table(
        {
            "price": random.gamma(2, 3000, ROWS).tolist(),
            "share": np.round(random.random(ROWS), 3).tolist(),
            "temperature": missing(random.normal(10, 8, ROWS).tolist()),
            "rooms": random.integers(1, 9, ROWS).tolist(),
            "number": random.integers(10**9, 2 * 10**9, ROWS).tolist(),
            "floor": missing(random.integers(0, 4, ROWS).tolist()),
            "lift": (random.random(ROWS) < 0.4).tolist(),
            "garden": missing((random.random(ROWS) < 0.3).tolist()),
            "colour": random.choice(["red", "green", "blue"], ROWS).tolist(),
            "town": missing(random.choice(["Bern", "Köln"], ROWS).tolist()),
        }
    )


TABLE = table()


def numbers() -> np.ndarray[Any, Any]:
    """A target that depends on nearly every column, of a few hundred."""
    columns = {name: TABLE.column(name).to_pylist() for name in ALL}
    noise = np.random.default_rng(8).normal(size=ROWS)
    town = [50 if value is None else 20 if value == "Bern" else 0 for value in columns["town"]]
    red = [value == "red" for value in columns["colour"]]
    warm = [value or 0 for value in columns["temperature"]]
    return (
        np.sqrt(columns["price"]) + 80 * np.array(columns["share"]) + 9 * np.array(columns["rooms"])
        + 4 * np.array(warm) + town + 40 * np.array(red) + 20 * np.array(columns["lift"])
        + 10 * noise
    )  # fmt: skip


def classes(kind: str = "text") -> np.ndarray[Any, Any]:
    """The same in classes, with about as many rows each: text, integers, two, or booleans."""
    values = numbers()
    if kind in ("two", "booleans"):
        above = values > np.median(values)
        return above if kind == "booleans" else np.where(above, "yes", "no")
    three = np.digitize(values, np.quantile(values, [0.3, 0.6]))
    return np.array(["low", "mid", "top"])[three] if kind == "text" else three + 5


def fitted(estimator: Any, names: Sequence[str], target: np.ndarray[Any, Any]) -> Any:
    """The estimator after the first rows."""
    rows = TABLE.slice(0, TRAINING)
    chosen = features(names)
    frame = to_frame({f.name: rows.column(f.name) for f in chosen}, chosen)
    return estimator.fit(frame, target[:TRAINING])


def schema_of(estimator: Any, names: Sequence[str]) -> Schema:
    """Of the version that a fitted estimator becomes."""
    labels = getattr(estimator, "classes_", None)
    found = None if labels is None else tuple(labels.tolist())
    task = "regression" if found is None else "binary" if len(found) == 2 else "multiclass"
    return Schema("flats", task, "target", features(names), found)


def compared(
    estimator: Any, names: Sequence[str], target: np.ndarray[Any, Any], precision: Precision
) -> parity.Found:
    """How far ONNX is from a pickle, on the other rows and on those made from the contract."""
    estimator = fitted(estimator, names, target)
    schema = schema_of(estimator, names)
    model = convert(estimator, schema.features, schema.labels is not None, precision)
    pickled = Pickled(cloudpickle.dumps(estimator), schema)
    session = Session(model, schema)
    found = parity.Found()
    rest = TABLE.slice(TRAINING)
    held_out = {name: rest.column(name).to_pylist() for name in names}
    for columns in (held_out, edge_rows(schema.features, rest)):
        count = len(columns[names[0]])
        answers = (parity.answers(model, columns, count) for model in (pickled, session))
        for ours, theirs in zip(*answers, strict=True):
            found.add(ours, theirs, schema.labels is not None, 1e-6)
    return found
