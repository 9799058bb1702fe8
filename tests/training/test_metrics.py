from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_assets.spec import METRICS
from mlops_assets.training.metrics import (
    Judged,
    bootstrap,
    interval,
    point_values,
    replicates_for,
    unit_values,
    weighted_values,
)

#: Few distinct values, so that ties are frequent.
FEW = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])
seeds = st.integers(0, 2**32 - 1)


def classes(seed: int, k: int, rows: int, task: str = "multiclass") -> tuple[Judged, np.ndarray]:
    """Predictions with ties and zeros, every class present; integer weights, some zero."""
    r = np.random.default_rng(seed)
    labels = np.array(["a", "b", "c", "d"][:k])
    target = np.concatenate([np.arange(k), r.integers(0, k, rows)])
    shares = r.integers(0, 4, (len(target), k)) + np.eye(k)[r.integers(0, k, len(target))]
    shares /= shares.sum(1, keepdims=True)
    weights = r.integers(0, 3, len(target)).astype(float)
    weights[:k] += 1
    predicted = labels[r.integers(0, k, len(target))]
    return Judged(task, labels[target], predicted, shares, labels), weights


def scikit_learn(judged: Judged, w: np.ndarray) -> dict[str, float]:
    """The same by scikit-learn, one set of weights."""
    t, p, shares, labels = judged.target, judged.predicted, judged.probabilities, judged.labels
    if judged.task == "regression":
        return {
            "r2": sk.r2_score(t, p, sample_weight=w),
            "root_mean_squared_error": sk.root_mean_squared_error(t, p, sample_weight=w),
            "mean_absolute_error": sk.mean_absolute_error(t, p, sample_weight=w),
        }
    seen = w > 0  # a label that no row with weight has is no label
    found = {
        "accuracy": sk.accuracy_score(t, p, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(t, p, sample_weight=w),
        "log_loss": sk.log_loss(t, shares, sample_weight=w, labels=labels),
    }
    if judged.task == "binary":
        found["f1"] = sk.f1_score(t, p, pos_label=labels[-1], sample_weight=w, zero_division=0)
        found["roc_auc"] = sk.roc_auc_score(t == labels[-1], shares[:, -1], sample_weight=w)
    else:
        found["f1_macro"] = sk.f1_score(
            t[seen], p[seen], average="macro", sample_weight=w[seen], zero_division=0
        )
        each = [
            sk.roc_auc_score(t == label, shares[:, i], sample_weight=w)
            for i, label in enumerate(labels)
        ]
        found["roc_auc_ovr"] = np.mean(each)
    return found


def same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@given(
    seeds,
    st.sampled_from([("binary", 2), ("multiclass", 2), ("multiclass", 3), ("multiclass", 4)]),
    st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore:y_pred contains classes:UserWarning")
def test_classification_equals_scikit_learn(seed: int, of: tuple[str, int], rows: int) -> None:
    judged, weights = classes(seed, of[1], rows, of[0])
    if judged.task == "multiclass" and of[1] > 2:
        theirs = sk.roc_auc_score(judged.target, judged.probabilities, multi_class="ovr")
        assert point_values(judged)["roc_auc_ovr"] == pytest.approx(theirs)
    found = weighted_values(judged, np.stack([weights, np.ones_like(weights)]))
    same({n: v[0] for n, v in found.items()}, scikit_learn(judged, weights))
    same({n: v[1] for n, v in found.items()}, point_values(judged))
    same(unit_values(judged), point_values(judged))
    assert set(found) == set(METRICS[judged.task])


@given(st.lists(st.tuples(FEW, FEW, st.integers(0, 3)), min_size=2, max_size=50), st.floats(0, 1e5))
@settings(max_examples=60, deadline=None)
def test_regression_equals_scikit_learn(cells, shift: float) -> None:
    target, predicted, weights = (
        np.array(column, dtype=float) for column in zip(*cells, strict=True)
    )
    assume(len(np.unique(target[weights > 0])) > 1)
    judged = Judged("regression", target + shift, predicted + shift)
    found = weighted_values(judged, np.stack([weights, np.ones_like(weights)]))
    assert {n: v[0] for n, v in found.items()} == pytest.approx(
        scikit_learn(judged, weights), rel=1e-6
    )
    assert {n: v[1] for n, v in found.items()} == pytest.approx(point_values(judged), rel=1e-6)
    assert set(found) == set(METRICS["regression"])


def test_metrics_without_probabilities_are_those_of_the_labels() -> None:
    judged, _ = classes(1, 3, 20)
    judged = Judged(judged.task, judged.target, judged.predicted, None, judged.labels)
    assert set(point_values(judged)) == {"accuracy", "balanced_accuracy", "f1_macro"}
    same(unit_values(judged), point_values(judged))


def test_undefined_metrics_are_none() -> None:
    labels, shares = np.array([False, True]), np.array([[0.2, 0.8], [0.6, 0.4]])
    one_class = Judged("binary", np.array([True, True]), np.array([True, False]), shares, labels)
    assert point_values(one_class)["roc_auc"] is None
    assert unit_values(one_class)["roc_auc"] is None
    assert point_values(one_class)["f1"] == pytest.approx(2 / 3)
    constant = Judged("regression", np.array([0.1, 0.1, 0.1]), np.array([0.0, 1.0, 2.0]))
    assert point_values(constant)["r2"] is None
    assert unit_values(constant)["r2"] is None


def test_intervals_hold_the_value_and_are_always_numbers() -> None:
    r = np.random.default_rng(0)
    target = r.normal(size=200)
    judged = Judged("regression", target, target + r.normal(scale=0.5, size=200))
    replicates = bootstrap([judged])[0]
    for name, value in point_values(judged).items():
        found = interval(value, replicates[name])
        assert found["lower"] < value < found["upper"]
    # Three rows: many replicates draw one target only, for which r2 is not defined.
    tiny = Judged("regression", np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.5, 2.5]))
    assert all(
        np.isfinite(list(interval(0.5, v).values())).all() for v in bootstrap([tiny])[0].values()
    )
    assert interval(2.0, np.array([np.nan])) == {"value": 2.0, "lower": 2.0, "upper": 2.0}


def test_the_bootstrap_is_paired_and_repeatable() -> None:
    judged, _ = classes(3, 3, 60)
    first, second = bootstrap([judged, judged])
    again = bootstrap([judged])[0]
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_array_equal(first[name], again[name])


def test_large_holdouts_get_fewer_replicates() -> None:
    assert (replicates_for(100), replicates_for(10**5), replicates_for(10**8)) == (1000, 500, 100)
