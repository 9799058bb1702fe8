from __future__ import annotations

import json
import os
import subprocess
import sys
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlops_assets.packaging.sources import SourceError, write_runtime
from mlops_assets.packaging.wheel import Wheel, WheelError
from mlops_assets.release import installed_packages
from resources.clean_environment import install
from tests.bundles import classifier, exported_classifier
from tests.packages import built, members, registered

ROWS = [{"size": 12.5, "colour": "red"}, {"size": 50.0, "colour": None}]
#: What pip and Python bring, and what onnxruntime asks for.
THERE = {"flatbuffers", "numpy", "onnxruntime", "packaging", "protobuf", "tiny-model"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return built(registered(exported_classifier(folder)), folder / "built")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel, and what it depends on."""
    return install(wheel, tmp_path_factory.mktemp("clean") / "environment")


def run(python: Path, code: str, *arguments: str) -> Any:
    """What code prints as JSON, run by an interpreter that looks at no variables."""
    command = [str(python), "-I", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_same_version_gives_the_same_bytes(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Elsewhere, later, in another time zone, below a repository that ignores everything, by
    # somebody with settings of their own for the back end and for new files.
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("*\n")
    for name, value in {"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1", "HATCH_BUILD_X": "y"}.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        again = built(registered(exported_classifier(tmp_path / "bundles")), tmp_path / "built")
    finally:
        os.umask(before)
    assert again.name == wheel.name == "tiny_model-1.0.0-py3-none-any.whl"
    assert again.read_bytes() == wheel.read_bytes()


def test_what_is_in_it(wheel: Path) -> None:
    found = members(wheel)
    own = {name for name in found if "/_runtime/" not in name}
    assert own == {
        *(f"tiny_model/{name}" for name in ("__init__.py", "__main__.py", "py.typed")),
        # Neither the pickle nor the training code: nothing in it is run but what is served.
        *(
            f"tiny_model/bundle/{name}"
            for name in (
                *("MODEL_CARD.md", "manifest.json", "model.onnx", "sample.json", "schema.json"),
            )
        ),
        *(f"tiny_model-1.0.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")),
    }
    assert all(b"mlops_assets" not in text for n, text in found.items() if n.endswith(".py"))


def test_its_metadata(wheel: Path) -> None:
    metadata = BytesParser().parsebytes(members(wheel)["tiny_model-1.0.0.dist-info/METADATA"])
    here = installed_packages()
    assert metadata["Name"] == "tiny-model"
    assert metadata["Version"] == "1.0.0"
    assert metadata["Requires-Python"] == ">=3.11"
    required = metadata.get_all("Requires-Dist", [])
    assert [line for line in required if "extra" not in line] == [
        "numpy>=2.0",
        f"onnxruntime>={here['onnxruntime']}",
    ]
    assert [line.partition(";")[0] for line in required if "extra" in line] == [
        f"msgspec>={here['msgspec']}",
        f"prometheus-client>={here['prometheus-client']}",
        f"psutil>={here['psutil']}",
        f"uvicorn[standard]>={here['uvicorn']}",
    ]
    assert "Private :: Do Not Upload" in metadata.get_all("Classifier", [])
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert bytes(metadata.get_payload(), "utf-8").decode().startswith("# tiny")


def test_a_pickle_wants_the_packages_that_it_was_written_with(tmp_path: Path) -> None:
    version = registered(classifier(tmp_path), python="3.12.4")
    found = members(built(version, tmp_path / "built", revision=2))
    assert "tiny_model/bundle/model.pkl" in found
    metadata = BytesParser().parsebytes(found["tiny_model-1.0.2.dist-info/METADATA"])
    assert metadata["Requires-Python"] == "==3.12.*"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra" not in line]
    assert required == (version.bundle / "requirements.txt").read_text().split()
    assert any(line.startswith("scikit-learn==") for line in required)


def test_it_answers_where_nothing_else_is(python: Path) -> None:
    found = run(
        python,
        """
import importlib.metadata, json, sys, tiny_model
before = "onnxruntime" in sys.modules
answer = tiny_model.predict(json.loads(sys.argv[1]))
there = sorted(d.name for d in importlib.metadata.distributions())
print(json.dumps({
    "before": before, "answer": answer, "there": there, "loaded": "mlops_assets" in sys.modules,
    "version": tiny_model.__version__, "card": tiny_model.MODEL_CARD,
    "columns": [feature["name"] for feature in tiny_model.SCHEMA["features"]],
}))
""",
        json.dumps(ROWS),
    )
    assert found["answer"]["predictions"] == ["low", "high"]
    assert not found["before"], "importing a model should not load it"
    assert set(found["there"]) == THERE
    assert not found["loaded"]
    assert found["version"] == "1.0.0"
    assert found["card"] == "# tiny\n\nFor tests; “quoted”.\n"
    assert found["columns"] == ["size", "colour"]


def test_an_error_names_row_and_column(python: Path) -> None:
    found = run(
        python,
        """
import json, tiny_model
try:
    tiny_model.predict([{"size": "big", "colour": None}])
except tiny_model.RequestError as error:
    print(json.dumps(str(error)))
""",
    )
    assert found == "row 0, column 'size': wants a number, found 'big'"


def test_serving_without_its_extra_says_what_to_install(python: Path) -> None:
    command = [str(python), "-I", "-m", "tiny_model", "serve"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "install tiny-model[serve]" in done.stderr
    assert "Traceback" not in done.stderr


TYPED = """\
from typing import assert_type, Literal
import numpy as np
import pandas as pd
from tiny_model import MODEL_CARD, SCHEMA, Answer, Record, __version__, predict

row: Record = {"size": 12.5, "colour": None}
answer = predict([row, {"size": 3, "colour": "red"}])
assert_type(answer, Answer)
assert_type(answer["predictions"], list[Literal["high", "low", "mid"]])
assert_type(answer["probabilities"][0]["low"], float)
assert_type(__version__, str)
assert_type(MODEL_CARD, str)
predict({"size": [12.5], "colour": ["red"]})
predict({"size": np.zeros(3), "colour": ["red"] * 3})
predict(pd.DataFrame([row]))
print(SCHEMA["features"], answer.get("warnings"))
"""
UNTYPED = """\
from tiny_model import predict

predict([{"size": 12.5}])
predict([{"size": "big", "colour": None}])
predict(3)
predict([{"size": 1.0, "colour": None}])["probabilites"]
"""


def test_type_checkers_know_the_columns(python: Path, tmp_path: Path) -> None:
    for name, text in (("typed.py", TYPED), ("untyped.py", UNTYPED)):
        (tmp_path / name).write_text(text)
    stubs = tmp_path / "stubs"  # the environment has no pandas, its user may
    stubs.mkdir()
    (stubs / "pandas-stubs").symlink_to(Path(pd.__file__).parent.with_name("pandas-stubs"))
    settings = {"typeCheckingMode": "strict", "extraPaths": ["stubs"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    checker = Path(sys.executable).with_name("basedpyright")
    command = [checker, "--outputjson", "--pythonpath", python, "typed.py", "untyped.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {
        (Path(e["file"]).name, e["range"]["start"]["line"] + 1, e["message"].splitlines()[0])
        for e in found
        if e["severity"] == "error"
    }
    assert {(file, line) for file, line, _ in errors} == {
        ("untyped.py", line) for line in (3, 4, 5, 6)
    }, errors


def test_a_project_that_is_refused(tmp_path: Path) -> None:
    version = registered(exported_classifier(tmp_path), packages={"onnxruntime": "no version"})
    with pytest.raises(WheelError, match=r"tiny_model-1\.0\.0.* cannot be built: .*onnxruntime"):
        built(version, tmp_path / "built")


def test_a_platform_that_cannot_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "platform" / "scoring" / "odd.py"
    source.parent.mkdir(parents=True)
    source.write_text("import mlops_assets\n")
    monkeypatch.setattr("mlops_assets.__file__", str(tmp_path / "platform" / "__init__.py"))
    with pytest.raises(SourceError, match=r"odd\.py"):
        write_runtime(tmp_path / "tiny_model")


def test_names(tmp_path: Path) -> None:
    made = registered(exported_classifier(tmp_path))
    wheel = Wheel(made, 3)
    assert (wheel.distribution, wheel.package, wheel.number) == (
        "tiny-model",
        "tiny_model",
        "1.0.3",
    )
