"""Where training runs: in a process of its own, from the exported source of one commit."""

from __future__ import annotations

import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from mlops_assets.files import read_json, write_atomic
from mlops_assets.training import guard

#: What ends a process from outside; another signal is a crash of its own.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

RunContext = dg.AssetExecutionContext | dg.AssetCheckExecutionContext


class TrainingError(Exception):
    """Training ended without a model; the message is the child's own, or how it ended."""


class TrainingKilledError(TrainingError):
    """Somebody, or the system, ended the training process; the same again may succeed."""


class Training(dg.ConfigurableResource, ABC):  # pyright: ignore[reportMissingTypeArgument]
    """Runs the training process and waits for it."""

    @abstractmethod
    def run(self, context: RunContext, request: dict[str, Any], output: Path) -> None:
        """Run one request of ``mlops_assets.training.runner``; its files appear in ``output``.

        The child's log lines reach the run's log as they come; an interrupted run ends the child.

        Raises:
            TrainingKilledError: the child was ended from outside.
            TrainingError: with the child's own message.
        """


class LocalTraining(Training):
    """A child process on this machine, through Dagster Pipes."""

    def run(self, context: RunContext, request: dict[str, Any], output: Path) -> None:
        """See Training.run."""
        path = output.with_name(f"{output.name}.request.json")
        # As it is: the order of data.columns is the order of the training frame.
        write_atomic(path, json.dumps({**request, "output": str(output)}, indent=2))
        variables = guard.variables(os.getpid(), output.parents[1].with_name("matplotlib"))
        client = dg.PipesSubprocessClient(env=variables, cwd=str(output.parent))
        command = [sys.executable, "-P", "-m", "mlops_assets.training.runner", str(path)]
        try:
            client.run(context=context.op_execution_context, command=command)
        except DagsterPipesExecutionError as error:
            code = str(error).rpartition("code ")[2].rstrip(".")
            raise error_of(output, int(code) if code.lstrip("-").isdigit() else 0) from None
        if not has_result(output, request):  # train.py ended the process, with exit code 0
            raise error_of(output, 0)


def has_result(output: Path, request: dict[str, Any]) -> bool:
    """Whether a training process has come to its end: this file is its last."""
    wanted = "comparison.json" if request["mode"] == "compare" else "evidence.json"
    return (output / wanted).is_file()


def error_of(output: Path, code: int) -> TrainingError:
    """What a training process says about itself; how it ended, where it says nothing.

    Args:
        output: its output folder.
        code: its exit code; negative for the signal that ended it.
    """
    path = output / "error.json"
    if path.is_file():
        found = read_json(path)
        return TrainingError(f"{found['message']}\n{found.get('traceback') or ''}".rstrip())
    hang = output / "timeout.txt"
    if hang.is_file() and hang.stat().st_size:
        text = hang.read_text(encoding="utf-8")
        return TrainingError(f"timeout_seconds of model.yaml is over\n{text}")
    if code < 0:
        by = signal.Signals(-code)
        hint = "; the machine may have run out of memory" if by == signal.SIGKILL else ""
        kind = TrainingKilledError if by in FROM_OUTSIDE else TrainingError
        return kind(f"the training process was ended by {by.name}{hint}")
    return TrainingError(
        f"the training process ended without a result or an error (exit code {code})"
    )
