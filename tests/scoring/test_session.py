"""An ONNX session: columns of every type in, plain Python out."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mlops_assets.scoring.errors import IntegrityError, ModelError
from mlops_assets.scoring.schema import Feature, Schema
from mlops_assets.scoring.session import Session
from tests.onnx_models import lookup, total

FEATURES = (
    Feature("a", "float", nullable=True),
    Feature("n", "integer"),
    Feature("m", "integer", nullable=True),
    Feature("b", "boolean"),
)
TEXT = Feature("colour", "string", nullable=True)
LABELS = ("blue", "red", "")


def _schema(*features: Feature, labels: tuple[Any, ...] | None = None) -> Schema:
    return Schema("tiny", "regression", "y", features, labels)


def test_one_row_and_many_are_the_same() -> None:
    session = Session(total(FEATURES, 0.5), _schema(*FEATURES))
    rows = [(1.25, 2, 3, True), (-4.0, 0, 1, False), (0.0, 2**30, 7, True)]
    expected = [7.75, -2.5, float(2**30 + 8)]
    columns = dict(zip("anmb", zip(*rows, strict=True), strict=True))
    assert session.run(columns, 3) == (pytest.approx(expected), None)
    for row, value in zip(rows, expected, strict=True):
        assert session.run_row(row) == ([pytest.approx(value)], None)


def test_missing_numbers_are_nan_and_an_answer_that_is_none_is_an_error() -> None:
    session = Session(total(FEATURES), _schema(*FEATURES))
    for row in ((None, 2, 3, True), (1.0, 2, None, True)):
        with pytest.raises(ModelError, match="nan"):
            session.run_row(row)
        with pytest.raises(ModelError, match="NaN"):
            session.run({name: [value] for name, value in zip("anmb", row, strict=True)}, 1)
    assert session.run_row((1.0, 2, 3, True)) == ([7.0], None)  # nothing is left of the rows before


def test_texts_labels_and_probabilities() -> None:
    session = Session(lookup(TEXT, LABELS), _schema(TEXT, labels=LABELS))
    values, probabilities = session.run({"colour": ["red", None, "blue", "é"]}, 4)
    assert values == ["red", "", "blue", ""]
    assert probabilities == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert session.run_row(("blue",)) == (["blue"], [[1, 0, 0]])


def test_several_threads_at_once() -> None:
    session = Session(total(FEATURES), _schema(*FEATURES))
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(200):
            columns = {"a": [number] * 50, "n": [0] * 50, "m": [0] * 50, "b": [False] * 50}
            if session.run(columns, 50)[0] != [number] * 50:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_model_than_the_manifest_describes() -> None:
    with pytest.raises(IntegrityError, match="not those of the manifest"):
        Session(total(FEATURES), _schema(*FEATURES[:2]))
    with pytest.raises(IntegrityError, match=r"model\.onnx: onnxruntime cannot load it"):
        Session(b"no model", _schema(*FEATURES))
