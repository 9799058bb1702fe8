"""The training process: ``python -m mlops_assets.training.runner REQUEST.json``.

Started by the orchestrator through Dagster Pipes, on a laptop or elsewhere. The request says what
to train or compare; everything that is made lies in its ``output`` folder, and on failure
``error.json`` says what went wrong, in one sentence and the model's own frames.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from mlops_assets.files import read_json, to_json, write_atomic
from mlops_assets.training import guard
from mlops_assets.training.errors import TrainingProblem, fail

Log = Callable[[str], None]
#: A comparison has no model.yaml to say how long it may take.
COMPARE_SECONDS = 3600


def main(path: str) -> int:
    """Do what a request file says; returns the exit code."""
    request = read_json(Path(path))
    output = Path(request["output"])
    parent = os.environ.get("MLOPS_RUN_PROCESS")
    if parent:
        guard.end_with_parent(int(parent))
    if "spec" in request:
        seconds = request["spec"]["timeout_seconds"]
        message = f"training was ended after timeout_seconds of model.yaml ({seconds} s)"
    else:
        seconds = COMPARE_SECONDS
        message = f"the comparison was ended after {seconds} s"
    with _logged() as log:
        try:
            with guard.time_limit(
                seconds, output, lambda stack: fail(output, "timeout", message, stack)
            ):
                _do(request, output, log)
        except TrainingProblem as problem:
            fail(output, problem.kind, str(problem), problem.frames)
            return 1
        except Exception as error:
            fail(output, "internal", f"{type(error).__name__}: {error}", traceback.format_exc())
            return 1
    return 0


def _do(request: dict[str, Any], output: Path, log: Log) -> None:
    started = time.perf_counter()
    gc.disable()  # what imports make stays: looking through it again and again takes a tenth
    if request["mode"] == "compare":
        from mlops_assets.training.compare import compare_versions

        write_atomic(output / "comparison.json", to_json(compare_versions(request)))
    else:
        from mlops_assets.training import job

        job.train(request, output, log, started)


@contextlib.contextmanager
def _logged() -> Generator[Log]:
    """Send log records, and what train.py prints, to the run's log as they come."""
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield lambda line: print(line, file=sys.stderr)
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        root = logging.getLogger()
        root.addHandler(guard.LogHandler(pipes.log))
        root.setLevel(logging.INFO)
        logging.getLogger("matplotlib").setLevel(logging.WARNING)
        warnings.formatwarning = guard.format_warning
        out, err = guard.Lines(pipes.log.info), guard.Lines(pipes.log.warning)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                yield pipes.log.info
            finally:
                out.end()
                err.end()


if __name__ == "__main__":
    guard.leave(main(sys.argv[1]))
