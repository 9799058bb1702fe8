"""The fitted estimator as a file that loads in a process which never saw the repository."""

from __future__ import annotations

import importlib.metadata
import pickletools
import re
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from mlops_assets.files import to_json, write_atomic
from mlops_assets.monitoring.bins import name_of, numeric
from mlops_assets.scoring.schema import Schema
from mlops_assets.training.data import SAMPLE_ROWS, Side, sample_records
from mlops_assets.training.errors import TrainingProblem
from mlops_assets.training.metrics import Judged
from mlops_assets.training.source import Source

#: Read by every Python from 3.8 on.
PROTOCOL = 5
#: What every version needs for its pickle to be loaded and asked.
ALWAYS = ("scikit-learn", "pandas", "cloudpickle")


def write_model(estimator: Any, source: Source, path: Path) -> None:
    """Pickle an estimator; the model's own modules go into it by value."""
    for module in source.modules():
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(estimator, protocol=PROTOCOL)
    except Exception as error:  # whatever the __reduce__ of an estimator's part raises
        raise TrainingProblem(
            "raised",
            f"the estimator cannot be pickled: {error}; keep open files, connections, locks and "
            "generators out of it, and out of the modules it uses",
            traceback.format_exc(),
        ) from None
    write_atomic(path, data)


def write_sample(estimator: Any, side: Side, schema: Schema, without: set[int], path: Path) -> None:
    """A few held-out rows as records, with what the estimator answers to just these.

    Args:
        estimator: fitted.
        side: the rows held out.
        schema: of the version.
        without: rows for which ONNX has another label.
        path: of ``sample.json``.
    """
    rows = [row for row in range(len(side.target)) if row not in without][:SAMPLE_ROWS]
    frame = side.frame.iloc[rows]
    classifies = schema.labels is not None and hasattr(estimator, "predict_proba")
    content = {
        "input": sample_records(side, schema.names, rows),
        "output": np.asarray(estimator.predict(frame)).tolist(),
        "probabilities": np.asarray(estimator.predict_proba(frame)).tolist()
        if classifies
        else None,
    }
    write_atomic(path, to_json(content))


def write_requirements(model: Path, also: Sequence[str], path: Path) -> None:
    """The exact versions of the packages that a version needs, and of what these need.

    Args:
        model: the pickle.
        also: packages beside those that loading it needs.
        path: of ``requirements.txt``.
    """
    needed = {*ALWAYS, *also, *_distributions(_modules(model.read_bytes()))}
    found: dict[str, str] = {}
    while needed:
        name = needed.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform
        found[name] = distribution.version
        required = {_required(line) for line in distribution.requires or []}
        needed |= {r for r in required if r and r not in found}
    lines = [f"{name}=={version}" for name, version in sorted(found.items())]
    write_atomic(path, "\n".join(lines) + "\n")


def _required(line: str) -> str | None:
    """The package that a requirement names; None for one of an extra."""
    if "extra ==" in line:
        return None
    match = re.match(r"[A-Za-z0-9._-]+", line)
    return re.sub(r"[-_.]+", "-", match.group()).lower() if match else None


def _modules(data: bytes) -> set[str]:
    """Top-level names of the modules that a pickle imports, read without loading it."""
    found: set[str] = set()
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            found.add(str(argument).split()[0].partition(".")[0])
        elif opcode.name == "STACK_GLOBAL" or not isinstance(argument, str):
            continue
        else:
            texts.append(argument)
    # STACK_GLOBAL takes its module from the stack, so any text may be one: those that are modules
    # which the process has loaded are.
    return found | {t.partition(".")[0] for t in texts if t in sys.modules}


def _distributions(modules: set[str]) -> set[str]:
    known = {"sklearn", "numpy", "scipy", "pandas", "joblib", "cloudpickle", "builtins"}
    others = modules - known - set(sys.stdlib_module_names)
    if not others:
        return set()
    by_module = importlib.metadata.packages_distributions()
    return {re.sub(r"[-_.]+", "-", d).lower() for m in others for d in by_module.get(m, [])}


def plain_labels(estimator: Any, labels: np.ndarray[Any, Any]) -> list[Any]:
    """A classifier's labels as JSON values, in the order of its probabilities."""
    return np.asarray(getattr(estimator, "classes_", labels)).tolist()


def deciles(judged: Judged) -> list[float] | None:
    """The nine that part a regression's predictions on the holdout; None for a classifier."""
    if judged.labels is not None:
        return None
    return np.quantile(judged.predicted, np.arange(1, 10) / 10).tolist()


def distribution(judged: Judged) -> dict[str, Any]:
    """How the predictions are distributed, for whoever compares later ones with them."""
    rows = len(judged.predicted)
    if judged.labels is not None:
        counts = Counter(name_of(label) for label in judged.predicted.tolist())
        return {"rows": rows, "labels": {name_of(v): 0 for v in judged.labels.tolist()} | counts}
    bins = numeric(judged.predicted)
    assert bins.edges is not None, "numbers have edges"
    return {
        "rows": rows,
        "edges": bins.edges.tolist(),
        "counts": bins.counts.tolist(),
        "mean": bins.mean,
        "deviation": bins.deviation,
    }
