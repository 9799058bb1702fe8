"""What is measured about a fitted estimator on the rows held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlops_assets.training.data import Side
from mlops_assets.training.errors import TrainingProblem
from mlops_assets.training.metrics import Judged, bootstrap, interval, point_values

#: Permutation importance looks at no more rows than this.
IMPORTANCE_ROWS = 2000
IMPORTANCE_REPEATS = 5


def predictions(estimator: Any, side: Side, task: str, labels: np.ndarray[Any, Any]) -> Judged:
    """Let an estimator predict a side.

    Raises:
        TrainingProblem: it predicts another number of rows, no finite numbers, or unknown labels.
    """
    predicted = np.asarray(estimator.predict(side.frame))
    rows = len(side.target)
    if predicted.shape != (rows,):
        raise TrainingProblem(
            "raised", f"the estimator predicts an array of shape {predicted.shape} for {rows} rows"
        )
    if task == "regression":
        if not np.isfinite(predicted.astype(float)).all():
            raise TrainingProblem("raised", "the estimator predicts NaN or infinite values")
        return Judged(task, side.target, predicted.astype(float))
    unknown = set(np.unique(predicted).tolist()) - set(labels.tolist())
    if unknown:
        raise TrainingProblem("raised", f"the estimator predicts unknown labels: {sorted(unknown)}")
    probabilities = None
    if hasattr(estimator, "predict_proba"):
        own = list(np.asarray(estimator.classes_).tolist())
        found = np.asarray(estimator.predict_proba(side.frame), dtype=float)
        # A label that training never saw has probability 0.
        probabilities = np.zeros((rows, len(labels)))
        for column, label in enumerate(labels.tolist()):
            if label in own:
                probabilities[:, column] = found[:, own.index(label)]
    return Judged(task, side.target, predicted, probabilities, labels)


def metrics(judged: Judged) -> dict[str, dict[str, float]]:
    """Every metric of the task with its 95 % bootstrap interval; undefined ones are left out."""
    replicates = bootstrap([judged])[0]
    return {
        name: interval(value, replicates[name])
        for name, value in point_values(judged).items()
        if value is not None
    }


def compared(candidate: Judged, champion: Judged) -> dict[str, dict[str, Any]]:
    """Every metric of both on the same rows, and the paired difference, candidate - champion."""
    first, second = bootstrap([candidate, champion])
    ours, theirs = point_values(candidate), point_values(champion)
    found: dict[str, dict[str, Any]] = {}
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        if a is not None and b is not None:
            difference = interval(a - b, first[name] - second[name])
            found[name] = {"candidate": a, "champion": b, "difference": difference}
    return found


def slices(judged: Judged, side: Side, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The metrics of the held-out rows for each value of each slice column."""
    found: list[dict[str, Any]] = []
    for column in columns:
        values = np.array(
            ["" if v is None else v for v in side.table.column(column).to_pylist()], dtype=object
        )
        for value in sorted(set(values.tolist()), key=str):
            mask = values == value
            part = Judged(
                judged.task,
                judged.target[mask],
                judged.predicted[mask],
                None if judged.probabilities is None else judged.probabilities[mask],
                judged.labels,
            )
            found.append(
                {
                    "column": column,
                    "value": value if value != "" else None,
                    "rows": int(mask.sum()),
                    "metrics": point_values(part),
                }
            )
    return found


def importance(estimator: Any, side: Side, judged: Judged) -> list[dict[str, Any]]:
    """Permutation importance of each feature, greatest first: loss of r2, or rise of log loss."""
    from sklearn.inspection import permutation_importance

    rows = slice(0, IMPORTANCE_ROWS)
    by_probability = judged.probabilities is not None
    scoring = "r2" if judged.task == "regression" else "neg_log_loss" if by_probability else "accuracy"
    if len(np.unique(side.target[rows])) < 2:
        return []  # no score is defined over a single value
    try:
        found = permutation_importance(
            estimator,
            side.frame.iloc[rows],
            side.target[rows],
            scoring=scoring,
            n_repeats=IMPORTANCE_REPEATS,
            random_state=0,
        )
    except ValueError:
        return []  # neg_log_loss wants every label among the rows
    means, stds = found.importances_mean, found.importances_std
    return [
        {"column": str(name), "mean": float(means[i]), "std": float(stds[i])}
        for i, name in sorted(enumerate(side.frame.columns), key=lambda pair: -means[pair[0]])
    ]
