"""Does a bundle load in a process that knows nothing else, and predict as it did in training?

``python -m mlops_assets.scoring.verify BUNDLE --digest D`` prints one line of JSON
``{"mismatched": [file], "loads": bool, "error": str | null, "max_difference": float | null}`` and
exits with 0 if all is well, 1 if not. With ``--wait`` the heavy imports are made first and
``{"bundle": path, "digest": str}`` is then read as one line from stdin, so that a caller
can hide their time behind its own work.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlops_assets.files import digest_file
from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.parity import apart
from mlops_assets.scoring.predictor import MANIFEST, SAMPLE, Predictor, read_manifest

EVIDENCE = "evidence.json"
#: Greatest relative difference of two numbers that count as the same prediction of a pickle.
TOLERANCE = 1e-9


def verify(bundle: Path, digest: str) -> dict[str, Any]:
    """Check every file of a bundle, load its model, and compare with its sample.

    Nothing is loaded if any file is not the one that was registered.
    """
    report: dict[str, Any] = {
        "mismatched": [], "loads": False, "error": None, "max_difference": None
    }  # fmt: skip
    try:
        manifest, _ = read_manifest(bundle, digest)
    except IntegrityError as error:
        return {**report, "mismatched": [MANIFEST], "error": str(error)}
    report["mismatched"] = mismatched(bundle, manifest)
    if report["mismatched"]:
        return {**report, "error": f"changed or missing: {', '.join(report['mismatched'])}"}
    try:
        predictor = Predictor.load(bundle, digest)
        report["loads"] = True
        report["max_difference"] = difference(predictor, bundle)
    except (Exception, SystemExit) as error:  # a model may do anything while it loads
        return {**report, "error": f"{type(error).__name__}: {error}"}
    if report["max_difference"] > tolerance(predictor, bundle):
        report["error"] = f"{SAMPLE}: predictions differ from training's"
    return report


def tolerance(predictor: Predictor, bundle: Path) -> float:
    """How far a version's answers may be from its sample's, which are the pickle's in training."""
    if predictor.format == "pickle":
        return TOLERANCE
    # It was found to keep this.
    return json.loads((bundle / EVIDENCE).read_bytes())["parity"]["tolerance"]


def mismatched(bundle: Path, manifest: dict[str, Any]) -> list[str]:
    """Names of the files that are missing or have another SHA-256 than the manifest says."""
    wrong: list[str] = []
    for name, expected in sorted(manifest["files"].items()):
        path = bundle / name
        if not path.is_file() or digest_file(path) != expected:
            wrong.append(name)
    return wrong


def difference(predictor: Predictor, bundle: Path) -> float:
    """Greatest difference between now and training; labels differ by 1 or not at all.

    A pickle's is relative, that of ONNX as ``parity`` has it.
    """
    measure = _relative if predictor.format == "pickle" else apart
    sample = json.loads((bundle / SAMPLE).read_bytes())
    answer = predictor.predict(sample["input"])
    pairs = list(zip(answer.values, sample["output"], strict=True))
    if sample.get("probabilities") is not None:
        for now, then in zip(answer.probabilities or [], sample["probabilities"], strict=True):
            pairs += zip(now, then, strict=True)
    return max((_distance(now, then, measure) for now, then in pairs), default=0.0)


def _distance(now: Any, then: Any, measure: Callable[[float, float], float]) -> float:
    if type(now) is float or type(then) is float:
        return measure(then, now)
    return 0.0 if now == then else 1.0


def _relative(then: float, now: float) -> float:
    return abs(now - then) / max(abs(now), abs(then), 1e-12)


def _import_ahead() -> None:
    for name in ("numpy", "onnxruntime", "pandas", "sklearn.base", "sklearn.pipeline"):
        importlib.import_module(name)


def main() -> int:
    """Read the arguments, verify, print the report."""
    parser = argparse.ArgumentParser(prog="python -m mlops_assets.scoring.verify")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--digest")
    parser.add_argument("--wait", action="store_true", help="read bundle and digest from stdin")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    bundle, digest = options.bundle, options.digest
    if options.wait:
        _import_ahead()
        line = sys.stdin.readline()
        if not line:
            return 0  # the caller ended without a question
        question = json.loads(line)
        bundle, digest = Path(question["bundle"]), question["digest"]
    elif bundle is None or digest is None:
        parser.error("the bundle's folder is missing, or its digest")
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is no part of the report
        report = verify(bundle, digest)
    print(json.dumps(report), flush=True)
    return 1 if report["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
