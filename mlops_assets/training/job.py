"""One request, step by step: read, fit, measure, write. Knows nothing of processes."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.training import evaluation, export, onnx_export, parity
from mlops_assets.training.data import Side, SplitRule, read_sides, side_of
from mlops_assets.training.errors import TrainingProblem, own_errors
from mlops_assets.training.metrics import Judged
from mlops_assets.training.source import Source, load_source

Log = Callable[[str], None]
Labels = np.ndarray[Any, Any]


class Clock:
    """Seconds of each stage, which may come in parts."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._last = started

    def lap(self, name: str) -> None:
        """The stage that ends now."""
        now = time.perf_counter()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 4)
        self._last = now


def train(request: dict[str, Any], output: Path, log: Log, started: float) -> None:
    """Train, evaluate and write one model; ``evidence.json`` is the last file.

    Args:
        request: what ``runner`` was asked; with ``follows``, to take part in fitting alone, as one
            of several processes.
        output: an existing folder.
        log: takes lines for people.
        started: when this process began with it, by ``time.perf_counter``.

    Raises:
        TrainingProblem: in one sentence for the data scientist.
    """
    clock = Clock(started)
    spec, root = request["spec"], Path(request["source"])
    random.seed(0)
    np.random.seed(0)  # what scikit-learn uses without a random_state
    source = load_source(root, request["folder"], request["model"], Path(request["repository"]))
    gc.freeze()  # modules stay; off since the runner began to import
    gc.enable()
    clock.lap("import")
    features, rule, task = features_of(spec), split_rule_of(spec), spec["task"]
    training, holdout, digest = read_sides(
        Path(request["snapshot"]), features, spec["data"]["target"], task, rule
    )
    clock.lap("read")
    log(f"training on {len(training.target)} rows, {len(holdout.target)} are held out")
    estimator = fit(source, training, dict(spec["parameters"]))
    if request.get("follows"):
        return
    clock.lap("fit")
    labels = labels_of(task, training, holdout, estimator)
    with own_errors(root, "predicting with the estimator of train.py"):
        judged = evaluation.predictions(estimator, holdout, task, labels)
        importance = evaluation.importance(estimator, holdout, judged)
    metrics = evaluation.metrics(judged)
    log(", ".join(f"{name} {value['value']:.4g}" for name, value in metrics.items()))
    evidence = {
        "format": 1,
        "task": task,
        "metrics": metrics,
        "holdout": {
            "rows": len(holdout.target),
            "training_rows": len(training.target),
            "fraction": rule.fraction,
            "columns": rule.columns,
            "salt": rule.salt,
            "digest": digest,
        },
        "slices": evaluation.slices(judged, holdout, spec["slices"]),
        "importance": importance,
        "predictions": export.distribution(judged),
    }
    clock.lap("evaluate")
    export.write_model(estimator, source, output / "model.pkl")
    clock.lap("export")
    schema = schema_of(request, estimator, judged)
    wanted = wanted_of(spec)
    exported = parity.export(estimator, output / "model.pkl", schema, holdout.table, wanted)
    log(
        f"serves from {'the pickle' if exported.model is None else 'ONNX'}: "
        f"{exported.record['reason']}"
    )
    clock.lap("parity")
    write_answers(exported, estimator, source, holdout, judged, schema, output)
    clock.lap("export")
    from mlops_assets.training.pictures import draw

    draw(output / "pictures", judged, importance)
    clock.lap("pictures")
    if request.get("champion"):
        compare_with_champion(request, estimator, labels, rule, digest, output)
        clock.lap("compare")
    found = {**evidence, "parity": exported.record, "seconds": clock.seconds}
    write_atomic(output / "evidence.json", to_json(found))


def features_of(spec: dict[str, Any]) -> list[Feature]:
    """The columns an estimator is trained on, in the order of model.yaml."""
    outside = {*spec["data"]["key"], spec["data"]["target"]}
    return [
        Feature.from_dict({"name": name, **column})
        for name, column in spec["data"]["columns"].items()
        if name not in outside and column["feature"]
    ]


def schema_of(request: dict[str, Any], estimator: Any, judged: Judged) -> Schema:
    """Input and output of the version to be."""
    spec = request["spec"]
    labels = None if judged.labels is None else export.plain_labels(estimator, judged.labels)
    return Schema(
        model=request["model"],
        task=spec["task"],
        target=spec["data"]["target"],
        features=tuple(features_of(spec)),
        labels=None if labels is None else tuple(labels),
    )


def wanted_of(spec: dict[str, Any]) -> parity.Wanted:
    """What model.yaml asks of a conversion."""
    # A converter that never comes to an end must leave training the time to do so.
    seconds = min(onnx_export.SECONDS, spec["timeout_seconds"] / 4)
    return parity.Wanted(spec["serving"]["format"], **spec["gates"]["parity"], seconds=seconds)


def split_rule_of(spec: dict[str, Any]) -> SplitRule:
    """How model.yaml parts the rows."""
    split = spec["split"]
    return SplitRule(split["columns"] or spec["data"]["key"], split["salt"], split["holdout"])


def fit(source: Source, training: Side, parameters: dict[str, Any]) -> Any:
    """What train.py makes of the training rows: a fitted estimator."""
    if source.train is not None:
        with own_errors(source.root, "train() of train.py"):
            estimator = source.train(training.frame, training.target, parameters)
        _require_estimator(estimator, "train", ("predict",))
        return estimator
    assert source.build is not None, "train.py has one of both"
    with own_errors(source.root, "build() of train.py"):
        estimator = source.build(parameters)
    _require_estimator(estimator, "build", ("fit", "predict"))
    with own_errors(source.root, "fitting the estimator of train.py"):
        estimator.fit(training.frame, training.target)
    return estimator


def _require_estimator(found: Any, function: str, methods: tuple[str, ...]) -> None:
    if isinstance(found, type) or not all(hasattr(found, method) for method in methods):
        shown = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise TrainingProblem(
            "not_an_estimator",
            f"train.py: {function}() returned {shown}, which is no scikit-learn estimator "
            f"(an object with {' and '.join(methods)})",
        )


def labels_of(task: str, training: Side, holdout: Side, estimator: Any) -> Labels:
    """All labels, sorted: those of the estimator, and any that the rows hold beside them."""
    if task == "regression":
        return np.array([])
    known = [training.target, holdout.target]
    if hasattr(estimator, "classes_"):
        known.append(np.asarray(estimator.classes_))
    labels = np.unique(np.concatenate(known))
    if task == "binary" and len(labels) != 2:
        raise TrainingProblem(
            "data", f"task binary wants two labels, found {labels.tolist()[:5]}; see model.yaml"
        )
    return labels


def write_answers(
    found: parity.Export,
    estimator: Any,
    source: Source,
    holdout: Side,
    judged: Judged,
    schema: Schema,
    output: Path,
) -> None:
    """Beside the pickle: ONNX if it may serve, a sample, what all of it needs, its labels."""
    if found.model is not None:
        write_atomic(output / "model.onnx", found.model)
    with own_errors(source.root, "predicting with the estimator of train.py"):
        export.write_sample(
            estimator, holdout, schema, set(found.label_rows), output / "sample.json"
        )
    also = () if found.model is None else ("onnxruntime",)
    export.write_requirements(output / "model.pkl", also, output / "requirements.txt")
    described = {
        "labels": None if schema.labels is None else list(schema.labels),
        "format": "pickle" if found.model is None else "onnx",
        "reason": found.record["reason"],
        "predictions": export.deciles(judged),
    }
    write_atomic(output / "estimator.json", to_json(described))


def compare_with_champion(
    request: dict[str, Any],
    estimator: Any,
    labels: Labels,
    rule: SplitRule,
    digest: str,
    output: Path,
) -> None:
    """Write ``comparison.json``: the estimator just trained beside a registered version."""
    from mlops_assets.training.compare import compare

    spec = request["spec"]
    features, target, task = features_of(spec), spec["data"]["target"], spec["task"]

    def judge(rows: pa.Table) -> Judged:
        side = side_of(rows, features, target, task)
        return evaluation.predictions(estimator, side, task, labels)

    table = pq.read_table(request["snapshot"])
    found = compare(judge, request["champion"], table, rule, digest)
    write_atomic(output / "comparison.json", to_json(found))
