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

#: A number or label, and a classifier's probabilities; None where the model has no answer.
Answer = list[Any] | None


@dataclasses.dataclass
class Found:
    """How far two models are apart, over all rows."""

    #: Whether the answers are labels.
    classifies: bool
    #: Greatest |a - b| / max(1, |a|) of two numbers, a the pickle's.
    max_difference: float = 0.0
    #: Rows with a number beyond the tolerance, another label, or an answer of one model alone.
    differing_rows: int = 0
    #: Rows with another label.
    differing_labels: int = 0
    #: Rows that only one of the two has an answer for.
    one_sided: int = 0
    #: Where the labels differ, counted from 0.
    label_rows: list[int] = dataclasses.field(default_factory=list)

    def add(self, row: int, ours: Answer, theirs: Answer, tolerance: float) -> None:
        """Look at one row.

        Args:
            row: its number.
            ours: the pickle's answer.
            theirs: ONNX's.
            tolerance: how far apart two numbers may be.
        """
        if ours is None or theirs is None:
            if (ours is None) != (theirs is None):
                self.one_sided += 1
                self.differing_rows += 1
            return
        numbers, label = difference(ours, theirs, self.classifies)
        self.max_difference = max(self.max_difference, numbers)
        if label:
            self.differing_labels += 1
            if len(self.label_rows) < MOST_NAMED:
                self.label_rows.append(row)
        if label or numbers > tolerance:
            self.differing_rows += 1


def difference(ours: list[Any], theirs: list[Any], classifies: bool) -> tuple[float, bool]:
    """The greatest difference of two answers' numbers, and whether the labels differ."""
    (value, shares), (other, other_shares) = ours, theirs
    if not classifies:
        return apart(value, other), False
    label = type(value) is not type(other) or value != other
    if (shares is None) != (other_shares is None):
        raise ValueError("one of the two has no probabilities")
    pairs = zip(shares or (), other_shares or (), strict=True)
    return max((apart(a, b) for a, b in pairs), default=0.0), label


def apart(ours: float, theirs: float) -> float:
    """|a - b| / max(1, |a|)."""
    return abs(ours - theirs) / max(1.0, abs(ours))


def answers(model: Model, columns: Mapping[str, Sequence[Any]], rows: int) -> list[Answer]:
    """What a model answers to each of n rows; None for those it refuses, one by one."""
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
            raise ModuleNotFoundError(f"no {name} where ONNX is served", name=name)
        return None


def measure(folder: Path, tolerance: float) -> Found:
    """Score every row of a folder with its ``model.onnx``, and compare."""
    from mlops_assets.scoring.schema import Schema
    from mlops_assets.scoring.session import Session

    schema = Schema.from_manifest(json.loads((folder / MANIFEST).read_bytes()))
    session = Session((folder / MODEL).read_bytes(), schema)
    found, row = Found(schema.labels is not None), 0
    for chunk in _chunks(folder / ROWS):
        theirs = answers(session, chunk["columns"], chunk["rows"])
        for ours, other in zip(chunk["answers"], theirs, strict=True):
            found.add(row, ours, other, tolerance)
            row += 1
    return found


def _chunks(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def main(folder: str, tolerance: str) -> None:
    """Measure and print; the process must not have imported what it blocks."""
    sys.meta_path.insert(0, Blocked)  # type: ignore[arg-type]
    had = sorted(BLOCKED & sys.modules.keys())
    if had:
        raise RuntimeError(f"already imported: {', '.join(had)}")
    found = measure(Path(folder), float(tolerance))
    print(json.dumps(dataclasses.asdict(found)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
