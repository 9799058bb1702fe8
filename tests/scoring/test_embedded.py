from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from mlops_assets.scoring.embedded import Embedded
from mlops_assets.scoring.errors import IntegrityError, RequestError
from mlops_assets.scoring.table import MAXIMUM_ROWS
from tests.bundles import NUMBERS, Sum, classifier, exported_classifier, regression, write_manifest

ROWS = [{"size": 12.5, "colour": "red"}, {"size": 50.0, "colour": None}]


@pytest.fixture(scope="module")
def penguins(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    made = exported_classifier(tmp_path_factory.mktemp("exported"))
    return Embedded(made.bundle, made.digest)


def test_the_answer_is_the_endpoints(penguins: Embedded) -> None:
    answer = penguins.predict(ROWS)
    assert json.loads(json.dumps(answer)) == answer  # plain Python
    assert answer["predictions"] == ["low", "high"]
    assert [list(row) for row in answer["probabilities"]] == [["high", "low", "mid"]] * 2
    assert answer["probabilities"][1]["high"] > 0.9
    assert set(answer) == {"predictions", "probabilities"}


@pytest.mark.parametrize("make", [exported_classifier, classifier])
def test_columns_are_taken_as_records_are(tmp_path: Path, make: Any) -> None:
    made = make(tmp_path)
    model = Embedded(made.bundle, made.digest)
    expected = model.predict(ROWS)
    frame = pd.DataFrame(ROWS)
    assert model.predict({"size": [12.5, 50.0], "colour": ["red", None]}) == expected
    assert model.predict({"colour": ("red", None), "size": np.array([12.5, 50.0])}) == expected
    assert model.predict(frame) == expected
    assert model.predict(frame.to_dict("records")) == expected  # a missing text is NaN there
    assert model.predict([{"size": np.float64(12.5), "colour": "red"}, ROWS[1]]) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"size": 1.0, "colour": "red"}, {"size": "x", "colour": None}], "row 1, column 'size'"),
        ([{"size": float("nan"), "colour": "red"}], "row 0, column 'size': null"),
        ([{"size": float("inf"), "colour": "red"}], "row 0, column 'size': wants a finite"),
        ([{"size": 1.0}], "row 0: missing column 'colour'"),
        ({"size": [1.0, 2.0], "colour": ["red"]}, "'size' has 2, 'colour' has 1"),
        ({"size": [1.0], "colour": [3]}, "row 0, column 'colour': wants a text, found 3"),
        ({"size": [1.0]}, "missing column 'colour'"),
        ({"size": 1.0, "colour": "red"}, r"column 'size': wants a list .* one row is \[{"),
        ({"size": [], "colour": []}, "no row"),
        ([], "no row"),
        ("size", "wants a list of records"),
        (3, "wants a list of records .* found int"),
        ([3], "row 0: wants an object"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(penguins: Embedded, rows: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        penguins.predict(rows)


def test_values_outside_the_contract_are_warned_of(tmp_path: Path) -> None:
    made = exported_classifier(tmp_path, ranges="warn")
    answer = Embedded(made.bundle, made.digest).predict([{"size": 101.0, "colour": "green"}])
    assert answer["warnings"] == [
        "row 0, column 'size': 101.0 is outside the contract's range 0 to 100",
        "row 0, column 'colour': 'green' is none of the contract's categories",
    ]


def test_there_is_no_limit_to_the_rows(penguins: Embedded) -> None:
    rows = MAXIMUM_ROWS + 1
    assert len(penguins.predict([ROWS[0]] * rows)["predictions"]) == rows
    columns = {"size": np.full(rows, 12.5), "colour": ["red"] * rows}
    assert set(penguins.predict(columns)["predictions"]) == {"low"}


class Noted(Sum):
    """Leaves a line in a file whenever it is loaded."""

    def __init__(self, file: str) -> None:
        super().__init__(0.0)
        self.file = file

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with Path(self.file).open("a") as file:
            file.write("loaded\n")


def test_it_is_loaded_once_by_many_threads_and_not_before(tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    made, loads = regression(tmp_path, 1), tmp_path / "loads"
    (made.bundle / "model.pkl").write_bytes(cloudpickle.dumps(Noted(str(loads))))
    model = Embedded(made.bundle, write_manifest(made.bundle, NUMBERS, None))
    assert not loads.exists()
    answers: list[Any] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        answers.append(model.predict([{"a": float(number), "b": 0}])["predictions"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [[float(number)] for number in range(8)]
    assert loads.read_text() == "loaded\n"


def test_files_that_were_changed_are_not_loaded(tmp_path: Path) -> None:
    made = exported_classifier(tmp_path)
    (made.bundle / "model.pkl").unlink()  # a package leaves out what it does not serve from
    assert Embedded(made.bundle, made.digest).predict(ROWS)
    file = made.bundle / "model.onnx"
    file.write_bytes(file.read_bytes() + b" ")
    model = Embedded(made.bundle, made.digest)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"model\.onnx: SHA-256"):
            model.predict(ROWS)
