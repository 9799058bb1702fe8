"""The metrics of each task: the value by scikit-learn, the interval by a weighted bootstrap.

scikit-learn's functions judge one set of weights at a time, milliseconds each; a bootstrap wants a
thousand. So the same metrics are written here once more as sums over weighted rows, which a matrix
product yields for all replicates at once. A test holds both to the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

Array = np.ndarray[Any, Any]

#: Replicates of the bootstrap; fewer where the holdout is very large, and its noise small.
REPLICATES = 1000
LEAST_REPLICATES = 100
#: Weights held in memory at once: 32 MB.
CHUNK = 4_000_000
SEED = 20_260_101
#: scikit-learn's own bound for probabilities in a logarithm.
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Judged:
    """Predictions for n held-out rows beside what was true."""

    task: str
    target: Array
    predicted: Array
    #: n x k, columns in the order of ``labels``; None where the estimator has none.
    probabilities: Array | None = None
    #: All labels, sorted.
    labels: Array | None = None


def point_values(judged: Judged) -> dict[str, float | None]:
    """Each metric by scikit-learn; None where it is undefined for these rows."""
    import sklearn.metrics as sk

    target, predicted = judged.target, judged.predicted
    if judged.task == "regression":
        varies = len(np.unique(target)) > 1
        return {
            "r2": float(sk.r2_score(target, predicted)) if varies else None,
            "root_mean_squared_error": float(sk.root_mean_squared_error(target, predicted)),
            "mean_absolute_error": float(sk.mean_absolute_error(target, predicted)),
        }
    assert judged.labels is not None, "a classifier has labels"
    labels, present = judged.labels, np.unique(target)
    shares: dict[str, Any] = {"average": "macro", "zero_division": 0}
    recall = sk.recall_score(target, predicted, labels=present, **shares)
    found: dict[str, float | None] = {
        "accuracy": float(sk.accuracy_score(target, predicted)),
        "balanced_accuracy": float(recall),
    }
    binary = judged.task == "binary"
    wanted = labels[-1:] if binary else None
    f1 = sk.f1_score(target, predicted, labels=wanted, **shares)
    found["f1" if binary else "f1_macro"] = float(f1)
    if judged.probabilities is None:
        return found
    found["log_loss"] = float(sk.log_loss(target, judged.probabilities, labels=labels))
    auc = None
    # Class by class, since roc_auc_score takes two classes of a multiclass task for a binary one.
    if len(present) == len(labels):
        shown = [len(labels) - 1] if binary else range(len(labels))
        columns = judged.probabilities.T
        auc = float(np.mean([sk.roc_auc_score(target == labels[i], columns[i]) for i in shown]))
    found["roc_auc" if binary else "roc_auc_ovr"] = auc
    return found


def unit_values(judged: Judged) -> dict[str, float | None]:
    """The same as ``point_values`` in a tenth of the time, for many small parts."""
    found = weighted_values(judged, np.ones((1, len(judged.target))))
    return {name: float(v[0]) if np.isfinite(v[0]) else None for name, v in found.items()}


def weighted_values(judged: Judged, weights: Array) -> dict[str, Array]:
    """Each metric for every row of ``weights``.

    Args:
        judged: n rows.
        weights: b x n, not negative.

    Returns:
        metric -> b values, NaN where a metric is undefined for these weights.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if judged.task == "regression":
            return _regression(judged, weights)
        return _classification(judged, weights)


def _regression(judged: Judged, weights: Array) -> dict[str, Array]:
    target = judged.target.astype(float)
    # Moved to the middle: the variance is a difference of two large sums otherwise.
    middle = target - target.mean()
    error = target - judged.predicted.astype(float)
    columns = np.column_stack([np.ones_like(target), middle, middle**2, error**2, np.abs(error)])
    total, first, second, squares, absolute = (weights @ columns).T
    spread = second - first**2 / total
    # Rows of one target: what is left is rounding.
    spread = np.where(spread > 1e-12 * second, spread, np.nan)
    return {
        "r2": 1 - squares / spread,
        "root_mean_squared_error": np.sqrt(squares / total),
        "mean_absolute_error": absolute / total,
    }


def _classification(judged: Judged, weights: Array) -> dict[str, Array]:
    assert judged.labels is not None, "a classifier has labels"
    labels = judged.labels
    k = len(labels)
    true = np.searchsorted(labels, judged.target)
    predicted = np.searchsorted(labels, judged.predicted)
    of_true, of_predicted = _by_class(true, k, weights), _by_class(predicted, k, weights)
    hits = _by_class(np.where(true == predicted, true, -1), k, weights)
    total = weights.sum(1)
    recall = np.where(of_true > 0, hits / of_true, np.nan)
    f1 = np.where(of_true + of_predicted > 0, 2 * hits / (of_true + of_predicted), np.nan)
    found = {"accuracy": hits.sum(1) / total, "balanced_accuracy": np.nanmean(recall, axis=1)}
    if judged.task == "binary":
        found["f1"] = np.nan_to_num(f1[:, -1])
    else:
        found["f1_macro"] = np.nanmean(f1, axis=1)
    if judged.probabilities is not None:
        found |= _of_probabilities(judged, judged.probabilities, true, weights, total)
    return found


def _by_class(classes: Array, k: int, weights: Array) -> Array:
    """Sum of weights of each class: b x k; class -1 is counted nowhere."""
    counted = np.flatnonzero(classes >= 0)
    places = (counted, classes[counted])
    shape = (len(classes), k)
    return weights @ sparse.csr_array((np.ones(len(counted)), places), shape=shape)


def _of_probabilities(
    judged: Judged, probabilities: Array, true: Array, weights: Array, total: Array
) -> dict[str, Array]:
    shares = np.clip(probabilities, EPSILON, 1 - EPSILON)
    shares = shares / shares.sum(1, keepdims=True)
    loss = -np.log(shares[np.arange(len(true)), true])
    found = {"log_loss": weights @ loss / total}
    if judged.task == "binary":
        found["roc_auc"] = _roc_auc(true == 1, probabilities[:, -1], weights)
    else:
        columns = enumerate(probabilities.T)
        each = [_roc_auc(true == i, column, weights) for i, column in columns]
        found["roc_auc_ovr"] = np.mean(each, axis=0)
    return found


def _roc_auc(positive: Array, score: Array, weights: Array) -> Array:
    """Probability that a positive row has a higher score than a negative one, ties by half."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    positives = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(1) * negatives.sum(1)
    return np.where(pairs > 0, (positives * (below + negatives / 2)).sum(1) / pairs, np.nan)


def replicates_for(cells: int) -> int:
    """How many replicates a holdout of so many rows times classes gets."""
    return int(min(REPLICATES, max(LEAST_REPLICATES, 50_000_000 // max(cells, 1))))


def bootstrap(judged: list[Judged]) -> list[dict[str, Array]]:
    """Every metric in every replicate, for one or more predictions of the same rows.

    All share each replicate's draw of rows, so that differences between them are paired.
    """
    rows = len(judged[0].target)
    classes = 1 if judged[0].labels is None else len(judged[0].labels)
    replicates = replicates_for(rows * classes)
    generator = np.random.default_rng(SEED)
    size = max(1, CHUNK // max(rows, 1))
    parts: list[list[dict[str, Array]]] = [[] for _ in judged]
    for start in range(0, replicates, size):
        count = min(size, replicates - start)
        draws = generator.integers(0, rows, (count, rows))
        weights = np.stack([np.bincount(draw, minlength=rows) for draw in draws]).astype(float)
        for part, one in zip(parts, judged, strict=True):
            part.append(weighted_values(one, weights))
    return [{n: np.concatenate([p[n] for p in part]) for n in part[0]} for part in parts]


def interval(value: float, replicates: Array) -> dict[str, float]:
    """A value with the 2.5 % and 97.5 % percentiles of its replicates."""
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return {"value": value, "lower": value, "upper": value}
    lower, upper = np.quantile(known, [0.025, 0.975])
    return {"value": value, "lower": float(lower), "upper": float(upper)}
