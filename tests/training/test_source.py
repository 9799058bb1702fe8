from __future__ import annotations

import sys

import pytest

from mlops_assets.training.errors import TrainingProblem
from mlops_assets.training.source import load_source
from tests.training.requests import FOLDER, make_case

BUILD = "def build(params):\n    return None\n"


@pytest.fixture
def load(tmp_path, own_modules):
    def run(**files: str):
        clone = tmp_path / "clone"
        (clone / "shared_text").mkdir(parents=True)
        (clone / "shared_text" / "__init__.py").write_text("WHERE = 'work tree'\n")
        (clone / "shared_other.py").write_text("")
        sys.path.insert(0, str(clone))
        try:
            paths = {name.replace("__", "/") + ".py": text for name, text in files.items()}
            case = make_case(tmp_path / "case", paths, repository=clone)
            return load_source(case.folder / "source", FOLDER, "rent", clone)
        finally:
            sys.path.remove(str(clone))

    return run


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "import shared_other\n",
            "import",
            r"train.py:1: ImportError: 'shared_other' is a module of",
        ),
        (
            "\nimport mlops_assets.unheard_of\n",
            "import",
            "train.py:2: ImportError: 'mlops_assets.unheard_of' is a",
        ),
        ("import helper\n", "import", "lies beside train.py: import it relatively, from .helper"),
        (
            "import no_such_package\n",
            "import",
            "train.py:1: .*add it to the dependencies in pyproj",
        ),
        ("\n\ndef build(:\n", "import", "train.py:3: SyntaxError"),
        ("x = 1\nraise ValueError('two\\nlines')\n", "import", "^train.py:2: ValueError: two$"),
        ("import sys\nsys.exit(3)\n", "exit", r"train.py:2: train.py calls sys.exit\(3\)"),
        ("raise KeyboardInterrupt\n", "import", "train.py:1: KeyboardInterrupt"),
        ("x = 1\n", "import", r"must have one of build\(params\).*it has neither"),
        (BUILD + "train = build\n", "import", "it has both"),
        ("from .helper import boom\nboom()\n", "import", "^helper.py:2: ZeroDivisionError"),
        ("eval('1 +')\n", "import", "^train.py:1: SyntaxError"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(load, text: str, kind: str, message: str) -> None:
    with pytest.raises(TrainingProblem, match=message) as problem:
        load(train=text, helper="def boom():\n    1 / 0\n")
    assert problem.value.kind == kind
    assert "\n" not in str(problem.value)


def test_no_train_py(load) -> None:
    with pytest.raises(TrainingProblem, match=f"{FOLDER}/train.py: missing in this commit"):
        load(other=BUILD)


def test_declared_folders_come_from_the_commit_not_from_the_work_tree(load) -> None:
    files = {
        "train": "import shared_text\nfrom mlops_assets.features.area import X\n"
        "from mlops_assets.scoring.schema import Feature\n"
        "def build(params):\n    return shared_text.WHERE, X\n",
        "/shared_text": "WHERE = 'commit'\n",
        "/mlops_assets/features/area": "X = 3\n",
    }
    source = load(**files)
    assert source.build({}) == ("commit", 3)
    names = {module.__name__ for module in source.modules()}
    assert {"mlops_model_rent.train", "shared_text", "mlops_assets.features.area"} <= names
    assert not {"mlops_assets", "mlops_assets.scoring.schema"} & names
    assert not list(source.root.rglob("__pycache__"))
