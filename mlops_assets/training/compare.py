"""A candidate beside the version that serves production, on the same held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.files import read_json
from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.training.data import Side, SplitRule, target_values
from mlops_assets.training.evaluation import Judged, compared, predictions

#: Below this an interval says nothing.
LEAST_ROWS = 10


def compare(
    candidate: Any,
    champion: dict[str, Any],
    table: pa.Table,
    rule: SplitRule,
    holdout: str,
) -> dict[str, Any]:
    """A comparison record; whatever goes wrong with the champion makes it ``incomparable``.

    Args:
        candidate: ``(Side) -> Judged`` of the candidate.
        champion: its bundle, digest and version.
        table: the candidate's snapshot.
        rule: how the candidate's holdout was parted from it.
        holdout: digest of that holdout.
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
        theirs = Predictor.load(bundle, champion["digest"])
        rows = table.filter(pa.array(rule.mask(table) & split_rule(bundle).mask(table)))
        if rows.num_rows < LEAST_ROWS:
            raise ValueError(f"only {rows.num_rows} rows are in neither's training set")
        judged = judge_version(theirs, rows)
        ours = candidate(rows)
        if ours.task != judged.task:
            raise ValueError(f"its task is {judged.task}")
        metrics = compared(*_same_labels(ours, judged))
        return {
            **record,
            "status": "compared",
            "reason": "",
            "rows": rows.num_rows,
            "metrics": metrics,
        }
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {**record, "status": "incomparable", "reason": reason}


def judge_version(version: Predictor, rows: pa.Table) -> Judged:
    """What a registered version predicts for rows of a snapshot; KeyError for a missing column."""
    schema = version.schema
    columns = {feature.name: rows.column(feature.name) for feature in schema.features}
    target = target_values(rows.column(schema.target), schema.task)
    side = Side(rows, to_frame(columns, schema.features), target)
    labels = np.array([] if schema.labels is None else list(schema.labels))
    return predictions(version.estimator, side, schema.task, labels)


def split_rule(bundle: Path) -> SplitRule:
    """How a registered version's holdout was parted."""
    holdout = read_json(bundle / "evidence.json")["holdout"]
    return SplitRule(holdout["columns"], holdout["salt"], holdout["fraction"])


def compare_versions(request: dict[str, Any]) -> dict[str, Any]:
    """The comparison of two registered versions, both loaded from their bundles."""
    bundle = Path(request["candidate"]["bundle"])
    candidate = Predictor.load(bundle, request["candidate"]["digest"])
    evidence = read_json(bundle / "evidence.json")
    return compare(
        lambda rows: judge_version(candidate, rows),
        request["champion"],
        pq.read_table(request["snapshot"]),
        split_rule(bundle),
        evidence["holdout"]["digest"],
    )


def _same_labels(ours: Judged, theirs: Judged) -> tuple[Judged, Judged]:
    """Both over the union of their labels: one may know a class that the other never saw."""
    if ours.labels is None or theirs.labels is None:
        return ours, theirs
    labels = np.unique(np.concatenate([ours.labels, theirs.labels]))
    return _over(ours, labels), _over(theirs, labels)


def _over(judged: Judged, labels: np.ndarray[Any, Any]) -> Judged:
    assert judged.labels is not None, "a classifier has labels"
    probabilities = None
    if judged.probabilities is not None:
        probabilities = np.zeros((len(judged.target), len(labels)))
        probabilities[:, np.searchsorted(labels, judged.labels)] = judged.probabilities
    return Judged(judged.task, judged.target, judged.predicted, probabilities, labels)
