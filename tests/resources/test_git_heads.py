from pathlib import Path

import pytest

from resources.git import Branch, GitError, GitSource, NotInCommitError
from tests.git_servers import GIT_SCRIPT, head_of, model, wrapped
from tests.repository import TRAIN_PY, WORSE_TRAIN_PY, Repository

FOLDER = "mlops_assets/models/rent"


def test_one_question_per_repository(
    repository: Repository,
    bare: Repository,
    git: GitSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare.git("branch", "next", "main")
    specs = [model(name=name) for name in ("a", "b", "c")]
    specs += [model(bare.path, name=name) for name in ("d", "e")]
    specs.append(model(bare.path, branch="next"))
    git.heads(specs)  # makes the mirrors
    calls = wrapped("git", tmp_path, monkeypatch, GIT_SCRIPT)
    heads = git.heads(specs)
    asked = [line for line in calls.read_text().splitlines() if "ls-remote" in line]
    assert len(asked) == len(calls.read_text().splitlines()) == 2
    assert len(heads.found) == 3
    assert set(heads.found.values()) == {repository.git("rev-parse", "HEAD")}


def test_one_repository_hinders_no_other(
    repository: Repository, bare: Repository, git: GitSource
) -> None:
    gone, typo = model(repository.path / "gone"), model(bare.path, branch="mian")
    heads = git.heads([gone, model(), typo, model(bare.path)])
    assert {str(branch) for branch in heads.found} == {". main", f"{bare.path} main"}
    errors = {str(branch): str(error) for branch, error in heads.errors.items()}
    assert "gone: cannot be reached" in errors[f"{gone.source.repository} main"]
    assert "'mian': no such branch" in errors[f"{bare.path} mian"]
    assert "there are: main" in errors[f"{bare.path} mian"]


def test_heads_of_the_checkout_are_what_a_release_takes(
    repository: Repository, git: GitSource, tmp_path: Path
) -> None:
    head = repository.train_py(WORSE_TRAIN_PY)
    assert head_of(git, model()) == git.resolve(model()).commit == head
    repository.git("checkout", "--quiet", "--detach")
    detached = repository.train_py(TRAIN_PY)
    assert head_of(git, model()) == git.resolve(model()).commit == detached


def test_the_branch_of_the_remote_where_none_was_checked_out(
    repository: Repository, tmp_path: Path
) -> None:
    clone = Repository(tmp_path / "second")
    repository.git("clone", "--quiet", str(repository.path), str(clone.path))
    clone.git("branch", "--quiet", "--move", "mine")
    clone.git("commit", "--quiet", "--allow-empty", "--message", "of mine")
    git = GitSource(checkout=str(clone.path), mirrors=str(tmp_path / "mirrors"))
    head = repository.git("rev-parse", "HEAD")
    assert head_of(git, model()) == git.resolve(model()).commit == head


def test_a_shallow_checkout(repository: Repository, tmp_path: Path) -> None:
    repository.train_py(WORSE_TRAIN_PY)
    head = repository.train_py(TRAIN_PY)
    clone = Repository(tmp_path / "ci")
    url = f"file://{repository.path}"
    repository.git("clone", "--quiet", "--depth", "1", url, str(clone.path))
    clone.git("checkout", "--quiet", "--detach")
    git = GitSource(checkout=str(clone.path), mirrors=str(tmp_path / "mirrors"))
    assert head_of(git, model()) == head
    assert git.head_tree(model(), head) == git.resolve(model()).tree


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_is_seen_is_what_a_release_finds(
    repository: Repository, bare: Repository, git: GitSource, scheme: str
) -> None:
    spec = model(f"{scheme}{bare.path}")
    repository.train_py(WORSE_TRAIN_PY, "try the mean")
    repository.git("push", "--quiet", str(bare.path), "main")
    seen = git.seen_commit(spec, head_of(git, spec))
    assert seen.commit == git.resolve(spec)
    assert seen.commit.message == "try the mean"
    assert seen.spec is not None
    assert seen.spec.contract_digest == spec.contract_digest
    assert seen.changed_files is None


def test_changed_files_since_the_last_report(
    repository: Repository, bare: Repository, git: GitSource
) -> None:
    spec = model(f"file://{bare.path}")
    first = head_of(git, spec)
    git.seen_commit(spec, first)
    repository.git("mv", f"{FOLDER}/train.py", f"{FOLDER}/moved.py")
    repository.write("mlops_assets/models/other/train.py", "")
    for number in range(30):
        repository.write(f"{FOLDER}/part{number:02}.py", f"{number}\n")
    repository.commit()
    repository.git("push", "--quiet", str(bare.path), "main")
    seen = git.seen_commit(spec, head_of(git, spec), first)
    assert seen.changed_files == 32
    assert len(seen.changed) == 20
    assert seen.changed[0] == f"{FOLDER}/moved.py"
    assert git.seen_commit(spec, head_of(git, spec), "0" * 40).changed_files is None


def test_what_a_commit_does_not_hold(repository: Repository, git: GitSource) -> None:
    head = head_of(git, model())
    with pytest.raises(NotInCommitError, match=r"other/model\.yaml: not in commit"):
        git.seen_commit(model(name="other"), head)
    assert git.head_folders(model(), head, "mlops_assets/models") == {"rent"}
    with pytest.raises(GitError, match="git fetch in"):
        git.head_tree(model(), "0123456789" * 4)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"owner: team:tests\n", "task"), (b"owner: \xff", "not UTF-8"), (b"{", "model.yaml")],
)
def test_a_broken_model_yaml_is_seen_as_such(
    repository: Repository, git: GitSource, content: bytes, problem: str
) -> None:
    (repository.path / FOLDER / "model.yaml").write_bytes(content)
    repository.commit()
    seen = git.seen_commit(model(), head_of(git, model()))
    assert seen.spec is None
    assert problem in seen.problem


def test_what_this_repository_stands_for(
    repository: Repository, bare: Repository, git: GitSource
) -> None:
    server = git.model_copy(update={"repository": str(bare.path)})
    repository.git("checkout", "--quiet", "--detach")
    repository.train_py(WORSE_TRAIN_PY)
    assert server.branch(model()) == Branch(str(bare.path), "main", checkout=False)
    assert (
        head_of(server, model()) == server.resolve(model()).commit == bare.git("rev-parse", "main")
    )
    assert head_of(git, model()) == repository.git("rev-parse", "HEAD")
