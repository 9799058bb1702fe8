"""What can go wrong in the training process, as its parent reads it."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Literal

from mlops_assets.files import to_json, write_atomic

Kind = Literal["raised", "exit", "not_an_estimator", "timeout", "import", "data", "internal"]


class TrainingProblem(Exception):  # noqa: N818  (TrainingError is what its parent raises)
    """Training cannot go on; the message is one clear sentence for the data scientist."""

    def __init__(self, kind: Kind, message: str, frames: str = "") -> None:
        super().__init__(message)
        self.kind: Kind = kind
        #: The frames of the model's own code, as Python prints them.
        self.frames = frames


class NotConvertedError(Exception):
    """The estimator, or a step of it, has no ONNX form; the message is one sentence."""


def fail(output: Path, kind: Kind, message: str, frames: str) -> None:
    """Write down what went wrong: ``error.json``."""
    content = {"kind": kind, "message": message, "traceback": frames}
    try:
        write_atomic(output / "error.json", to_json(content))
    except OSError as error:  # a full disk: let the log say what went wrong
        print(f"{message}\n{frames}\n{error}", file=sys.stderr)


@contextlib.contextmanager
def own_errors(source: Path, doing: str, kind: Kind = "raised") -> Generator[None]:
    """Turn whatever the model's code raises, SystemExit too, into one sentence with its place.

    Args:
        source: the exported tree; only frames of files below it are the model's own.
        doing: stands for the place where the stack has no such frame.
        kind: of the problem that an exception becomes.
    """
    try:
        yield
    except TrainingProblem:
        raise
    except SystemExit as error:
        place, frames = own_frames(error, source)
        message = f"{place or doing}: train.py calls sys.exit({error.code!r}); raise an exception"
        raise TrainingProblem("exit", f"{message} instead", frames) from None
    except BaseException as error:  # a train.py may raise KeyboardInterrupt
        place, frames = own_frames(error, source)
        whole = "".join(traceback.format_exception_only(error))
        first = whole.strip().splitlines()[-1 if isinstance(error, SyntaxError) else 0]
        message = f"{place or doing}: {first}"
        raise TrainingProblem(
            kind, message, f"{frames}{whole}" if frames else traceback.format_exc()
        ) from None


def own_frames(error: BaseException, source: Path) -> tuple[str, str]:
    """Where below ``source`` an error came from: ``train.py:12``, and the frames there."""
    if isinstance(error, SyntaxError) and _is_below(error.filename, source):
        return f"{Path(error.filename or '').name}:{error.lineno}", ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_below(f.filename, source)]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return place, "".join(traceback.format_list(frames))


def _is_below(file: str | None, source: Path) -> bool:
    return file is not None and Path(file).is_relative_to(source)
