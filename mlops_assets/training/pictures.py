"""The pictures of an evaluation, as PNG: small, and drawn without pyplot's global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mlops_assets.training.metrics import Judged

BLUE, GREY = "#3257a8", "#9aa3b5"
#: Points drawn at most.
POINTS = 3000
#: Bins of a calibration curve.
BINS = 10
#: Features shown.
FEATURES = 15


def draw(folder: Path, judged: Judged, importance: list[dict[str, Any]]) -> None:
    """Write the pictures of a task below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if judged.task == "regression":
        _predicted_vs_actual(folder / "predicted_vs_actual.png", judged)
    else:
        _confusion_matrix(folder / "confusion_matrix.png", judged)
        if judged.probabilities is not None:
            _calibration(folder / "calibration.png", judged)
    if importance:
        _importance(folder / "importance.png", importance)


def new_axes(
    title: str, x: str, y: str, size: tuple[float, float] = (4.6, 3.8)
) -> tuple[Figure, Any]:
    """An empty picture in the style of all; size in inches at 96 dots."""
    # A "$" in the name of a column or label starts no formula.
    rcParams["text.parse_math"] = False
    figure = Figure(figsize=size, dpi=96, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _predicted_vs_actual(path: Path, judged: Judged) -> None:
    figure, axes = new_axes("Predicted against actual, holdout", "actual", "predicted")
    target, predicted = judged.target[:POINTS], judged.predicted[:POINTS]
    low = float(min(target.min(), predicted.min()))
    high = float(max(target.max(), predicted.max()))
    axes.plot([low, high], [low, high], color=GREY, linewidth=1)
    axes.scatter(target, predicted, s=12, color=BLUE, alpha=0.6, linewidths=0)
    figure.savefig(path)


def _confusion_matrix(path: Path, judged: Judged) -> None:
    assert judged.labels is not None, "a classifier has labels"
    labels = judged.labels
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(
        counts,
        (np.searchsorted(labels, judged.target), np.searchsorted(labels, judged.predicted)),
        1,
    )
    figure, axes = new_axes("Confusion matrix, holdout", "predicted", "actual")
    axes.imshow(counts, cmap="Blues")
    names = [str(label) for label in labels]
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    middle = counts.max() / 2
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > middle else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)
    figure.savefig(path)


def _calibration(path: Path, judged: Judged) -> None:
    assert judged.labels is not None, "a classifier has labels"
    assert judged.probabilities is not None, "asked for by the caller"
    figure, axes = new_axes("Calibration, holdout", "predicted probability", "observed share")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    shown = [len(judged.labels) - 1] if judged.task == "binary" else range(len(judged.labels))
    for index in shown:
        probability = judged.probabilities[:, index]
        bins = np.minimum((probability * BINS).astype(int), BINS - 1)
        rows = np.bincount(bins, minlength=BINS)
        used = rows > 0
        mean = np.bincount(bins, probability, BINS)[used] / rows[used]
        is_label = (judged.target == judged.labels[index]).astype(float)
        share = np.bincount(bins, is_label, BINS)[used] / rows[used]
        axes.plot(mean, share, marker="o", markersize=4, label=str(judged.labels[index]))
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def _importance(path: Path, importance: list[dict[str, Any]]) -> None:
    shown = importance[:FEATURES][::-1]
    size = (4.6, 1.2 + 0.24 * len(shown))
    figure, axes = new_axes("Permutation importance, holdout", "loss of score", "", size)
    axes.barh(
        [entry["column"] for entry in shown],
        [entry["mean"] for entry in shown],
        xerr=[entry["std"] for entry in shown],
        color=BLUE,
        error_kw={"ecolor": GREY, "elinewidth": 1},
    )
    figure.savefig(path)
