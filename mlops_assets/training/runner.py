"""The training process: ``python -m mlops_assets.training.runner REQUEST.json``.

Started by the orchestrator through Dagster Pipes, on a laptop or elsewhere. The request says what
to train or compare; everything that is made lies in its ``output`` folder, and on failure
``error.json`` says what went wrong, in one sentence and the model's own frames.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlops_assets.files import read_json, to_json, write_atomic
from mlops_assets.training import guard
from mlops_assets.training.errors import TrainingProblem, own_frames

Log = Callable[[str], None]


def main(path: str) -> int:
    """Do what a request file says; returns the exit code."""
    request = read_json(Path(path))
    output = Path(request["output"])
    parent = os.environ.get("MLOPS_RUN_PROCESS")
    if parent:
        guard.end_with_parent(int(parent))
    with _logged() as log:
        try:
            if request["mode"] == "compare":
                from mlops_assets.training.compare import compare_versions

                found = compare_versions(request)
                write_atomic(output / "comparison.json", to_json(found))
            else:
                train(request, output, log)
        except TrainingProblem as problem:
            _fail(output, problem.kind, str(problem), problem.frames)
            return 1
        except Exception as error:
            _fail(output, "internal", f"{type(error).__name__}: {error}", traceback.format_exc())
            return 1
    return 0


@contextlib.contextmanager
def _logged() -> Iterator[Log]:
    """Send log records, and what train.py prints, to the run's log as they come."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield lambda line: print(line, file=sys.stderr)
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        log: Log = pipes.log.info
        logging.getLogger().addHandler(guard.LogHandler(log))
        out, err = guard.Lines(log), guard.Lines(pipes.log.warning)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # pyright: ignore[reportArgumentType]
            yield log
            out.flush()
            err.flush()


def _fail(output: Path, kind: str, message: str, frames: str) -> None:
    content = {"kind": kind, "message": message, "traceback": frames}
    write_atomic(output / "error.json", to_json(content))


def train(request: dict[str, Any], output: Path, log: Log) -> None:
    """Train, evaluate and write one model; raises TrainingProblem."""
    spec = request["spec"]
    source_root = Path(request["source"])
    clock = _Clock()
    guard.end_in_time(
        spec["timeout_seconds"],
        output,
        lambda stack: _fail(
            output,
            "timeout",
            f"training was ended after timeout_seconds of model.yaml ({spec['timeout_seconds']} s)",
            stack,
        ),
    )
    import numpy as np

    from mlops_assets.training import data, evaluation, export
    from mlops_assets.training.source import load_source

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (what scikit-learn uses without a random_state)
    source = load_source(
        source_root, request["folder"], request["model"], Path(request["repository"])
    )
    clock.lap("import")
    features = _features(spec)
    split = spec["split"]
    rule = data.SplitRule(
        split["columns"] or spec["data"]["key"], split["salt"], split["holdout"]
    )
    training, holdout, digest = data.read_sides(
        Path(request["snapshot"]), features, spec["data"]["target"], spec["task"], rule
    )
    clock.lap("read")
    log(f"training on {len(training.target)} rows, {len(holdout.target)} are held out")
    with _own_errors(source_root):
        estimator = _fit(source, training, dict(spec["parameters"]))
    clock.lap("fit")
    labels = _labels(spec["task"], training, holdout, estimator)
    with _own_errors(source_root):
        judged = evaluation.predictions(estimator, holdout, spec["task"], labels)
    metrics = evaluation.metrics(judged)
    log(", ".join(f"{name} {value['value']:.4g}" for name, value in metrics.items()))
    importance = evaluation.importance(estimator, holdout, judged)
    evidence = {
        "format": 1,
        "task": spec["task"],
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
    }
    clock.lap("evaluate")
    export.write_model(estimator, source, output / "model.pkl")
    export.write_sample(estimator, holdout, features, output / "sample.json")
    export.write_requirements(output / "model.pkl", output / "requirements.txt")
    is_classifier = spec["task"] != "regression"
    described = {"labels": export.plain_labels(estimator, labels) if is_classifier else None}
    write_atomic(output / "estimator.json", to_json(described))
    clock.lap("export")
    from mlops_assets.training.pictures import draw

    draw(output / "pictures", judged, importance)
    clock.lap("pictures")
    if request.get("champion"):
        _compare(request, estimator, features, labels, rule, digest, output)
        clock.lap("compare")
    write_atomic(output / "evidence.json", to_json({**evidence, "seconds": clock.seconds}))


def _compare(
    request: dict[str, Any],
    estimator: Any,
    features: list[Any],
    labels: Any,
    rule: Any,
    digest: str,
    output: Path,
) -> None:
    import pyarrow.parquet as pq

    from mlops_assets.scoring.frame import to_frame
    from mlops_assets.training import data, evaluation
    from mlops_assets.training.compare import compare

    spec = request["spec"]
    target, task = spec["data"]["target"], spec["task"]

    def judge(rows: Any) -> Any:
        columns = {feature.name: rows.column(feature.name) for feature in features}
        values = data.target_values(rows.column(target), task)
        side = data.Side(rows, to_frame(columns, features), values)
        return evaluation.predictions(estimator, side, task, labels)

    table = pq.read_table(request["snapshot"])
    found = compare(judge, request["champion"], table, rule, digest)
    write_atomic(output / "comparison.json", to_json(found))


def _features(spec: dict[str, Any]) -> list[Any]:
    from mlops_assets.scoring.schema import Feature

    outside = {*spec["data"]["key"], spec["data"]["target"]}
    return [
        Feature.from_dict({"name": name, **column})
        for name, column in spec["data"]["columns"].items()
        if name not in outside and column["feature"]
    ]


def _fit(source: Any, training: Any, parameters: dict[str, Any]) -> Any:
    if source.train is not None:
        estimator = source.train(training.frame, training.target, parameters)
        _require_estimator(estimator, "train", ("predict",))
        return estimator
    estimator = source.build(parameters)
    _require_estimator(estimator, "build", ("fit", "predict"))
    return estimator.fit(training.frame, training.target)


def _require_estimator(found: Any, function: str, methods: tuple[str, ...]) -> None:
    if isinstance(found, type) or not all(hasattr(found, method) for method in methods):
        shown = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise TrainingProblem(
            "not_an_estimator",
            f"train.py: {function}() returned {shown}, which is no scikit-learn estimator "
            f"(an object with {' and '.join(methods)})",
        )


def _labels(task: str, training: Any, holdout: Any, estimator: Any) -> Any:
    """All labels, sorted: those of the estimator, and any that the rows hold beside them."""
    import numpy as np

    if task == "regression":
        return np.array([])
    known = [training.target, holdout.target]
    if hasattr(estimator, "classes_"):
        known.append(np.asarray(estimator.classes_))
    return np.unique(np.concatenate(known))


@contextlib.contextmanager
def _own_errors(source: Path) -> Iterator[None]:
    """Turn what the model's code raises into one sentence with its place."""
    try:
        yield
    except TrainingProblem:
        raise
    except SystemExit as error:
        place, frames = own_frames(error, source)
        message = f"{place}: train.py calls sys.exit({error.code!r}); raise an exception instead"
        raise TrainingProblem("exit", message, frames) from None
    except Exception as error:
        place, frames = own_frames(error, source)
        where = place or "fitting or predicting with the estimator of train.py"
        message = f"{where}: {type(error).__name__}: {error}"
        raise TrainingProblem("raised", message, frames or traceback.format_exc()) from None


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 4)
        self._last = now


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
