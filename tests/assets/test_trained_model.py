import pytest

from tests.conftest import RELEASE, Platform
from tests.repository import MODEL_YAML, TRAIN_PY


@pytest.mark.parametrize(
    ("train_py", "message"),
    [
        ("def build(params):\n    raise ValueError('no idea')\n", "train.py:2"),
        ("def build(params):\n    return 'ridge'\n", "build() returned str"),
        ("import sys\ndef build(params):\n    sys.exit(3)\n", "sys.exit(3)"),
        ("import os\ndef build(params):\n    os._exit(0)\n", "without a result or an error"),
        ("def build(params):\n    while True: pass\n", "timeout_seconds of model.yaml (2 s)"),
    ],
)
def test_a_train_py_that_fails_says_where(released: Platform, train_py: str, message: str) -> None:
    # Only what never ends is to be ended: a busy machine takes seconds to import.
    limit = 2 if "while True" in train_py else 60
    text = MODEL_YAML.replace("timeout_seconds: 60", f"timeout_seconds: {limit}")
    released.repository.write("mlops_assets/models/rent/model.yaml", text)
    released.repository.train_py(train_py)
    assert not released.materialize("trained_model")
    assert message in released.failures
    trained = released.profile.home / "artifacts" / "trained"
    assert len(list(trained.iterdir())) == 1
    released.repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML)
    released.repository.train_py(TRAIN_PY)
    assert released.materialize("trained_model"), released.failures
    assert len(list(trained.iterdir())) == 1


def test_what_train_py_prints_reaches_the_log(
    released: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    released.repository.train_py(TRAIN_PY + "\nprint('a word from train.py')\n")
    assert released.materialize("trained_model"), released.failures
    assert "a word from train.py" in capfd.readouterr().err


def test_another_contract_wants_another_snapshot(released: Platform) -> None:
    text = MODEL_YAML.replace("maximum: 9", "maximum: 8")
    released.repository.write("mlops_assets/models/rent/model.yaml", text)
    released.repository.commit("another contract")
    assert not released.materialize("trained_model")
    assert "materialize dataset in the same run" in released.failures


def test_a_model_whose_code_lies_in_a_folder_of_another_name(released: Platform) -> None:
    text = MODEL_YAML + "source: {folder: research/what_flats_cost}\n"
    released.repository.write("mlops_assets/models/rent/model.yaml", text)
    released.repository.write("research/what_flats_cost/model.yaml", text)
    released.repository.write("research/what_flats_cost/train.py", TRAIN_PY)
    commit = released.repository.commit("moved")
    assert released.materialize(*RELEASE), released.failures
    version = released.registry.versions("rent")[-1]
    assert (version.version, version.manifest.source.commit) == (2, commit)
