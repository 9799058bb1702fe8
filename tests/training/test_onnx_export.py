from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.session import Session
from mlops_assets.training.errors import NotConvertedError
from mlops_assets.training.onnx_export import (
    OPSET,
    TooSlowError,
    convert,
    opset_of,
)
from tests.training.estimators import (
    ALL,
    NUMBERS,
    WITH_MISSING,
    classes,
    compared,
    features,
    fitted,
    numbers,
)

TEXTS = ["colour", "town"]
REST = [name for name in ALL if name not in TEXTS]


def by_column(numeric: Any = None, texts: Any = None) -> ColumnTransformer:
    """What most pipelines begin with."""
    numeric = numeric or make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = texts or OneHotEncoder(handle_unknown="ignore")
    return make_column_transformer((numeric, REST), (texts, TEXTS))


def encoded(model: Any) -> Any:
    """Texts as numbers, all else as it is."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(make_column_transformer((encoder, TEXTS), remainder="passthrough"), model)


IMPUTED_TEXTS = make_pipeline(
    SimpleImputer(missing_values="", strategy="most_frequent"),
    OneHotEncoder(handle_unknown="ignore"),
)
#: Never finds a missing value: in a frame a missing text is the empty one.
USELESSLY_IMPUTED_TEXTS = make_pipeline(
    SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
)

REGRESSORS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ridge": (Ridge(), NUMBERS),
    "linear": (make_pipeline(StandardScaler(), LinearRegression()), NUMBERS),
    "all columns": (make_pipeline(by_column(), Ridge()), ALL),
    "texts that are refused": (
        make_pipeline(
            make_column_transformer((OneHotEncoder(), TEXTS), remainder="passthrough"), Ridge()
        ),
        (*NUMBERS, *TEXTS, "lift"),
    ),
    "an integer's categories": (
        make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["rooms"]), remainder="passthrough"
            ),
            Ridge(),
        ),
        NUMBERS,
    ),
    "poisson": (make_pipeline(StandardScaler(), PoissonRegressor()), NUMBERS),
    "tree": (DecisionTreeRegressor(random_state=0), NUMBERS),
    "forest": (RandomForestRegressor(20, random_state=0), NUMBERS),
    "forest behind a scaler": (
        make_pipeline(StandardScaler(), RandomForestRegressor(20, random_state=0)),
        NUMBERS,
    ),
    "forest with missing values": (encoded(RandomForestRegressor(20, random_state=0)), ALL),
    "boosting": (GradientBoostingRegressor(n_estimators=300, random_state=0), NUMBERS),
    "boosting behind everything": (
        make_pipeline(by_column(), GradientBoostingRegressor(n_estimators=50, random_state=0)),
        ALL,
    ),
    "histograms": (HistGradientBoostingRegressor(max_iter=50), WITH_MISSING),
    "histograms of counts": (HistGradientBoostingRegressor("poisson", max_iter=50), WITH_MISSING),
    "bagging": (BaggingRegressor(random_state=0), NUMBERS),
    "stacking": (
        StackingRegressor([("a", Ridge()), ("b", RandomForestRegressor(5, random_state=0))], cv=2),
        NUMBERS,
    ),
    "identity": (make_pipeline(FunctionTransformer(), Ridge()), NUMBERS),
}
CLASSIFIERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "logistic": (make_pipeline(by_column(texts=IMPUTED_TEXTS), LogisticRegression()), ALL),
    "useless imputer": (
        make_pipeline(by_column(texts=USELESSLY_IMPUTED_TEXTS), LogisticRegression()),
        ALL,
    ),
    "tree": (DecisionTreeClassifier(max_depth=5, random_state=0), NUMBERS),
    "forest behind everything": (
        make_pipeline(by_column(), RandomForestClassifier(20, random_state=0)),
        ALL,
    ),
    "more random trees": (encoded(ExtraTreesClassifier(20, random_state=0)), ALL),
    "boosting": (GradientBoostingClassifier(n_estimators=20, random_state=0), NUMBERS),
    "histograms": (HistGradientBoostingClassifier(max_iter=30), WITH_MISSING),
    "histograms behind everything": (
        make_pipeline(by_column(), HistGradientBoostingClassifier(max_iter=30)),
        ALL,
    ),
    "vectors": (make_pipeline(StandardScaler(), SVC()), NUMBERS),
    "neighbours": (make_pipeline(StandardScaler(), KNeighborsClassifier()), NUMBERS),
    "voting": (
        VotingClassifier(
            [("a", make_pipeline(StandardScaler(), LogisticRegression())),
             ("b", RandomForestClassifier(5, random_state=0))],
            voting="soft",
        ),
        NUMBERS,
    ),
    "calibrated": (
        CalibratedClassifierCV(RandomForestClassifier(5, random_state=0), cv=2),
        NUMBERS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors_answer_as_their_pickle(name: str) -> None:
    estimator, columns = REGRESSORS[name]
    found = compared(estimator, columns, numbers(), "double")
    assert found.rows > 200
    # A little more than half a unit in the last place of 32 bits.
    assert found.agrees(5e-7, 0.0), found


@pytest.mark.parametrize("kind", ["text", "integers", "two", "booleans"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_answer_as_their_pickle(name: str, kind: str) -> None:
    estimator, columns = CLASSIFIERS[name]
    found = compared(estimator, columns, classes(kind), "double")
    assert found.rows > 200
    assert found.agrees(5e-7, 0.0), found


def test_exponential_loss() -> None:
    model = GradientBoostingClassifier(loss="exponential", n_estimators=20, random_state=0)
    assert compared(model, NUMBERS, classes("two"), "double").agrees(5e-7, 0.0)


def test_what_onnxruntime_knows_in_32_bits_alone() -> None:
    model = make_pipeline(StandardScaler(), SVR())
    assert compared(model, NUMBERS, numbers(), "float").agrees(1e-5, 0.0)
    assert compared(by_typed_columns(), ALL, classes(), "float").agrees(1e-5, 0.0)


def by_typed_columns() -> Any:
    """A pipeline for which integers and booleans keep their types."""
    return make_pipeline(by_column(), LogisticRegression())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([StandardScaler(), MinMaxScaler(), RobustScaler()]),
    st.sampled_from([IMPUTED_TEXTS, OneHotEncoder(handle_unknown="ignore", min_frequency=30)]),
    st.sampled_from(
        [
            Ridge(),
            RandomForestRegressor(3, max_depth=6, random_state=0),
            GradientBoostingRegressor(n_estimators=5, subsample=0.7, random_state=0),
            HistGradientBoostingRegressor(max_iter=5, l2_regularization=1.0),
            DecisionTreeRegressor(criterion="absolute_error", max_depth=4, random_state=0),
        ]
    ),
    st.sets(st.sampled_from(REST), min_size=1),
)
def test_any_columns_before_any_model(
    scaler: Any, texts: Any, model: Any, chosen: set[str]
) -> None:
    numeric = make_pipeline(scaler, SimpleImputer(strategy="mean"))
    steps = make_column_transformer((numeric, sorted(chosen)), (texts, TEXTS))
    columns = [name for name in ALL if name in chosen or name in TEXTS]
    found = compared(make_pipeline(steps, model), columns, numbers(), "double")
    assert found.agrees(5e-7, 0.0), found


class Twice(TransformerMixin, BaseEstimator):
    def fit(self, x: Any, y: Any = None) -> Twice:  # noqa: ARG002
        return self

    def transform(self, x: Any) -> Any:
        return 2 * np.asarray(x)


@pytest.mark.parametrize(
    ("estimator", "columns", "reason"),
    [
        (make_pipeline(Twice(), Ridge()), NUMBERS, "Twice"),
        (make_pipeline(FunctionTransformer(np.sqrt), Ridge()), NUMBERS, "FunctionTransformer is"),
        (
            HistGradientBoostingRegressor(categorical_features=["rooms"]),
            NUMBERS,
            r"skl2onnx does not convert it: .*",
        ),
        (
            encoded(HistGradientBoostingRegressor(categorical_features=[0, 1])),
            ALL,
            r"no splits by category \(categorical_features\)",
        ),
        (GradientBoostingRegressor(init=Ridge()), NUMBERS, "starts from another estimator"),
    ],
)  # fmt: skip
def test_what_has_no_onnx_form_says_so(estimator: Any, columns: Any, reason: str) -> None:
    fitted(estimator, columns, numbers())
    for precision in ("double", "float"):
        with pytest.raises(NotConvertedError, match=reason) as caught:
            convert(estimator, features(columns), False, precision)
        assert "\n" not in str(caught.value)


def test_a_time_is_named() -> None:
    columns = (Feature("age", "integer"), Feature("since", "timestamp"))
    with pytest.raises(NotConvertedError, match="no timestamps, and since is one"):
        convert(Ridge(), columns, False, "double")


def test_a_conversion_without_an_end_is_ended() -> None:
    estimator = fitted(make_pipeline(QuantileTransformer(n_quantiles=400), Ridge()), NUMBERS,
                       numbers())  # fmt: skip
    with pytest.raises(TooSlowError, match=r"not convert it within 0\.5 s"):
        convert(estimator, features(NUMBERS), False, "double", seconds=0.5)


def test_inputs_and_outputs_have_their_names_and_types() -> None:
    estimator = fitted(by_typed_columns(), ALL, classes())
    before = repr(estimator)

    def described(precision: Any) -> tuple[dict[str, str], list[tuple[str, str]]]:
        model = onnx.load_from_string(convert(estimator, features(ALL), True, precision))
        assert opset_of(model.SerializeToString()) <= OPSET

        def kind(entry: Any) -> str:
            return onnx.TensorProto.DataType.Name(entry.type.tensor_type.elem_type)

        assert all(
            [d.dim_value for d in entry.type.tensor_type.shape.dim] == [0, 1]
            for entry in model.graph.input
        )
        outputs = [(entry.name, kind(entry)) for entry in model.graph.output]
        return {entry.name: kind(entry) for entry in model.graph.input}, outputs

    inputs, outputs = described("float")
    assert list(inputs) == list(ALL)
    assert inputs["price"] == inputs["floor"] == inputs["garden"] == "FLOAT"
    assert (inputs["rooms"], inputs["lift"], inputs["town"]) == ("INT64", "BOOL", "STRING")
    assert outputs == [("label", "STRING"), ("probabilities", "FLOAT")]
    inputs, outputs = described("double")
    assert inputs["price"] == inputs["rooms"] == inputs["lift"] == "DOUBLE"
    assert outputs == [("label", "STRING"), ("probabilities", "FLOAT")]
    assert repr(estimator) == before


@pytest.mark.parametrize("name", ["label", "variable", "a column, with (signs) in it", "b c"])
@pytest.mark.parametrize("by_name", [True, False])
def test_any_name_of_a_column(name: str, by_name: bool) -> None:
    columns = (Feature(name, "float"), Feature("b_c", "float"), Feature("unused", "string"))
    frame = pd.DataFrame({name: [1.0, 2.0, 4.0], "b_c": [0.0, 1.0, 1.0]})
    scaler = StandardScaler()
    if by_name:
        frame["unused"] = ""
        scaler = make_column_transformer((scaler, ["b_c", name]))
    else:
        columns = columns[:2]
    estimator = make_pipeline(scaler, Ridge()).fit(frame, [1.0, 2.0, 3.0])
    schema = Schema("m", "regression", "y", columns)
    session = Session(convert(estimator, columns, False, "double"), schema)
    values, _ = session.run({n: frame[n].tolist() for n in schema.names}, 3)
    assert values == pytest.approx(estimator.predict(frame), rel=1e-6)


def test_a_column_called_as_an_output() -> None:
    frame = pd.DataFrame({"prediction": [1.0, 2.0, 4.0]})
    estimator = make_pipeline(StandardScaler(), Ridge()).fit(frame, [1.0, 2.0, 3.0])
    with pytest.raises(NotConvertedError, match="prediction"):
        convert(estimator, (Feature("prediction", "float"),), False, "double")


UPSTREAM = """
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from mlops_assets.training import onnx_converters
from tests.training.estimators import NUMBERS, compared, numbers

onnx_converters.register = lambda: None

def agrees(name, model, precision, columns=NUMBERS):
    try:
        print(name, compared(model, columns, numbers(), precision).agrees(1e-4, 0.0))
    except Exception as error:
        print(name, error)

forest = RandomForestRegressor(20, random_state=0)
agrees("imputer", make_pipeline(SimpleImputer(), Ridge()), "double")
agrees("float", make_pipeline(StandardScaler(), forest), "float")
agrees("double", make_pipeline(StandardScaler(), forest), "double")
agrees("missing", forest, "float", (*NUMBERS, "temperature"))
agrees("link", HistGradientBoostingRegressor("poisson"), "double")
"""


def test_our_converters_are_needed(tmp_path: Path) -> None:
    """Fails once skl2onnx and onnxruntime do without: then the converter of ours can go."""
    script = tmp_path / "upstream.py"
    script.write_text(UPSTREAM)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)], cwd=root, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    imputer, *others = done.stdout.splitlines()
    assert "Could not find an implementation for Imputer(1)" in imputer
    assert others == ["float False", "double False", "missing False", "link False"]
