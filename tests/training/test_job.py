from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.files import read_json
from mlops_assets.spec import METRICS
from mlops_assets.training import parity
from mlops_assets.training.errors import TrainingProblem
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY
from tests.training.requests import (
    CLASSIFIER_PY,
    CLASSIFIER_YAML,
    Case,
    dear_or_cheap,
    flats,
    with_target,
)

#: Loads and asks a bundle in a process that knows nothing of the repository.
FRESH = """
import json, pickle, sys
import pandas as pd
sys.path[:] = [p for p in sys.path if p != {repository!r}]
sample = json.load(open({output!r} + "/sample.json"))
estimator = pickle.load(open({output!r} + "/model.pkl", "rb"))
frame = pd.DataFrame(sample["input"]).fillna({{"district": ""}})
print(json.dumps(list(map(float, estimator.predict(frame)))))
own = [n for n in sys.modules if n.startswith(("mlops", "shared_")) and sys.modules[n].__spec__]
assert not own, own
"""

BY_VALUE = """
import numpy as np
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.base import BaseEstimator
from .features import Numbers
from . import constants


class Scaled(BaseEstimator):
    def fit(self, x, y=None):
        return self

    def transform(self, x):
        return x * constants.SCALE


def build(params):
    return make_pipeline(Numbers(), Scaled(), LinearRegression())
"""
FEATURES = """
from sklearn.base import BaseEstimator, TransformerMixin
from shared_columns.names import NUMBERS


class Numbers(BaseEstimator, TransformerMixin):
    def fit(self, x, y=None):
        return self

    def transform(self, x):
        return x[NUMBERS].to_numpy(dtype=float)
"""


def fresh_predictions(case: Case) -> list[float]:
    code = FRESH.format(repository=str(sys.path[0]), output=str(case.output))
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_regression_writes_everything_and_nothing_else(trained) -> None:
    case = trained(TRAIN_PY)
    found = {p.relative_to(case.output).as_posix() for p in case.output.rglob("*") if p.is_file()}
    assert found == {
        "model.pkl", "model.onnx", "sample.json", "requirements.txt", "estimator.json",
        "evidence.json",
        "pictures/predicted_vs_actual.png", "pictures/importance.png",
    }  # fmt: skip
    evidence = case.evidence
    assert set(evidence["metrics"]) == set(METRICS["regression"])
    assert evidence["metrics"]["r2"]["lower"] > 0.9
    assert evidence["importance"][0]["column"] == "area"
    assert evidence["holdout"]["rows"] + evidence["holdout"]["training_rows"] == 120
    slices = {(s["column"], s["value"]): s["rows"] for s in evidence["slices"]}
    assert set(slices) == {("district", None), ("district", "north"), ("district", "south")}
    assert sum(slices.values()) == evidence["holdout"]["rows"]
    requirements = (case.output / "requirements.txt").read_text()
    assert "scikit-learn==" in requirements
    assert "onnxruntime==" in requirements
    assert {"export", "parity"} <= set(evidence["seconds"])
    parity = evidence["parity"]
    assert (parity["status"], parity["rows"]) == ("onnx", evidence["holdout"]["rows"])
    # Area and rooms at their bounds, two districts, an unseen one, none, and that once more.
    assert parity["edge_rows"] == 1 + 3 + 2 + 1 + 1 + 1
    described = read_json(case.output / "estimator.json")
    assert (described["format"], described["reason"]) == ("onnx", parity["reason"])
    deciles = described["predictions"]
    assert deciles == sorted(deciles)
    assert len(deciles) == 9
    assert not list((case.folder / "source").rglob("*.pyc"))


def test_own_code_travels_with_the_pickle(trained) -> None:
    case = trained(
        {
            "train.py": BY_VALUE,
            "features.py": FEATURES,
            "constants.py": "SCALE = 2.0\n",
            "/shared_columns/names.py": "NUMBERS = ['area', 'rooms']\n",
        }
    )
    output = read_json(case.output / "sample.json")["output"]
    assert fresh_predictions(case) == pytest.approx(output, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (lambda label: label, "rent: {type: string, categories: [dear, cheap]}"),
        (lambda label: label == "dear", "rent: {type: boolean}"),
        (lambda label: 7 if label == "dear" else -1, "rent: {type: integer}"),
    ],
)
def test_labels_of_every_type(trained, values, column: str) -> None:
    table = dear_or_cheap()
    table = with_target(table, [values(v) for v in table["rent"].to_pylist()])
    yaml = CLASSIFIER_YAML.replace("rent: {type: string, categories: [dear, cheap]}", column)
    case = trained(CLASSIFIER_PY, yaml=yaml, table=table)
    labels = read_json(case.output / "estimator.json")["labels"]
    assert labels == sorted({values("dear"), values("cheap")})
    assert case.evidence["parity"]["status"] == "onnx"
    assert read_json(case.output / "estimator.json")["predictions"] is None
    sample = read_json(case.output / "sample.json")
    assert set(sample["output"]) <= set(labels)
    assert np.allclose(np.sum(sample["probabilities"], axis=1), 1)
    assert set(case.evidence["metrics"]) == set(METRICS["binary"])
    assert (case.output / "pictures" / "calibration.png").is_file()


def test_without_probabilities(trained) -> None:
    text = "from sklearn.dummy import DummyClassifier\n" + CLASSIFIER_PY.replace(
        "LogisticRegression()", "LinearSVC()"
    ).replace("linear_model import LogisticRegression", "svm import LinearSVC")
    case = trained(text, yaml=CLASSIFIER_YAML, table=dear_or_cheap())
    assert set(case.evidence["metrics"]) == {"accuracy", "balanced_accuracy", "f1"}
    assert read_json(case.output / "sample.json")["probabilities"] is None
    assert {p.name for p in (case.output / "pictures").iterdir()} == {
        "confusion_matrix.png", "importance.png"
    }  # fmt: skip


def test_a_class_that_only_training_or_only_the_holdout_has(trained) -> None:
    table = dear_or_cheap()
    target = table["rent"].to_pylist()
    rare = {0: "$only_here$", 1: "and_there", 2: "once_more", 3: "and_again"}
    table = with_target(table, [rare.get(i, v) for i, v in enumerate(target)])
    yaml = CLASSIFIER_YAML.replace("task: binary", "task: multiclass").replace(
        "{type: string, categories: [dear, cheap]}", "{type: string}"
    )
    case = trained(CLASSIFIER_PY, yaml=yaml, table=table)
    metrics = case.evidence["metrics"]
    assert {"accuracy", "balanced_accuracy", "f1_macro", "log_loss"} == set(metrics)
    assert all(np.isfinite(list(m.values())).all() for m in metrics.values())


def test_a_sample_holds_no_row_that_onnx_labels_otherwise(
    trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, yaml = dear_or_cheap(), CLASSIFIER_YAML + "serving: {format: auto}\n"
    whole = read_json(trained(CLASSIFIER_PY, yaml=yaml, table=table).output / "sample.json")
    original = parity.export

    def differs(*arguments: object) -> parity.Export:
        return replace(original(*arguments), label_rows=(1, 2))  # type: ignore[arg-type]

    monkeypatch.setattr(parity, "export", differs)
    found = read_json(trained(CLASSIFIER_PY, yaml=yaml, table=table).output / "sample.json")
    assert [found["input"][0], *found["input"][1:3]] == [whole["input"][0], *whole["input"][3:5]]
    assert found["output"][1:3] == whole["output"][3:5]
    assert len(found["input"]) == 5


def test_train_function(trained) -> None:
    text = (
        "from sklearn.linear_model import Ridge\n"
        "def train(frame, target, params):\n"
        "    assert list(frame.columns) == ['area', 'rooms', 'district']\n"
        "    class Own:\n"
        "        def predict(self, x):\n"
        "            return inner.predict(x[['area', 'rooms']])\n"
        "    inner = Ridge(alpha=params['alpha']).fit(frame[['area', 'rooms']], target)\n"
        "    return Own()\n"
    )
    case = trained(text)
    assert case.evidence["metrics"]["r2"]["value"] > 0.5
    output = read_json(case.output / "sample.json")["output"]
    assert fresh_predictions(case) == pytest.approx(output, rel=1e-12)


def test_a_constant_prediction_and_a_tiny_holdout_are_measured(trained) -> None:
    assert trained(WORSE_TRAIN_PY).evidence["importance"][0]["mean"] == 0
    yaml = MODEL_YAML + "split: {holdout: 0.01}\n"
    case = trained(TRAIN_PY, yaml=yaml)
    assert case.evidence["holdout"]["rows"] < 5
    assert all(np.isfinite(list(m.values())).all() for m in case.evidence["metrics"].values())


OWN = (
    "class Own:\n    def fit(self, x, y):\n        return self\n    def predict(self, x):\n        "
)
BUILD = "\ndef build(params):\n    return Own()\n"
PROBA = (
    "import numpy as np\nclass Own:\n    {classes}\n    def fit(self, x, y):\n        pass\n"
    "    def predict(self, x):\n        return np.array(['dear'] * len(x))\n"
    "    def predict_proba(self, x):\n        return {shares}\n" + BUILD
)
CLASSES = "classes_ = ['cheap', 'dear']"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("def build(params):\n    return 1 / 0\n", "raised", "^train.py:2: ZeroDivisionError"),
        ("def build(params):\n    return params['no']\n", "raised", "^train.py:2: KeyError: 'no'$"),
        ("def build(params):\n    return 'text'\n", "not_an_estimator", "returned str, which"),
        ("def build(params):\n    pass\n", "not_an_estimator", "returned NoneType"),
        (
            "from sklearn.linear_model import Ridge\ndef build(params):\n    return Ridge\n",
            "not_an_estimator",
            "returned the class Ridge",
        ),
        ("def train(f, t, p):\n    return 3\n", "not_an_estimator", r"train\(\) returned int"),
        (
            "from sklearn.linear_model import Ridge\ndef build(params):\n    return Ridge()\n",
            "raised",
            "^fitting the estimator of train.py: ValueError: could not convert string to float",
        ),
        (OWN + "raise RuntimeError('no')" + BUILD, "raised", "^train.py:5: RuntimeError: no$"),
        (OWN + "import sys; sys.exit('bye')" + BUILD, "exit", r"train.py:5: .* sys.exit\('bye'\)"),
        (OWN + "raise KeyboardInterrupt" + BUILD, "raised", "^train.py:5: KeyboardInterrupt"),
        (OWN + "return [1.0]" + BUILD, "raised", r"array of shape \(1,\) for"),
        (OWN + "return x[['area']]" + BUILD, "raised", r"array of shape \(\d+, 1\) for"),
        (OWN + "return [float('nan')] * len(x)" + BUILD, "raised", "NaN or infinite"),
        (
            "import threading\nlock = threading.Lock()\n" + OWN + "return [0.0] * len(x)\n"
            "    def __getstate__(self):\n        return {'lock': lock}" + BUILD,
            "raised",
            "the estimator cannot be pickled: cannot pickle '_thread.lock'",
        ),
    ],
)  # fmt: skip
def test_bad_estimators_of_a_regression(trained, text: str, kind: str, message: str) -> None:
    with pytest.raises(TrainingProblem, match=message) as problem:
        trained(text)
    assert problem.value.kind == kind
    assert (
        problem.value.frames
        or kind == "not_an_estimator"
        or "estimator predicts" in message
        or (message.startswith(("array", "NaN")))
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OWN + "return [0.5] * len(x)" + BUILD,
            r"labels that the target never has: \[0.5\]; task b",
        ),
        (OWN + "return [None] * len(x)" + BUILD, r"never has: \[None\]"),
        (PROBA.format(classes="pass", shares="np.ones((len(x), 1))"), "but no classes_"),
        (PROBA.format(classes=CLASSES, shares="np.ones((len(x), 1))"), r"shape \(\d+, 1\) for"),
        (PROBA.format(classes=CLASSES, shares="np.ones((len(x), 2))"), "each must sum to 1"),
        (PROBA.format(classes=CLASSES, shares="np.full((len(x), 2), np.nan)"), "no probabilities"),
    ],
)
def test_bad_estimators_of_a_classification(trained, text: str, message: str) -> None:
    with pytest.raises(TrainingProblem, match=message):
        trained(text, yaml=CLASSIFIER_YAML, table=dear_or_cheap())


@pytest.mark.parametrize(
    ("table", "yaml", "message"),
    [
        (
            flats(2),
            MODEL_YAML + "split: {holdout: 0.01}\n",
            "no row is left for the holdout side of 2",
        ),
        (flats(2), MODEL_YAML + "split: {holdout: 0.99}\n", "no row is left for the training side"),
        (
            with_target(flats(), ["dear"] * 120),
            CLASSIFIER_YAML,
            "rent: one class only among the .* rows to train on: 'dear'; change split",
        ),
        (
            with_target(flats(), ["a", "b", "c"] * 40),
            CLASSIFIER_YAML.replace(", categories: [dear, cheap]", ""),
            r"task binary wants two labels, found \['a', 'b', 'c'\]",
        ),
    ],
)
def test_data_that_cannot_be_trained_on(trained, table: pa.Table, yaml: str, message: str) -> None:
    with pytest.raises(TrainingProblem, match=message) as problem:
        trained(CLASSIFIER_PY, yaml=yaml, table=table)
    assert problem.value.kind == "data"
