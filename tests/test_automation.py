"""The conditions, on real assets: what changes is made once, and what is closed waits."""

import json

import pytest

from tests.conftest import Platform
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, rows

RELEASED = ["dataset", "package", "registered_model", "trained_model"]
DEPLOYED = ["production_endpoint", "staging_endpoint"]
BROKEN = "def build(params):\n    raise ValueError('no idea')\n"


def environment(platform: Platform, name: str, **changes: object) -> None:
    """Change an environment's file; takes effect as after a reload of the code location."""
    path = platform.profile.file_of(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    platform.reload()


def test_nothing_is_made_before_anything_is_seen(platform: Platform) -> None:
    assert platform.tick() == []


def test_what_is_seen_is_released_and_deployed(platform: Platform) -> None:
    platform.see()
    assert platform.settle() == [RELEASED, DEPLOYED]
    assert (platform.serves("staging"), platform.serves("production")) == (1, 1)
    platform.see()
    assert platform.settle() == []


def test_another_train_py_skips_the_dataset(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(TRAIN_PY + "\n# the same model\n")
    platform.see()
    assert platform.settle() == [RELEASED[1:], DEPLOYED]
    assert platform.serves("production") == 2
    platform.data(rows(50, start=200), "more.csv")
    platform.see()
    assert platform.settle() == [RELEASED, DEPLOYED]
    assert platform.serves("production") == 3
    # A revert: the version is known, its release is a new one.
    platform.repository.train_py(TRAIN_PY, "revert")
    platform.data("", "more.csv").unlink()
    platform.see()
    assert platform.settle() == [RELEASED, DEPLOYED]
    assert platform.serves("production") == 1
    assert len(platform.registry.versions("rent")) == 3


def test_a_broken_train_py_is_tried_once(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(BROKEN)
    platform.see()
    assert platform.settle() == [RELEASED[1:]]
    assert not platform.result.success
    assert platform.serves("production") == 1
    platform.repository.write("mlops_assets/models/rent/model.yaml", "owner: [")
    platform.repository.commit("not readable")
    # What is loaded here names the assets; what is released is the commit.
    platform.repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML)
    platform.see()
    assert platform.settle() == [RELEASED]
    assert "not readable as YAML" in platform.failures
    platform.repository.train_py(TRAIN_PY)
    platform.see()
    platform.settle()
    assert platform.serves("production") == 1


def test_bad_data_leaves_everything_as_it_was(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.data("flat,area\n1,2\n", "broken.csv")
    platform.see()
    assert platform.settle() == [RELEASED]
    assert not platform.result.success
    platform.repository.train_py(TRAIN_PY + "\n# another\n")
    platform.see()
    # The newest code is trained on the newest snapshot that met the contract.
    assert platform.settle() == [RELEASED[1:], DEPLOYED]
    assert platform.serves("production") == 2


def test_a_worse_model_waits_at_its_gates(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(WORSE_TRAIN_PY)
    platform.see()
    assert platform.settle() == [RELEASED[1:]]
    assert platform.check("quality").passed is False
    assert platform.serves("staging") == 1


def test_one_environment_may_ask_for_more(platform: Platform) -> None:
    gates = {"rent": {"quality": {"r2": {"minimum": 0.99999}}}}
    environment(platform, "production", gates=gates)
    platform.see()
    assert platform.settle() == [RELEASED, ["staging_endpoint"]]
    assert platform.serves("production") is None
    environment(platform, "production", gates={})
    assert platform.settle() == []
    # Asked again, the gate is open, and that is all it takes.
    assert platform.materialize("registered_model")
    assert platform.settle() == [["production_endpoint"]]


def test_production_waits_for_a_person(platform: Platform) -> None:
    environment(platform, "production", approval="required")
    platform.see()
    assert platform.settle() == [RELEASED, ["staging_endpoint"]]
    assert not platform.materialize("production_endpoint")
    assert "version 1 waits for approval" in platform.failures
    by_ada = {"by": "ada", "reason": "looks right"}
    assert platform.materialize("production_approval")
    assert platform.settle() == []
    assert platform.materialize(
        "production_approval", config={"production_approval": {**by_ada, "decision": "rejected"}}
    )
    assert platform.settle() == []
    assert platform.materialize("production_approval", config={"production_approval": by_ada})
    assert platform.settle() == [["production_endpoint"]]
    assert platform.serves("production") == 1


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_rollback_stays_until_the_next_release(platform: Platform, by_hand: bool) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(TRAIN_PY + "\n# second\n")
    platform.see()
    platform.settle()
    assert platform.materialize(
        "production_endpoint", config={"production_endpoint": {"version": 1}}
    )
    assert platform.settle() == []
    assert (platform.serves("staging"), platform.serves("production")) == (2, 1)
    if by_hand:
        assert platform.materialize("production_endpoint")
        assert platform.serves("production") == 2
    else:
        platform.repository.train_py(TRAIN_PY, "revert")
        platform.see()
        assert platform.settle() == [RELEASED[1:], DEPLOYED]
        assert (platform.serves("staging"), platform.serves("production")) == (1, 1)
