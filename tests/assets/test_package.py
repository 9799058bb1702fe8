from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.files import digest_file, write_atomic
from mlops_assets.packaging.store import PACKAGES, PackageError, hand_out
from mlops_assets.scoring.predictor import Predictor
from mlops_assets.wiring import build_resources
from resources.clean_environment import install
from resources.endpoints.base import Request
from tests.conftest import Platform

FLATS = [
    {"area": 50.0, "rooms": 2, "district": "north"},
    {"area": 31.5, "rooms": 1, "district": None},
    {"area": 118.25, "rooms": 5, "district": "elsewhere"},
]


def files(platform: Platform) -> Path:
    return Path(platform.metadata("package")["path"])


def records(platform: Platform) -> list[dict[str, Any]]:
    return platform.registry.records("rent", PACKAGES)


def handed_out(platform: Platform, target: Path, version: int | None = None) -> list[str]:
    resources = build_resources(platform.profile)
    found, trial = hand_out(resources["artifacts"], resources["registry"], "rent", version, target)
    assert trial.outcome == "same"
    return sorted(path.relative_to(target).as_posix() for path in found)


@pytest.fixture
def packaged(released: Platform) -> Platform:
    assert released.materialize("package"), released.failures
    return released


def test_rest_and_the_installed_wheel_give_the_same_answers(
    packaged: Platform, tmp_path: Path
) -> None:
    check = packaged.check("same_answers")
    assert check.passed, check.description
    # Once more by hand: over HTTP from a running endpoint, and in a program of somebody else.
    assert packaged.materialize("staging_endpoint"), packaged.failures
    answer = packaged.serving.ask("rent", "staging", Request.of({"data": FLATS}))
    assert answer.status == 200
    handed_out(packaged, tmp_path / "out")
    (wheel,) = (tmp_path / "out").glob("*.whl")
    python = install(wheel, tmp_path / "environment")
    code = (
        "import json, sys, rent_model as m; print(json.dumps(m.predict(json.loads(sys.argv[1]))))"
    )
    command = [str(python), "-I", "-c", code, json.dumps(FLATS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == answer.json(), done.stderr


def test_the_archive_holds_the_version_and_loads_elsewhere(
    packaged: Platform, tmp_path: Path
) -> None:
    assert packaged.check("files").passed
    with zipfile.ZipFile(files(packaged) / "rent-1.zip") as zipped:
        zipped.extractall(tmp_path)
    version = packaged.registry.version("rent", 1)
    predictor = Predictor.load(tmp_path / "rent-1", version.digest)
    assert 400 < predictor.predict([FLATS[0]]).values[0] < 700


def test_packaged_again_it_is_the_same(packaged: Platform) -> None:
    folder, before = files(packaged), records(packaged)
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert packaged.materialize("package"), packaged.failures
    assert packaged.check("same_answers").passed
    assert files(packaged) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made
    assert records(packaged) == before, "it was tried once more"
    # Another request to compare with is a reason to try.
    samples = packaged.profile.samples_of("rent", "staging")
    added = {"name": "three", "request": {"data": FLATS}}
    write_atomic(samples, json.dumps([*json.loads(samples.read_text()), added]))
    assert packaged.materialize("package"), packaged.failures
    assert [r["files"] for r in records(packaged)] == [before[0]["files"]] * 2


def test_another_platform_makes_another_revision(
    packaged: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = files(packaged)
    monkeypatch.setattr("mlops_assets.packaging.wheel.NUMPY", "numpy>=2.1")
    monkeypatch.setattr("mlops_assets.packaging.wheel.SERVE", ("msgspec",))
    assert packaged.materialize("package"), packaged.failures
    assert packaged.metadata("package")["wheel"] == "rent-model 1.0.1"
    assert [r["revision"] for r in records(packaged)] == [0, 1]
    assert (first / "rent_model-1.0.0-py3-none-any.whl").is_file()
    assert "rent_model-1.0.1-py3-none-any.whl" in handed_out(packaged, tmp_path / "out")


@pytest.mark.parametrize("ending", [".whl", ".zip"])
def test_a_package_that_was_changed(packaged: Platform, tmp_path: Path, ending: str) -> None:
    (path,) = files(packaged).glob(f"*{ending}")
    with zipfile.ZipFile(path, "a") as zipped:
        zipped.writestr("more", "")
    with pytest.raises(PackageError, match=rf"changed or missing: {path.name}; remove the folder"):
        handed_out(packaged, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert packaged.materialize("package"), packaged.failures
    check = packaged.check("files")
    assert not check.passed
    assert path.name in str(check.description)


def test_an_archive_of_something_else_fails_its_check(
    packaged: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = packaged.registry.version("rent", 1)

    def wrong(_: object, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as zipped:
            for file in version.bundle.rglob("*"):
                if file.is_file():
                    name = f"rent-1/{file.relative_to(version.bundle)}"
                    content = b"{}" if file.name == "sample.json" else file.read_bytes()
                    zipped.writestr(zipfile.ZipInfo(name), content)

    monkeypatch.setattr("mlops_assets.packaging.store.write_archive", wrong)
    assert packaged.materialize("package"), packaged.failures
    check = packaged.check("files")
    assert not check.passed
    assert "sample.json" in str(check.description)


def test_what_cannot_be_tried_is_a_warning_and_what_is_wrong_an_error(
    released: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with monkeypatch.context() as patched:
        wanted = "mlops_assets.packaging.wheel.dependencies"
        patched.setattr(wanted, lambda _: ["nowhere>=3"])
        assert released.materialize("package"), released.failures
    check = released.check("same_answers")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "nowhere>=3" in str(check.description)
    with monkeypatch.context() as patched:
        patched.setattr("mlops_assets.packaging.wheel.dependencies", lambda _: [])
        assert released.materialize("package"), released.failures
    check = released.check("same_answers")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "ModuleNotFoundError" in str(check.description)
    with pytest.raises(PackageError, match=r"its wheel is wrong: .* ModuleNotFoundError"):
        handed_out(released, tmp_path / "out")


def test_samples_that_nobody_can_read_are_no_fault_of_the_version(released: Platform) -> None:
    write_atomic(released.profile.samples_of("rent", "staging"), "[")
    assert released.materialize("package"), released.failures
    assert released.check("same_answers").passed


def test_what_was_never_packaged(released: Platform, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no version is packaged; materialize rent/package"):
        handed_out(released, tmp_path / "out")
    assert released.materialize("package"), released.failures
    with pytest.raises(PackageError, match=r"version 7 is packaged.*packaged: 1"):
        handed_out(released, tmp_path / "out", 7)
    names = handed_out(released, tmp_path / "out", 1)
    assert {name: digest_file(tmp_path / "out" / name) for name in names} == records(released)[0][
        "files"
    ]
