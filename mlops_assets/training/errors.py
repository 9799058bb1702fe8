"""What can go wrong in the training process, as its parent reads it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Literal

Kind = Literal["raised", "exit", "not_an_estimator", "timeout", "import", "data", "internal"]


class TrainingProblem(Exception):
    """Training cannot go on; the message is one clear sentence for the data scientist."""

    def __init__(self, kind: Kind, message: str, frames: str = "") -> None:
        super().__init__(message)
        self.kind: Kind = kind
        #: The frames of the model's own code, as Python prints them.
        self.frames = frames


def own_frames(error: BaseException, source: Path) -> tuple[str, str]:
    """Where below ``source`` an error came from: ``train.py:12``, and the frames there."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(source)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{Path(error.filename).name}:{error.lineno}"
    else:
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return place, "".join(traceback.format_list(frames))
