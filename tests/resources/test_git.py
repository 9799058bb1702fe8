from pathlib import Path

import pytest

from mlops_assets.spec import ModelSpec, load_model, parse_model
from resources.git import GitError, GitSource
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, Repository, make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "clone")


def source(repository: Repository) -> GitSource:
    return GitSource(checkout=str(repository.path), mirrors=str(repository.path.parent / "mirrors"))


def spec(repository: Repository) -> ModelSpec:
    return load_model(repository.path / "mlops_assets" / "models" / "rent")


def elsewhere(url: Path | str) -> ModelSpec:
    text = MODEL_YAML + f"source: {{repository: {url}}}\n"
    return parse_model(text, "rent", "model.yaml")


def test_the_head_of_the_branch_is_released_with_its_author(repository: Repository) -> None:
    head = repository.train_py(WORSE_TRAIN_PY, "try the mean")
    found = source(repository).resolve(spec(repository))
    assert (found.commit, found.message) == (head, "try the mean")
    assert found.author == "Ada <ada@example.org>"
    assert found.on_branch
    assert not found.dirty


def test_export_is_the_commit_and_not_the_work_tree(repository: Repository, tmp_path: Path) -> None:
    git, model = source(repository), spec(repository)
    commit = git.resolve(model)
    repository.write("mlops_assets/models/rent/train.py", "broken(")
    git.export(model, commit, tmp_path / "export")
    exported = tmp_path / "export" / "mlops_assets" / "models" / "rent"
    assert (exported / "train.py").read_text() == TRAIN_PY
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["mlops_assets"]
    assert repository.git("worktree", "list").count("\n") == 0


def test_the_tree_ignores_documentation_and_other_models(repository: Repository) -> None:
    git, model = source(repository), spec(repository)
    first = git.resolve(model)
    repository.write("mlops_assets/models/rent/README.md", "# rent\n\nNow with more words.\n")
    repository.write("mlops_assets/models/other/train.py", "")
    repository.commit()
    second = git.resolve(model)
    assert second.commit != first.commit
    assert second.tree == first.tree
    repository.train_py(WORSE_TRAIN_PY)
    assert git.resolve(model).tree != first.tree
    repository.train_py(TRAIN_PY, "revert")
    assert git.resolve(model).tree == first.tree


def test_further_paths_belong_to_the_tree(repository: Repository, tmp_path: Path) -> None:
    text = MODEL_YAML + "source: {paths: [shared]}\n"
    repository.write("mlops_assets/models/rent/model.yaml", text)
    repository.write("shared/area.py", "SCALE = 1\n")
    repository.commit()
    git, model = source(repository), spec(repository)
    first = git.resolve(model)
    repository.write("shared/area.py", "SCALE = 2\n")
    repository.commit()
    second = git.resolve(model)
    assert second.tree != first.tree
    git.export(model, second, tmp_path / "export")
    assert (tmp_path / "export" / "shared" / "area.py").read_text() == "SCALE = 2\n"


def test_uncommitted_files_are_told_and_taken_on_request(
    repository: Repository, tmp_path: Path
) -> None:
    git, model = source(repository), spec(repository)
    assert git.uncommitted(model) == []
    repository.write("mlops_assets/models/rent/train.py", WORSE_TRAIN_PY)
    repository.write("mlops_assets/models/rent/features.py", "")
    assert sorted(git.uncommitted(model)) == [
        "mlops_assets/models/rent/features.py",
        "mlops_assets/models/rent/train.py",
    ]
    clean, dirty = git.resolve(model), git.resolve(model, dirty=True)
    assert dirty.dirty
    assert dirty.tree != clean.tree
    git.export(model, dirty, tmp_path / "export")
    folder = tmp_path / "export" / "mlops_assets" / "models" / "rent"
    assert (folder / "train.py").read_text() == WORSE_TRAIN_PY
    assert (folder / "features.py").exists()


def test_another_commit_by_name(repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.train_py(WORSE_TRAIN_PY)
    git, model = source(repository), spec(repository)
    assert git.resolve(model, first[:12]).commit == first
    assert git.resolve(model, first).on_branch


def test_a_commit_of_another_branch_is_not_on_the_source_branch(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "feature")
    commit = repository.train_py(WORSE_TRAIN_PY)
    git, model = source(repository), spec(repository)
    assert not git.resolve(model, commit).on_branch
    assert git.resolve(model).commit != commit


def test_a_shallow_checkout_with_a_detached_head(repository: Repository, tmp_path: Path) -> None:
    repository.train_py(WORSE_TRAIN_PY)
    head = repository.train_py(TRAIN_PY)
    clone = Repository(tmp_path / "ci")
    url = f"file://{repository.path}"
    repository.git("clone", "--quiet", "--depth", "1", url, str(clone.path))
    clone.git("checkout", "--quiet", "--detach")
    clone.git("branch", "--delete", "--force", "main")
    clone.git("remote", "remove", "origin")
    found = source(clone).resolve(spec(clone))
    assert found.commit == head
    assert found.on_branch


def test_a_detached_head_beside_the_branch_is_judged_by_the_branch(
    repository: Repository,
) -> None:
    repository.git("checkout", "--quiet", "--detach")
    commit = repository.train_py(WORSE_TRAIN_PY)
    found = source(repository).resolve(spec(repository))
    assert found.commit == commit
    assert not found.on_branch


def test_a_bare_repository_by_url_and_by_path(repository: Repository, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    repository.git("clone", "--quiet", "--bare", str(repository.path), str(bare))
    git = source(repository)
    for url in (bare, f"file://{bare}"):
        found = git.resolve(elsewhere(url))
        assert found.commit == repository.git("rev-parse", "HEAD")
        assert "def build" in git.read(elsewhere(url), found, "mlops_assets/models/rent/train.py")


def test_a_rewritten_branch_is_followed(repository: Repository, tmp_path: Path) -> None:
    bare = Repository(tmp_path / "bare.git")
    repository.git("clone", "--quiet", "--bare", str(repository.path), str(bare.path))
    git, model = source(repository), elsewhere(bare.path)
    old = git.resolve(model).commit
    repository.git("commit", "--quiet", "--amend", "--message", "rewritten")
    repository.git("push", "--quiet", "--force", str(bare.path), "main")
    new = git.resolve(model)
    assert new.commit == repository.git("rev-parse", "HEAD") != old
    assert not git.resolve(model, old).on_branch


def test_no_repository(tmp_path: Path) -> None:
    make_repository(tmp_path / "clone")
    model = spec(Repository(tmp_path / "clone"))
    (tmp_path / "plain").mkdir()
    git = GitSource(checkout=str(tmp_path / "plain"), mirrors=str(tmp_path / "mirrors"))
    with pytest.raises(GitError, match="not a git repository; models are trained from commits"):
        git.resolve(model)


def test_no_git(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    model = spec(repository)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(GitError, match="not found on PATH; install git"):
        source(repository).resolve(model)


def test_what_is_not_there_is_named(repository: Repository) -> None:
    git, model = source(repository), spec(repository)
    with pytest.raises(GitError, match="commit 'deadbeef': not found in"):
        git.resolve(model, "deadbeef")
    missing = parse_model(MODEL_YAML + "source: {branch: release}\n", "rent", "model.yaml")
    with pytest.raises(GitError, match=r"'release': no such branch .*; there are: main"):
        git.resolve(missing)
    with pytest.raises(GitError, match=r"other/model\.yaml: not in commit"):
        git.resolve(parse_model(MODEL_YAML, "other", "model.yaml"))
    with pytest.raises(GitError, match=r"git fetch in .*no-such-repository"):
        git.resolve(elsewhere(repository.path / "no-such-repository"))
    with pytest.raises(GitError, match="uncommitted files can only be trained from this"):
        git.resolve(elsewhere(f"file://{repository.path}"), dirty=True)
