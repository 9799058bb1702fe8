"""Does ``model.onnx`` answer as the pickle did, where nothing but serving's packages can be had?

``python -m mlops_assets.scoring.parity FOLDER TOLERANCE`` reads ``manifest.json``, ``model.onnx``
and ``rows.jsonl`` there, scores with the server's own session, and prints one line of JSON: a
``Found``. A line of the rows is ``{"columns": {name: [value]}, "rows": n, "answers": [answer]}``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_assets.scoring.predictor import Model

#: What a process that serves from ONNX does without.
BLOCKED = frozenset({"sklearn", "pandas", "skl2onnx", "onnx", "scipy", "pyarrow", "cloudpickle"})
MANIFEST, MODEL, ROWS = "manifest.json", "model.onnx", "rows.jsonl"
#: Rows with another label that are named.
MOST_NAMED = 1000

#: ``[number or label, probabilities or None]``; None where the model has no answer.
Answer = list[Any] | None


@dataclasses.dataclass
class Found:
    """How far two models are apart."""

    #: Rows that both were asked about.
    rows: int = 0
    #: Greatest difference of two numbers, as ``apart`` has it.
    max_difference: float = 0.0
    #: Rows with a number beyond the tolerance, another label, or an answer of one model alone.
    differing_rows: int = 0
    #: Rows with another label.
    differing_labels: int = 0
    #: Rows that only one of the two has an answer for.
    one_sided: int = 0
    #: Where the labels differ, counted from 0.
    label_rows: list[int] = dataclasses.field(default_factory=list)

    def add(self, ours: Answer, theirs: Answer, classifies: bool, tolerance: float) -> None:
        """Look at the next row.

        Args:
            ours: the pickle's answer.
            theirs: ONNX's.
            classifies: whether they are labels.
            tolerance: how far apart two numbers may be.
        """
        self.rows += 1
        if ours is None or theirs is None:
            if ours is not theirs:
                self.one_sided += 1
                self.differing_rows += 1
            return
        numbers, label = _difference(ours, theirs, classifies)
        self.max_difference = max(self.max_difference, numbers)
        if label:
            self.differing_labels += 1
            if len(self.label_rows) < MOST_NAMED:
                self.label_rows.append(self.rows - 1)
        if label or numbers > tolerance:
            self.differing_rows += 1

    def agrees(self, tolerance: float, labels: float) -> bool:
        """Whether the two answer alike.

        Args:
            tolerance: the greatest difference of two numbers.
            labels: the greatest share of rows with another label.
        """
        return (
            self.max_difference <= tolerance
            and self.differing_labels <= labels * self.rows
            and not self.one_sided
        )

    def __str__(self) -> str:
        parts = [
            f"greatest difference {self.max_difference:.2g}",
            f"{self.differing_rows} of {self.rows} rows differ",
        ]
        if self.differing_labels:
            parts.append(f"{self.differing_labels} in their label")
        if self.one_sided:
            parts.append(f"{self.one_sided} have an answer of one of the two alone")
        return ", ".join(parts)


def _difference(ours: list[Any], theirs: list[Any], classifies: bool) -> tuple[float, bool]:
    """The greatest difference of two answers' numbers, and whether the labels differ."""
    (value, shares), (other, other_shares) = ours, theirs
    if not classifies:
        return apart(value, other), False
    if (shares is None) != (other_shares is None):
        raise ValueError("one of the two has no probabilities")
    pairs = zip(shares or (), other_shares or (), strict=True)
    return max((apart(a, b) for a, b in pairs), default=0.0), value != other


def apart(ours: float, theirs: float) -> float:
    """How far a number is from ours: |a - b| / max(1, |a|)."""
    return abs(ours - theirs) / max(1.0, abs(ours))


def answers(model: Model, columns: Mapping[str, Sequence[Any]], rows: int) -> list[Answer]:
    """What a model answers to each of n rows; None for each that it has no answer for."""
    try:
        values, shares = model.run(columns, rows)
    except Exception:
        if rows == 1:
            return [None]
        alone = ({name: [c[row]] for name, c in columns.items()} for row in range(rows))
        return [answer for one in alone for answer in answers(model, one, 1)]
    return [list(pair) for pair in zip(values, shares or [None] * rows, strict=True)]


class Blocked:
    """An import finder that has nothing of BLOCKED, whatever is installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG004
        """Refuse a blocked package, know nothing of the others."""
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is not there where ONNX is served", name=name)
        return None


def measure(folder: Path, tolerance: float) -> Found:
    """Score every row of a folder with its ``model.onnx``, and compare."""
    from mlops_assets.scoring.schema import Schema
    from mlops_assets.scoring.session import Session

    schema = Schema.from_manifest(json.loads((folder / MANIFEST).read_bytes()))
    session = Session((folder / MODEL).read_bytes(), schema)
    found, classifies = Found(), schema.labels is not None
    for chunk in _chunks(folder / ROWS):
        theirs = answers(session, chunk["columns"], chunk["rows"])
        for ours, other in zip(chunk["answers"], theirs, strict=True):
            found.add(ours, other, classifies, tolerance)
    return found


def _chunks(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def main(folder: str, tolerance: str) -> None:
    """Measure and print."""
    sys.meta_path.insert(0, Blocked)
    found = measure(Path(folder), float(tolerance))
    had = sorted(BLOCKED & sys.modules.keys())
    if had:  # by whatever was imported before this line could block it
        raise RuntimeError(f"imported all the same: {', '.join(had)}")
    print(json.dumps(dataclasses.asdict(found)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
