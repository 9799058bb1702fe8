"""What is measured about a fitted estimator on the rows held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.training.data import Side, plain
from mlops_assets.training.errors import TrainingProblem
from mlops_assets.training.metrics import (
    SEED,
    Judged,
    bootstrap,
    interval,
    point_values,
    unit_values,
)

#: Permutation importance looks at no more rows than this.
IMPORTANCE_ROWS = 2000
IMPORTANCE_REPEATS = 5
#: Values of one slice column that are shown, those with the most rows.
SLICE_VALUES = 50


def predictions(estimator: Any, side: Side, task: str, labels: np.ndarray[Any, Any]) -> Judged:
    """Let an estimator predict a side.

    Raises:
        TrainingProblem: it predicts another number of rows, no finite numbers, unknown labels, or
            no probabilities where it says so.
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
    unknown = sorted(set(predicted.tolist()) - set(labels.tolist()), key=str)
    if unknown:
        raise TrainingProblem(
            "raised",
            f"the estimator predicts labels that the target never has: {unknown[:5]}; task "
            f"{task} wants a classifier of {labels.tolist()[:5]}",
        )
    probabilities = None
    if hasattr(estimator, "predict_proba"):
        probabilities = _probabilities(estimator, side.frame, labels)
    return Judged(task, side.target, predicted, probabilities, labels)


def _probabilities(
    estimator: Any, frame: pd.DataFrame, labels: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """One column per label; a label that training never saw has probability 0."""
    if not hasattr(estimator, "classes_"):
        raise TrainingProblem(
            "not_an_estimator",
            "the estimator has predict_proba but no classes_, which says what its columns mean",
        )
    own = np.asarray(estimator.classes_).tolist()
    found = np.asarray(estimator.predict_proba(frame), dtype=float)
    if found.shape != (len(frame), len(own)):
        raise TrainingProblem(
            "raised",
            f"predict_proba returns an array of shape {found.shape} for {len(frame)} rows and "
            f"{len(own)} classes",
        )
    if not (np.isfinite(found).all() and (found >= 0).all() and _sums_to_one(found)):
        raise TrainingProblem(
            "raised", "predict_proba returns rows that are no probabilities: each must sum to 1"
        )
    probabilities = np.zeros((len(frame), len(labels)))
    for column, label in enumerate(labels.tolist()):
        if label in own:
            probabilities[:, column] = found[:, own.index(label)]
    return probabilities


def _sums_to_one(found: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-4))


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
    """The metrics of the held-out rows for each value of each slice column; None is missing."""
    found: list[dict[str, Any]] = []
    for column in columns:
        # A missing text is the empty string in the frame, so both are one slice.
        values = [None if v == "" else plain(v) for v in side.table.column(column).to_pylist()]
        known = sorted({v for v in values if v is not None})
        indices = {value: index for index, value in enumerate([None, *known])}
        places = np.array([indices[value] for value in values])
        counts = np.bincount(places, minlength=len(indices))
        most = set(np.argsort(-counts, kind="stable")[:SLICE_VALUES].tolist())
        for value, index in indices.items():
            if counts[index] and index in most:
                part = _part(judged, np.flatnonzero(places == index))
                shown = {"column": column, "value": value, "rows": int(counts[index])}
                found.append({**shown, "metrics": unit_values(part)})
    return found


def _part(judged: Judged, rows: np.ndarray[Any, Any]) -> Judged:
    shares = None if judged.probabilities is None else judged.probabilities[rows]
    return replace(
        judged,
        target=judged.target[rows],
        predicted=judged.predicted[rows],
        probabilities=shares,
    )


def importance(estimator: Any, side: Side, judged: Judged) -> list[dict[str, Any]]:
    """Permutation importance of each feature, greatest first.

    How much the score (r2, minus the log loss, or accuracy) falls when the values of one column
    are shuffled: scikit-learn's permutation_importance, but all repeats of a column are predicted
    at once, and a class without a row among these is no error.
    """
    generator = np.random.default_rng(SEED)
    rows = np.arange(len(judged.target))
    if len(rows) > IMPORTANCE_ROWS:
        rows = np.sort(generator.choice(rows, IMPORTANCE_ROWS, replace=False))
    base = _score(_part(judged, rows))
    if base is None:
        return []  # r2 is not defined over a single value
    labels = np.array([]) if judged.labels is None else judged.labels
    frame = side.frame.iloc[np.tile(rows, IMPORTANCE_REPEATS)].reset_index(drop=True)
    target = np.tile(judged.target[rows], IMPORTANCE_REPEATS)
    parts = np.arange(len(frame)).reshape(IMPORTANCE_REPEATS, len(rows))
    found: list[dict[str, Any]] = []
    for name in frame.columns:
        order = np.concatenate([generator.permutation(part) for part in parts])
        shuffled = frame.assign(**{str(name): frame[name].take(order).to_numpy()})
        again = predictions(estimator, Side(side.table, shuffled, target), judged.task, labels)
        losses = [base - (_score(_part(again, part)) or 0.0) for part in parts]
        found.append(
            {"column": str(name), "mean": float(np.mean(losses)), "std": float(np.std(losses))}
        )
    return sorted(found, key=lambda entry: -entry["mean"])


def _score(judged: Judged) -> float | None:
    values = unit_values(judged)
    if judged.task == "regression":
        return values["r2"]
    loss = values.get("log_loss")
    return values["accuracy"] if loss is None else -loss
