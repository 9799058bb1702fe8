"""A candidate beside the version that serves production, on the same held-out rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.pickled import Pickled
from mlops_assets.scoring.predictor import Predictor, checked_bytes, read_manifest
from mlops_assets.training import evaluation
from mlops_assets.training.data import Side, SplitRule, side_of
from mlops_assets.training.errors import TrainingProblem
from mlops_assets.training.evaluation import compared, predictions
from mlops_assets.training.metrics import Judged

#: Below this an interval says nothing.
LEAST_ROWS = 10


class IncomparableError(Exception):
    """Why two versions cannot be compared."""


def compare(
    candidate: Callable[[pa.Table], Judged],
    champion: dict[str, Any],
    table: pa.Table,
    rule: SplitRule,
    holdout: str,
    slices: Sequence[str] = (),
) -> dict[str, Any]:
    """A comparison record; whatever goes wrong with the champion makes it ``incomparable``.

    Args:
        candidate: what the candidate predicts for rows of the snapshot.
        champion: its bundle, digest and version.
        table: the candidate's snapshot.
        rule: how the candidate's holdout was parted from it.
        holdout: digest of that holdout.
        slices: columns whose values the metrics of both are also told for.
    """
    record = {
        "format": 1,
        "champion": champion["digest"],
        "version": champion["version"],
        "holdout": holdout,
        "rows": 0,
        "metrics": {},
    }
    try:
        bundle = Path(champion["bundle"])
        theirs = Predictor.load(bundle, champion["digest"], "pickle")
        mask = rule.mask(table) & split_rule(bundle, champion["digest"]).mask(table)
        rows = table.filter(pa.array(mask))
        if rows.num_rows < LEAST_ROWS:
            raise IncomparableError(f"only {rows.num_rows} rows are in neither's training set")
        ours, judged = candidate(rows), judge_version(theirs, rows)
        ours, judged = _same_labels(ours, judged)
        metrics = compared(ours, judged)
        parts = _slices(ours, judged, rows, slices)
    except KeyError as error:
        reason = f"it needs what the candidate's data does not have: {error.args[0]}"
    except (IncomparableError, TrainingProblem, IntegrityError) as error:
        reason = str(error)
    except (Exception, SystemExit) as error:  # an old model may do anything as it loads
        reason = f"{type(error).__name__}: {error}"
    else:
        done = {"status": "compared", "reason": "", "rows": rows.num_rows, "metrics": metrics}
        return {**record, **done, **({"slices": parts} if slices else {})}
    return {**record, "status": "incomparable", "reason": (reason.splitlines() or [""])[0]}


def judge_version(version: Predictor, rows: pa.Table) -> Judged:
    """What a registered version predicts for rows of a snapshot; KeyError for a missing column."""
    schema = version.schema
    side = side_of(rows, schema.features, schema.target, schema.task)
    labels = np.array([] if schema.labels is None else list(schema.labels))
    assert isinstance(version.model, Pickled), "loaded as such by the callers"
    return predictions(version.model.estimator, side, schema.task, labels)


def split_rule(bundle: Path, digest: str) -> SplitRule:
    """How a registered version's holdout was parted; IntegrityError for changed files."""
    return SplitRule(*(_holdout(bundle, digest)[name] for name in ("columns", "salt", "fraction")))


def _holdout(bundle: Path, digest: str) -> dict[str, Any]:
    manifest, _ = read_manifest(bundle, digest)
    return json.loads(checked_bytes(bundle, "evidence.json", manifest))["holdout"]


def compare_versions(request: dict[str, Any]) -> dict[str, Any]:
    """The comparison of two registered versions, both loaded from their bundles.

    Raises:
        TrainingProblem: the candidate is not what was registered.
    """
    bundle, digest = Path(request["candidate"]["bundle"]), request["candidate"]["digest"]
    try:
        candidate = Predictor.load(bundle, digest, "pickle")
        rule, holdout = split_rule(bundle, digest), _holdout(bundle, digest)["digest"]
    except IntegrityError as error:
        raise TrainingProblem("data", str(error)) from None
    table = pq.read_table(request["snapshot"])

    def judge(rows: pa.Table) -> Judged:
        return judge_version(candidate, rows)

    return compare(
        judge, request["champion"], table, rule, holdout, tuple(request.get("slices", ()))
    )


def _slices(
    ours: Judged, theirs: Judged, rows: pa.Table, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """The metrics of both for each value of each column."""
    side = Side(rows, pd.DataFrame(), ours.target)
    known = [name for name in columns if name in rows.column_names]
    return [
        {**{k: a[k] for k in ("column", "value", "rows")}, "metrics": _pairs(a, b)}
        for a, b in zip(
            evaluation.slices(ours, side, known),
            evaluation.slices(theirs, side, known),
            strict=True,
        )
    ]


def _pairs(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    return {
        name: {"candidate": value, "champion": theirs["metrics"].get(name)}
        for name, value in ours["metrics"].items()
    }


def _same_labels(ours: Judged, theirs: Judged) -> tuple[Judged, Judged]:
    """Both over the union of all labels: one may know a class that the other never saw."""
    if ours.task != theirs.task:
        raise IncomparableError(f"its task is {theirs.task}, the candidate's is {ours.task}")
    if not np.array_equal(ours.target, theirs.target):
        raise IncomparableError("its target is another column than the candidate's")
    if ours.labels is None or theirs.labels is None:
        return ours, theirs
    if len({ours.labels.dtype.kind, theirs.labels.dtype.kind}) > 1:
        raise IncomparableError(f"its labels are of another type: {theirs.labels.tolist()[:5]}")
    labels = np.unique(np.concatenate([ours.labels, theirs.labels, ours.target]))
    return _over(ours, labels), _over(theirs, labels)


def _over(judged: Judged, labels: np.ndarray[Any, Any]) -> Judged:
    assert judged.labels is not None, "a classifier has labels"
    probabilities = None
    if judged.probabilities is not None:
        probabilities = np.zeros((len(judged.target), len(labels)))
        probabilities[:, np.searchsorted(labels, judged.labels)] = judged.probabilities
    return Judged(judged.task, judged.target, judged.predicted, probabilities, labels)
