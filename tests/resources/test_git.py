from pathlib import Path

import pytest

from mlops_assets.spec import ModelSpec, load_model, parse_model
from resources.git import GitError, GitSource
from tests.git_servers import bare_of
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, Repository, make_repository


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


def test_a_branch_deleted_and_made_again_as_a_folder_of_branches(repository: Repository) -> None:
    bare = bare_of(repository)
    git, url = source(repository), f"file://{bare.path}"
    branch = MODEL_YAML + f"source: {{repository: '{url}', branch: next}}\n"
    below = MODEL_YAML + f"source: {{repository: '{url}', branch: next/year}}\n"
    next_, year = (parse_model(text, "rent", "model.yaml") for text in (branch, below))
    bare.git("branch", "next", "main")
    first = git.resolve(next_).commit
    bare.git("branch", "--delete", "--force", "next")
    with pytest.raises(GitError, match=r"'next': no such branch in file://.*there are: main"):
        git.resolve(next_)
    bare.git("branch", "next/year", "main")
    assert git.resolve(year).commit == first
    bare.git("branch", "--delete", "--force", "next/year")
    second = repository.train_py(WORSE_TRAIN_PY)
    repository.git("push", "--quiet", str(bare.path), "main:next")
    assert git.resolve(next_).commit == second


def test_a_server_whose_head_names_no_branch(repository: Repository) -> None:
    bare = bare_of(repository)
    bare.git("symbolic-ref", "HEAD", "refs/heads/master")
    found = source(repository).resolve(elsewhere(bare.path))
    assert found.commit == repository.git("rev-parse", "HEAD")


def test_a_checkout_without_commits_names_the_mend(tmp_path: Path) -> None:
    clone = Repository(tmp_path / "clone")
    clone.path.mkdir()
    clone.git("init", "--quiet", "--initial-branch", "main")
    with pytest.raises(GitError, match="there are: none, commit something first"):
        source(clone).resolve(parse_model(MODEL_YAML, "rent", "model.yaml"))


def test_what_a_killed_git_left_behind_hinders_nobody(repository: Repository) -> None:
    git, model = source(repository), spec(repository)
    git.resolve(model)
    (mirror,) = (repository.path.parent / "mirrors").glob("*.git")
    for name in ("refs/heads/main.lock", "packed-refs.lock", "shallow.lock"):
        (mirror / name).touch()
    head = repository.train_py(WORSE_TRAIN_PY)
    assert git.resolve(model).commit == head


def test_this_repository_stands_for_another_on_a_server(
    repository: Repository, tmp_path: Path
) -> None:
    bare, model = bare_of(repository), spec(repository)
    platform = tmp_path / "installed"
    platform.mkdir()
    git = GitSource(
        checkout=str(platform), mirrors=str(tmp_path / "mirrors"), repository=f"file://{bare.path}"
    )
    repository.train_py(WORSE_TRAIN_PY)  # not pushed
    found = git.resolve(model)
    assert found.commit == bare.git("rev-parse", "main")
    assert found.repository == f"file://{bare.path}"
    assert git.read(model, found, "mlops_assets/models/rent/train.py") == TRAIN_PY
    assert git.uncommitted(model) == []


def test_uncommitted_files_of_the_checkout_are_told_on_a_server_too(
    repository: Repository,
) -> None:
    bare = bare_of(repository)
    git = source(repository).model_copy(update={"repository": str(bare.path)})
    repository.write("mlops_assets/models/rent/train.py", WORSE_TRAIN_PY)
    assert git.uncommitted(spec(repository)) == ["mlops_assets/models/rent/train.py"]
    assert git.resolve(spec(repository), dirty=True).dirty


def test_no_password_in_messages(repository: Repository) -> None:
    model = elsewhere("https://ada:s3cr3t-t0ken@localhost:1/flats.git")
    with pytest.raises(GitError) as caught:
        source(repository).resolve(model)
    assert "s3cr3t" not in str(caught.value)
    assert "localhost:1/flats.git" in str(caught.value)


def test_a_file_that_is_not_text_is_named(repository: Repository) -> None:
    path = "mlops_assets/models/rent/model.yaml"
    git, model = source(repository), spec(repository)
    (repository.path / path).write_bytes(b"owner: \xff\n")
    repository.commit()
    with pytest.raises(GitError, match=r"model\.yaml of commit .*: not UTF-8"):
        git.read(model, git.resolve(model), path)
