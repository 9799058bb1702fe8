import zipfile
from pathlib import Path

from mlops_assets.assets.package import differing_files, write_archive
from mlops_assets.scoring.predictor import Predictor
from tests.conftest import Platform


def test_the_archive_holds_the_version_and_loads_elsewhere(
    released: Platform, tmp_path: Path
) -> None:
    assert released.materialize("package"), released.failures
    assert released.check("archive").passed
    archive = Path(released.metadata("package")["path"])
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(tmp_path)
    version = released.registry.version("rent", 1)
    predictor = Predictor.load(tmp_path / "rent-1", version.digest)
    flat = {"area": 50.0, "rooms": 2, "district": "north"}
    assert 400 < predictor.predict([flat]).values[0] < 700
    again = tmp_path / "again.zip"
    write_archive(version, again)
    assert again.read_bytes() == archive.read_bytes()


def test_an_archive_that_was_changed_fails_its_check(released: Platform) -> None:
    assert released.materialize("package"), released.failures
    archive = Path(released.metadata("package")["path"])
    version = released.registry.version("rent", 1)
    with zipfile.ZipFile(archive) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    for name in ("model.pkl", "manifest.json"):
        with zipfile.ZipFile(archive, "w") as zipped:
            for member, content in files.items():
                changed = content + b" " if member == f"rent-1/{name}" else content
                zipped.writestr(member, changed)
        assert differing_files(archive, version) == [name]
    assert released.materialize("package"), released.failures
    check = released.check("archive")
    assert not check.passed
    assert "manifest.json" in str(check.description)
