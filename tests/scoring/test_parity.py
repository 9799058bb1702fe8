from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.files import to_json
from mlops_assets.scoring import parity
from mlops_assets.scoring.parity import Found, answers
from tests.bundles import NUMBERS
from tests.onnx_models import total

COMMAND = [sys.executable, "-P", "-m", "mlops_assets.scoring.parity"]


def folder_of(path: Path, model: bytes, rows: list[dict[str, Any]], labels: Any = None) -> Path:
    """What the training process writes."""
    manifest = {
        "model": "tiny",
        "task": "regression",
        "target": "y",
        "features": [feature.to_dict() for feature in NUMBERS],
        "labels": labels,
    }
    (path / parity.MANIFEST).write_text(to_json(manifest))
    (path / parity.MODEL).write_bytes(model)
    (path / parity.ROWS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chunk(values: list[Any], a: list[Any], b: list[Any]) -> dict[str, Any]:
    answers = [None if value is None else [value, None] for value in values]
    return {"columns": {"a": a, "b": b}, "rows": len(a), "answers": answers}


def run(folder: Path, tolerance: str = "1e-4") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, str(folder), tolerance], capture_output=True, text=True, check=False
    )


def test_every_row_is_scored_in_a_process_without_training_s_packages(tmp_path: Path) -> None:
    rows = [chunk([3.0, 5.5], [1.0, 2.5], [2, 3]), chunk([10.002], [4.0], [6])]
    done = run(folder_of(tmp_path, total(NUMBERS), rows))
    assert done.returncode == 0, done.stderr
    found = Found(**json.loads(done.stdout))
    assert (found.rows, found.differing_rows, found.one_sided) == (3, 1, 0)
    assert found.max_difference == pytest.approx(0.0002, rel=1e-2)
    assert not found.agrees(1e-4, 0.0)
    assert found.agrees(1e-3, 0.0)


def test_a_model_with_another_offset_is_caught(tmp_path: Path) -> None:
    rows = [chunk([3.0, 5.5], [1.0, 2.5], [2, 3])]
    done = run(folder_of(tmp_path, total(NUMBERS, 0.001), rows))
    assert Found(**json.loads(done.stdout)).differing_rows == 2


@pytest.mark.parametrize("package", sorted(parity.BLOCKED))
def test_training_s_packages_cannot_be_imported(package: str) -> None:
    code = (
        "import sys; from mlops_assets.scoring import parity\n"
        "sys.meta_path.insert(0, parity.Blocked)\n"
        f"try:\n    import {package}\nexcept ModuleNotFoundError as error:\n    print(error)\n"
        "import onnxruntime, numpy, msgspec\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{package} is not there where ONNX is served\n"


def test_a_process_that_has_them_already_proves_nothing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, total(NUMBERS), [chunk([3.0], [1.0], [2])])
    code = (
        f"import pandas; from mlops_assets.scoring import parity; parity.main({str(folder)!r}, '1')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RuntimeError: imported all the same: " in done.stderr
    assert "pandas" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    done = run(folder_of(tmp_path, b"none", [chunk([3.0], [1.0], [2])]))
    assert done.returncode == 1
    assert "IntegrityError: model.onnx: onnxruntime cannot load it" in done.stderr


class Picky:
    """Refuses a negative number, and with it the whole table."""

    def run(self, columns: Any, _: int) -> tuple[list[Any], Any]:
        if min(columns["a"]) < 0:
            raise ValueError("negative")
        return [2 * a for a in columns["a"]], [[a, 1 - a] for a in columns["a"]]

    def run_row(self, _: Any) -> tuple[list[Any], Any]:
        raise AssertionError("not asked")


def test_rows_that_are_refused_have_no_answer_and_the_others_have() -> None:
    found = answers(Picky(), {"a": [0.5, -1.0, 0.25]}, 3)
    assert found == [[1.0, [0.5, 0.5]], None, [0.5, [0.25, 0.75]]]


def test_both_may_refuse_a_row_but_not_one_alone() -> None:
    found = Found()
    found.add(None, None, classifies=False, tolerance=0.1)
    assert found.agrees(0.0, 0.0)
    found.add(None, [1.0, None], classifies=False, tolerance=0.1)
    found.add([1.0, None], None, classifies=False, tolerance=0.1)
    assert (found.rows, found.one_sided, found.differing_rows) == (3, 2, 2)
    assert not found.agrees(0.9, 0.9)
    assert str(found) == (
        "greatest difference 0, 2 of 3 rows differ, 2 have an answer of one of the two alone"
    )


def test_labels_may_differ_in_a_share_of_the_rows() -> None:
    found = Found()
    for row in range(1000):
        theirs = "b" if row == 7 else "a"
        found.add(["a", [0.5, 0.5]], [theirs, [0.5, 0.5]], classifies=True, tolerance=0.1)
    assert found.label_rows == [7]
    assert found.agrees(0.0, 0.001)
    assert not found.agrees(0.0, 0.0009)
    assert "1 of 1000 rows differ, 1 in their label" in str(found)


def test_probabilities_of_one_model_alone() -> None:
    with pytest.raises(ValueError, match="one of the two has no probabilities"):
        Found().add(["a", None], ["a", [1.0]], classifies=True, tolerance=0.1)


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.tuples(numbers, numbers), min_size=1), st.floats(0, 0.9))
def test_the_greatest_difference_decides(pairs: list[tuple[float, float]], limit: float) -> None:
    found = Found()
    for ours, theirs in pairs:
        found.add([ours, None], [theirs, None], classifies=False, tolerance=limit)
    within = [abs(a - b) <= limit * max(1.0, abs(a)) for a, b in pairs]
    assert found.agrees(limit, 0.0) == (found.differing_rows == 0)
    for (a, b), inside in zip(pairs, within, strict=True):
        if not math.isclose(abs(a - b), limit * max(1.0, abs(a)), rel_tol=1e-9):
            assert inside or found.differing_rows
    assert found.differing_rows <= found.rows == len(pairs)
