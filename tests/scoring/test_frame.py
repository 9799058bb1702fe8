from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Feature, Schema

FEATURES = [
    Feature("float", "float", nullable=True),
    Feature("integer", "integer"),
    Feature("maybe integer", "integer", nullable=True),
    Feature("boolean", "boolean"),
    Feature("maybe boolean", "boolean", nullable=True),
    Feature("string", "string", nullable=True),
    Feature("time", "timestamp", nullable=True),
]
LISTS = {
    "float": [1, None, 2.5],
    "integer": [1, 2, 3.0],
    "maybe integer": [1, None, 3],
    "boolean": [True, False, True],
    "maybe boolean": [True, None, False],
    "string": ["a", None, "é"],
    "time": ["2024-01-01T00:00:00Z", None, "2024-01-01T02:00:00.5+02:00"],
    "another": [1, 2, 3],
}


def _arrow() -> pa.Table:
    return pa.table(
        {
            "float": pa.array([1, None, 2.5]),
            "integer": pa.chunked_array([[1, 2], [3]]),
            "maybe integer": pa.array([1, None, 3]),
            "boolean": pa.array([True, False, True]),
            "maybe boolean": pa.array([True, None, False]),
            "string": pa.array(["a", None, "é"]),
            "time": pa.array(
                [dt.datetime(2024, 1, 1), None, dt.datetime(2024, 1, 1, 0, 0, 0, 500000)],
                pa.timestamp("us"),
            ),
        }
    )


def test_types_and_missing_values() -> None:
    frame = to_frame(LISTS, FEATURES)
    assert [str(dtype) for dtype in frame.dtypes] == [
        "float64", "int64", "float64", "bool", "float64", "object", "datetime64[us]",
    ]  # fmt: skip
    assert list(frame.columns) == [feature.name for feature in FEATURES]
    assert frame["string"].tolist() == ["a", "", "é"]
    assert frame["maybe boolean"].tolist()[::2] == [1.0, 0.0]
    assert np.isnan(frame["maybe boolean"][1])
    assert frame["time"][2] == pd.Timestamp("2024-01-01T00:00:00.5")


@pytest.mark.parametrize("kind", ["arrow", "pandas", "pandas arrow", "pandas masked"])
def test_every_source_gives_the_same_frame(kind: str) -> None:
    table = _arrow()
    columns = {
        "arrow": lambda: {name: table[name] for name in table.column_names},
        "pandas": table.to_pandas,
        "pandas arrow": lambda: table.to_pandas(types_mapper=pd.ArrowDtype),
        "pandas masked": lambda: table.to_pandas().convert_dtypes(),
    }[kind]()
    pd.testing.assert_frame_equal(to_frame(columns, FEATURES), to_frame(LISTS, FEATURES))


def test_no_rows_keep_their_types() -> None:
    empty = to_frame({name: [] for name in LISTS}, FEATURES)
    assert len(empty) == 0
    assert list(empty.dtypes) == list(to_frame(LISTS, FEATURES).dtypes)


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (Feature("n", "integer"), [1, None], r"column 'n' \(integer\): holds missing values"),
        (Feature("n", "integer"), [1.5], "no 64-bit integers"),
        (Feature("n", "boolean"), [None], "holds missing values"),
        (Feature("n", "float"), ["a"], r"column 'n' \(float\)"),
        (Feature("n", "float"), np.array(["a"]), "not numeric"),
        (Feature("n", "timestamp"), ["yesterday"], r"column 'n' \(timestamp\)"),
    ],
)
def test_values_that_do_not_fit_name_their_column(
    feature: Feature, values: list[object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        to_frame({"n": values}, [feature])


def test_a_missing_column_is_named() -> None:
    with pytest.raises(KeyError, match="integer"):
        to_frame({"float": [1.0]}, FEATURES[:2])


def test_a_feature_survives_the_manifest() -> None:
    feature = Feature("colour", "string", True, categories=("red", "blue"))
    manifest = {
        "model": "m", "task": "binary", "target": "y", "labels": [0, 1],
        "features": [feature.to_dict()],
    }  # fmt: skip
    schema = Schema.from_manifest(manifest)
    assert schema.features == (feature,)
    assert schema.labels == (0, 1)
    with pytest.raises(ValueError, match="type 'text'; allowed: float, integer"):
        Feature.from_dict({"name": "colour", "type": "text"})
