from __future__ import annotations

import json

import pytest

from mlops_assets.files import read_json
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY
from tests.training.requests import (
    CLASSIFIER_PY,
    CLASSIFIER_YAML,
    dear_or_cheap,
    flats,
    with_target,
)


def comparison(case):
    return read_json(case.output / "comparison.json")


def test_a_worse_candidate_shows_as_worse_on_the_same_rows(trained) -> None:
    champion = trained(TRAIN_PY).bundle()
    case = trained(WORSE_TRAIN_PY, champion=champion)
    found = comparison(case)
    assert (found["status"], found["reason"], found["version"]) == ("compared", "", 1)
    assert found["rows"] == case.evidence["holdout"]["rows"]
    assert found["holdout"] == case.evidence["holdout"]["digest"]
    r2 = found["metrics"]["r2"]
    assert r2["candidate"] == case.evidence["metrics"]["r2"]["value"]
    assert r2["champion"] == read_evidence(champion)["metrics"]["r2"]["value"]
    assert r2["difference"]["upper"] < -0.5


def read_evidence(champion):
    with open(f"{champion['bundle']}/evidence.json") as file:  # noqa: PTH123
        return json.load(file)


def test_only_rows_that_both_hold_out_count(trained) -> None:
    champion = trained(TRAIN_PY, yaml=MODEL_YAML + "split: {holdout: 0.5, salt: x}\n").bundle()
    case = trained(TRAIN_PY, champion=champion, table=flats(200))
    found = comparison(case)
    assert found["status"] == "compared"
    assert 10 <= found["rows"] < 0.75 * case.evidence["holdout"]["rows"]


def test_champion_of_other_classes(trained) -> None:
    champion = trained(CLASSIFIER_PY, yaml=CLASSIFIER_YAML, table=dear_or_cheap()).bundle()
    values = dear_or_cheap()["rent"].to_pylist()
    three = with_target(flats(), ["odd" if i % 3 == 0 else v for i, v in enumerate(values)])
    yaml = CLASSIFIER_YAML.replace("task: binary", "task: multiclass").replace(
        "[dear, cheap]", "[dear, cheap, odd]"
    )
    # Another task is not comparable; the same task with another class is.
    found = comparison(trained(CLASSIFIER_PY, yaml=yaml, table=three, champion=champion))
    assert found["status"] == "incomparable"
    assert found["reason"] == "its task is binary, the candidate's is multiclass"
    two = trained(CLASSIFIER_PY, yaml=yaml, table=dear_or_cheap()).bundle()
    found = comparison(trained(CLASSIFIER_PY, yaml=yaml, table=three, champion=two))
    assert found["status"] == "compared"
    assert (
        found["metrics"]["accuracy"]["champion"] < found["metrics"]["accuracy"]["candidate"] + 0.5
    )
    numbers = with_target(flats(), [int(v == "dear") for v in values])
    yaml = CLASSIFIER_YAML.replace("{type: string, categories: [dear, cheap]}", "{type: integer}")
    found = comparison(trained(CLASSIFIER_PY, yaml=yaml, table=numbers, champion=champion))
    assert found["status"] == "incomparable"


@pytest.mark.parametrize("file", ["model.pkl", "evidence.json", "manifest.json"])
def test_a_changed_champion_is_not_compared_with(trained, file: str) -> None:
    case = trained(TRAIN_PY)
    champion = case.bundle()
    path = case.output / file
    path.write_bytes(path.read_bytes() + b" ")
    found = comparison(trained(TRAIN_PY, champion=champion))
    assert (found["status"], found["rows"], found["metrics"]) == ("incomparable", 0, {})
    assert f"{file}: SHA-256 is" in found["reason"]


def test_a_champion_that_needs_another_column(trained) -> None:
    champion = trained(TRAIN_PY).bundle()
    yaml = MODEL_YAML.replace("    rooms: {type: integer, minimum: 1, maximum: 9}\n", "")
    table = flats().drop_columns(["rooms"])
    found = comparison(trained(TRAIN_PY, yaml=yaml, table=table, champion=champion))
    assert found["status"] == "incomparable"
    assert "rooms" in found["reason"]


def test_a_champion_of_another_target(trained) -> None:
    champion = trained(TRAIN_PY).bundle()
    yaml = MODEL_YAML.replace("target: rent", "target: area").replace("alpha: 0.1", "alpha: 0.2")
    found = comparison(trained(TRAIN_PY, yaml=yaml, champion=champion))
    assert found["reason"] == "its target is another column than the candidate's"


def test_too_few_rows_say_nothing(trained) -> None:
    champion = trained(TRAIN_PY, yaml=MODEL_YAML + "split: {holdout: 0.06, salt: x}\n").bundle()
    found = comparison(trained(TRAIN_PY, champion=champion))
    assert found["status"] == "incomparable"
    assert "rows are in neither's training set" in found["reason"]
