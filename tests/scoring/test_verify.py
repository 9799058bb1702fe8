from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.files import digest_file
from mlops_assets.scoring.verify import verify
from tests.bundles import (
    NUMBERS,
    classifier,
    exported,
    regression,
    write_bundle,
    write_manifest,
)
from tests.onnx_models import total

COMMAND = [sys.executable, "-P", "-m", "mlops_assets.scoring.verify"]


def test_a_good_bundle_in_a_fresh_process(tmp_path: Path) -> None:
    version = classifier(tmp_path)
    done = subprocess.run(
        [*COMMAND, str(version.bundle), "--digest", version.digest],
        capture_output=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "mismatched": [], "loads": True, "error": None, "max_difference": 0.0
    }  # fmt: skip


class Loud:
    """Prints wherever it can."""

    def __setstate__(self, state: Any) -> None:
        print("loading")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def predict(self, frame: Any) -> Any:
        print("predicting")
        return frame["a"].to_numpy()


def test_waiting_for_the_question_and_a_model_that_prints(tmp_path: Path) -> None:
    digest = write_bundle(tmp_path / "bundle", Loud(), NUMBERS, [{"a": 1.0, "b": 1}])
    question = json.dumps({"bundle": str(tmp_path / "bundle"), "digest": digest})
    done = subprocess.run(
        [*COMMAND, "--wait"],
        input=question.encode() + b"\n", capture_output=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["error"] is None
    assert b"loading" in done.stderr


def test_nobody_asks(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--wait"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_folder_is_wanted() -> None:
    for arguments in ([], ["folder"]):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)
        assert done.returncode == 2
        assert b"the bundle's folder is missing, or its digest" in done.stderr


def test_a_changed_and_a_missing_file_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    (version.bundle / "notes.txt").write_text("as registered")
    digest = write_manifest(version.bundle, NUMBERS, None)
    (version.bundle / "notes.txt").write_text("changed")
    (version.bundle / "sample.json").unlink()
    report = verify(version.bundle, digest)
    assert report["mismatched"] == ["notes.txt", "sample.json"]
    assert not report["loads"]
    assert report["error"] == "changed or missing: notes.txt, sample.json"


def test_another_digest_than_the_versions(tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    report = verify(version.bundle, "0" * 64)
    assert report["mismatched"] == ["manifest.json"]
    assert not report["loads"]


@pytest.mark.parametrize("factor", [1 + 1e-6, 1 + 1e-12])
def test_numbers_may_differ_by_rounding_only(tmp_path: Path, factor: float) -> None:
    version = regression(tmp_path, 1)
    path = version.bundle / "sample.json"
    sample = json.loads(path.read_text())
    sample["output"] = [value * factor for value in sample["output"]]
    path.write_text(json.dumps(sample))
    report = verify(version.bundle, write_manifest(version.bundle, NUMBERS, None))
    assert report["loads"]
    assert report["max_difference"] == pytest.approx(factor - 1, rel=1e-2)
    assert (report["error"] is None) == (factor < 1 + 1e-9)


def test_labels_must_be_equal(tmp_path: Path) -> None:
    version = classifier(tmp_path)
    path = version.bundle / "sample.json"
    sample = json.loads(path.read_text())
    sample["output"][0] = "mid"
    path.write_text(json.dumps(sample))
    manifest = json.loads((version.bundle / "manifest.json").read_text())
    manifest["files"]["sample.json"] = digest_file(path)
    (version.bundle / "manifest.json").write_text(json.dumps(manifest))
    report = verify(version.bundle, digest_file(version.bundle / "manifest.json"))
    assert report["max_difference"] == 1.0
    assert "differ from training's" in report["error"]


@pytest.mark.parametrize(("offset", "agrees"), [(1e-5, True), (1e-3, False)])
def test_onnx_may_differ_from_the_pickle_s_sample_as_parity_allows(
    tmp_path: Path, offset: float, agrees: bool
) -> None:
    bundle = exported(tmp_path, 0).bundle
    (bundle / "model.onnx").write_bytes(total(NUMBERS, offset))
    (bundle / "evidence.json").write_text('{"parity": {"tolerance": 1e-4}}')
    report = verify(bundle, write_manifest(bundle, NUMBERS, None))
    assert report["loads"]
    assert report["max_difference"] == pytest.approx(offset, rel=0.1)
    assert (report["error"] is None) == agrees


class Leaves:
    def __reduce__(self) -> Any:
        return (sys.exit, (3,))


def test_a_model_that_ends_the_process_is_reported(tmp_path: Path) -> None:
    import cloudpickle

    version = regression(tmp_path, 1)
    (version.bundle / "model.pkl").write_bytes(cloudpickle.dumps(Leaves()))
    report = verify(version.bundle, write_manifest(version.bundle, NUMBERS, None))
    assert not report["loads"]
    assert report["error"] == "SystemExit: 3"
