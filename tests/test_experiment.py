from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.experiment import heading
from mlops_assets.wiring import build_resources
from resources.branches import current, work_on
from resources.experiments import Experiments
from resources.git_commands import GitError
from resources.registry import LocalRegistry, RegistryError
from tests.conftest import Platform
from tests.repository import TRAIN_PY, WORSE_TRAIN_PY, Repository, make_repository
from tests.test_gates import MANIFEST
from tests.test_steering import mlops, serve, steer
from tests.versions import registered

TRAIN = "mlops_assets/models/rent/train.py"
BETTER = TRAIN_PY.replace('alpha=params["alpha"]', "alpha=0.01")


def state(home: Path) -> dict[str, bytes]:
    """All that a release or its automation reads; the store and the mirrors only ever grow."""
    found = [p for name in ("references", "attempts", "registry") for p in (home / name).rglob("*")]
    found += (home / "endpoints").rglob("generation.json")
    return {str(p): p.read_bytes() for p in found if p.suffix == ".json"}


@pytest.fixture
def clone(released: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A clone whose version 1 serves production."""
    serve(released, 1)
    steer(released.repository.path, released.profile.home, monkeypatch)
    released.repository.commit("dagster.yaml stays, whichever branch is checked out")
    return released


@pytest.fixture
def light(released: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A clone whose version 1 serves nowhere."""
    steer(released.repository.path, released.profile.home, monkeypatch)
    released.repository.commit("dagster.yaml stays, whichever branch is checked out")
    return released


def said(*arguments: str) -> dict[str, Any]:
    code, text = mlops("experiment", "rent", "--json", *arguments)
    assert code == 0, text
    (found,) = json.loads(text[text.index("[\n") :])
    return found


def test_a_new_branch_and_uncommitted_work_on_it(clone: Platform) -> None:
    home, repository = clone.profile.home, clone.repository
    before, runs = state(home), len(clone.instance.get_runs())
    found = said("--branch", "revise/rent-1")
    assert repository.git("branch", "--show-current") == "revise/rent-1"
    assert "made revise/rent-1 at the head of main; switched to revise/rent-1" in found["notes"]
    difference = found["comparison"]["metrics"]["r2"]["difference"]
    assert (found["first"], found["second"]) == (
        "revise/rent-1",
        "version 1, which serves production",
    )
    assert (difference["value"], difference["lower"], difference["upper"]) == (0, 0, 0)
    assert found["closed"] == {"development": [], "staging": [], "production": []}
    assert [c["kind"] for c in found["changes"]] == ["commit"]

    # The data scientist's work: not committed, tried, and still there.
    repository.write(TRAIN, WORSE_TRAIN_PY)
    found = said()
    assert f"with uncommitted changes: {TRAIN}" in found["notes"]
    assert found["comparison"]["metrics"]["r2"]["difference"]["upper"] < -0.5
    gates = {v["gate"]: v["status"] for v in found["verdicts"]}
    assert (gates["quality"], gates["champion"], gates["integrity"]) == (
        "closed",
        "closed",
        "open",
    )
    assert gates["provenance"] == "not_applicable"
    assert found["closed"]["production"] == ["quality", "champion"]
    assert found["closed"]["development"] == []
    assert {s["value"] for s in found["comparison"]["slices"]} == {None, "north", "south"}
    worst = found["comparison"]["slices"][0]["metrics"]["r2"]
    assert worst["candidate"] < worst["champion"]
    assert repository.git("status", "--porcelain", "--untracked-files=no") == f"M {TRAIN}"
    assert (repository.path / TRAIN).read_text() == WORSE_TRAIN_PY

    assert state(home) == before
    assert len(clone.instance.get_runs()) == runs
    clone.see()
    assert [v.version for v in clone.registry.versions("rent")] == [1]
    assert clone.serves("production") == 1


def test_another_branch_while_the_work_tree_has_changes(clone: Platform, tmp_path: Path) -> None:
    repository = clone.repository
    repository.git("switch", "--quiet", "--create", "idea")
    repository.train_py(WORSE_TRAIN_PY)
    repository.git("switch", "--quiet", "main")
    repository.write(TRAIN, "raise SystemExit('never run')\n")
    path = tmp_path / "report.md"
    found = said("--branch", "idea", "--markdown", str(path))
    assert "uncommitted changes and stays as it is; idea is taken as committed" in found["notes"][0]
    assert found["comparison"]["metrics"]["r2"]["candidate"] < 0.1
    assert repository.git("branch", "--show-current") == "main"
    assert (repository.path / TRAIN).read_text() == "raise SystemExit('never run')\n"
    text = path.read_text()
    assert "## rent: idea against version 1, which serves production" in text
    assert "| quality | closed |" in text
    assert "| production | quality, champion |" in text
    assert "| `district` | `missing` |" in text


def test_without_a_champion_the_source_branch_is_compared_with(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    steer(platform.repository.path, platform.profile.home, monkeypatch)
    platform.repository.git("switch", "--quiet", "--create", "idea")
    platform.repository.train_py(WORSE_TRAIN_PY)
    found = said()
    assert (found["first"], found["second"]) == ("idea", "main")
    assert "nothing serves production; compared with the head of main" in found["notes"]
    assert found["comparison"]["metrics"]["r2"]["difference"]["upper"] < -0.5
    assert [c["kind"] for c in found["changes"]] == ["commit", "serves from"]
    assert not (platform.profile.home / "registry").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(params):\n    raise ValueError('no idea')\n", "ValueError: no idea"),
        ("def build(params:\n", "SyntaxError"),
    ],
)
def test_a_branch_that_does_not_train(light: Platform, text: str, message: str) -> None:
    before = state(light.profile.home)
    light.repository.write(TRAIN, text)
    code, told = mlops("experiment", "rent")
    assert code == 1
    assert message in told
    assert state(light.profile.home) == before


def test_a_report_that_could_not_be_written_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> None:
        raise AssertionError("it went on")

    monkeypatch.setattr("mlops_assets.cli_experiments.load_profile", never)
    code, told = mlops("experiment", "rent", "--markdown", str(tmp_path / "none" / "x.md"))
    assert (code, f"there is no folder {tmp_path / 'none'}; make it" in told) == (2, True), told
    code, told = mlops("experiment", "rent", "--markdown", str(tmp_path))
    assert (code, "is a directory" in told) == (2, True), told


def test_data_that_break_the_branchs_contract(light: Platform) -> None:
    path = "mlops_assets/models/rent/model.yaml"
    text = (light.repository.path / path).read_text()
    light.repository.write(path, text.replace("minimum_rows: 20", "minimum_rows: 2000"))
    code, told = mlops("experiment", "rent")
    assert code == 1
    assert "200 rows" in told


@pytest.mark.parametrize("name", ["-f", "a..b", "a b", "x.lock"])
def test_no_name_of_a_branch(light: Platform, name: str) -> None:
    code, told = mlops("experiment", "rent", f"--branch={name}")
    assert code == 1
    assert "is no name for a branch" in told


def test_kept_experiments_are_compared_and_use_up_no_number(clone: Platform) -> None:
    repository = clone.repository
    repository.git("switch", "--quiet", "--create", "idea")
    repository.train_py(BETTER)
    found = said("--keep")
    assert "kept as experiment 1 of idea" in found["notes"]
    kept = Experiments.of(build_resources(clone.profile)).newest("rent", "idea")
    assert kept.mismatched() == []
    source = kept.manifest.source
    assert (source.experiment, source.branch, source.on_branch) == ("idea", "main", False)

    clone.see()
    assert not any("trained_model" in names for names in clone.settle())
    assert [v.version for v in clone.registry.versions("rent")] == [1]
    code, text = mlops("compare", "rent", "idea", "1")
    assert code == 0, text
    assert "## rent: idea against version 1" in text
    assert "| metric | idea | version 1 | difference | 95 % interval |" in text
    assert "| commit |" in text
    assert "  ✓ compare  " in text
    code, text = mlops("compare", "rent", "main", "idea", "--json")
    assert code == 0, text
    (backward,) = json.loads(text[text.index("[\n") :])
    difference = backward["comparison"]["metrics"]["r2"]["difference"]["value"]
    assert difference == pytest.approx(-found["comparison"]["metrics"]["r2"]["difference"]["value"])
    assert (backward["first"], backward["second"]) == ("main (version 1)", "idea")
    code, text = mlops("compare", "rent", "1", "other")
    assert code == 1
    assert "no experiment of rent on branch other" in text
    assert "Kept so far: idea" in text
    code, text = mlops("compare", "rent", "1", "7")
    assert (code, "has no version 7; registered: 1" in text) == (1, True)

    # Merged, it is the next version, not trained again, and its gates are open.
    repository.git("switch", "--quiet", "main")
    repository.git("merge", "--quiet", "--ff-only", "idea")
    trained = sorted(p.name for p in (clone.profile.home / "artifacts" / "trained").iterdir())
    clone.see()
    assert any("trained_model" in names for names in clone.settle())
    assert [v.version for v in clone.registry.versions("rent")] == [1, 2]
    assert clone.registry.version("rent", 2).manifest.source.experiment is None
    assert clone.serves("production") == 2
    again = sorted(p.name for p in (clone.profile.home / "artifacts" / "trained").iterdir())
    assert again == trained


def test_the_newest_of_a_branch(light: Platform) -> None:
    experiments = Experiments.of(build_resources(light.profile))
    with pytest.raises(RegistryError, match="Kept so far: none"):
        experiments.newest("rent", "main")
    said("--keep")
    light.repository.git("switch", "--quiet", "--create", "b")
    light.repository.train_py(BETTER)
    said("--keep")
    light.repository.train_py(TRAIN_PY)  # back to what it was: the same identity again
    assert "kept as experiment 1 of b" in said("--keep")["notes"]
    with dg.DagsterInstance.get() as instance:
        key = dg.AssetKey(["rent", "experiment"])
        found = instance.fetch_materializations(key, limit=9).records
    shown = [r.asset_materialization.metadata for r in found if r.asset_materialization]
    assert [m["branch"].value for m in shown] == ["b", "b", "main"]
    assert "## rent: b against" in str(shown[0]["comparison"].value)
    assert experiments.newest("rent", "b").version == 1
    assert {k: v.version for k, v in experiments.branches("rent").items()} == {"main": 1, "b": 1}


@pytest.mark.parametrize(
    ("name", "experiment", "called"),
    [
        ("1", None, "version 1"),
        ("main", None, "main (version 1)"),
        ("main", "main", "main (experiment 1)"),
        ("idea", "idea", "idea"),
    ],
)
def test_a_heading_says_which_one_of_the_source_branch_it_is(
    name: str, experiment: str | None, called: str, tmp_path: Path
) -> None:
    source = {**MANIFEST["source"], "branch": "main", "experiment": experiment}
    version = registered(LocalRegistry(root=str(tmp_path / "registry")), source=source)
    assert heading(name, version) == called


# -- branches


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "clone")


def test_a_branch_of_the_origin(repository: Repository, tmp_path: Path) -> None:
    repository.git("branch", "theirs")
    clone = Repository(tmp_path / "other")
    repository.git("clone", "--quiet", str(repository.path), str(clone.path))
    work = work_on(clone.path, "theirs", "main")
    assert (work.branch, work.here) == ("theirs", True)
    assert work.done == "theirs is origin's; switched to theirs"
    assert clone.git("rev-parse", "--abbrev-ref", "theirs@{upstream}") == "origin/theirs"
    assert work_on(clone.path, "theirs", "main").done == ""


def test_untracked_files_stay(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "idea")
    repository.write("note.txt", "theirs")
    repository.commit()
    repository.git("switch", "--quiet", "main")
    repository.write("note.txt", "mine")
    work = work_on(repository.path, "idea", "main")
    assert (work.here, current(repository.path).branch) == (False, "main")
    assert "git does not switch to it" in work.done
    assert (repository.path / "note.txt").read_text() == "mine"


def test_nothing_to_begin_at(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(GitError, match="has a branch trunk"):
        work_on(repository.path, "idea", "trunk")
    empty = Repository(tmp_path / "empty")
    empty.path.mkdir()
    with pytest.raises(GitError, match="not a git repository"):
        current(empty.path)
    empty.git("init", "--quiet")
    with pytest.raises(GitError, match="no commit yet"):
        current(empty.path)


def test_a_detached_head(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "--detach")
    work = current(repository.path)
    assert work.commit.startswith(work.branch)
