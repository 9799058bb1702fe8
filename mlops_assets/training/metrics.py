"""The metrics of each task: the value by scikit-learn, the interval by a weighted bootstrap.

scikit-learn's functions judge one set of weights at a time, milliseconds each; a bootstrap wants a
thousand. So the same metrics are written here once more as sums over weighted rows, which a matrix
product yields for all replicates at once. A test holds both to the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Replicates of the bootstrap; fewer where the holdout is very large, and its noise small.
REPLICATES = 1000
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
        return {
            "r2": float(sk.r2_score(target, predicted)) if len(target) > 1 else None,
            "root_mean_squared_error": float(sk.root_mean_squared_error(target, predicted)),
            "mean_absolute_error": float(sk.mean_absolute_error(target, predicted)),
        }
    assert judged.labels is not None, "a classifier has labels"
    several = len(np.unique(target)) > 1
    found: dict[str, float | None] = {
        "accuracy": float(sk.accuracy_score(target, predicted)),
        "balanced_accuracy": float(sk.recall_score(target, predicted, labels=np.unique(target), average="macro", zero_division=0)),
    }
    if judged.task == "binary":
        positive = judged.labels[-1]
        found["f1"] = float(sk.f1_score(target, predicted, pos_label=positive, zero_division=0))
    else:
        found["f1_macro"] = float(sk.f1_score(target, predicted, average="macro", zero_division=0))
    if judged.probabilities is not None:
        probabilities, labels = judged.probabilities, judged.labels
        found["log_loss"] = float(sk.log_loss(target, probabilities, labels=labels))
        if judged.task == "binary":
            score = probabilities[:, -1]
            found["roc_auc"] = float(sk.roc_auc_score(target == labels[-1], score)) if several else None
        else:
            complete = several and len(np.unique(target)) == len(labels)
            found["roc_auc_ovr"] = (
                float(sk.roc_auc_score(target, probabilities, multi_class="ovr", labels=labels))
                if complete
                else None
            )
    return found


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
    return {
        "r2": 1 - squares / (second - first**2 / total),
        "root_mean_squared_error": np.sqrt(squares / total),
        "mean_absolute_error": absolute / total,
    }


def _classification(judged: Judged, weights: Array) -> dict[str, Array]:
    assert judged.labels is not None, "a classifier has labels"
    labels = judged.labels
    k = len(labels)
    true = np.searchsorted(labels, judged.target)
    predicted = np.searchsorted(labels, judged.predicted)
    cells = np.zeros((len(true), k * k))
    cells[np.arange(len(true)), true * k + predicted] = 1
    confusion = (weights @ cells).reshape(-1, k, k)
    hits = np.einsum("bii->bi", confusion)
    of_true, of_predicted = confusion.sum(2), confusion.sum(1)
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
        each = [_roc_auc(true == i, probabilities[:, i], weights) for i in range(probabilities.shape[1])]
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


def replicates_for(rows: int) -> int:
    """How many replicates a holdout of so many rows gets."""
    return int(min(REPLICATES, max(100, 50_000_000 // max(rows, 1))))


def bootstrap(judged: list[Judged]) -> list[dict[str, Array]]:
    """Every metric in every replicate, for one or more predictions of the same rows.

    All share each replicate's draw of rows, so that differences between them are paired.
    """
    rows = len(judged[0].target)
    replicates = replicates_for(rows)
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
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return {"value": value, "lower": value, "upper": value}
    lower, upper = np.quantile(known, [0.025, 0.975])
    return {"value": value, "lower": float(lower), "upper": float(upper)}
