"""What is wrong with the ground that the platform stands on, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be, or that could not be looked at."""

    #: ``unknown``: not checked; the cause says why.
    severity: Literal["error", "warning", "unknown"]
    place: str
    cause: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}" + (f"; {self.mend}" if self.mend else "")
