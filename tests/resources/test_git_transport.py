from pathlib import Path

import pytest

from resources.git import GitSource
from resources.git_commands import mask
from tests.git_servers import SSH_SCRIPT, head_of, held, model, wrapped
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, Repository

FOLDER = "mlops_assets/models/rent"


def test_who_does_not_answer_is_given_up(
    bare: Repository, git: GitSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped("ssh", tmp_path, monkeypatch, "sleep 60")
    monkeypatch.setattr("resources.git_heads.LS_REMOTE_SECONDS", 0.3)
    heads = git.heads([model("git@nowhere.example:flats.git"), model(bare.path)])
    (error,) = heads.errors.values()
    assert "git@nowhere.example:flats.git: cannot be reached: " in str(error)
    assert "no answer within 0.3 s" in str(error)
    assert len(heads.found) == 1


def test_neither_history_nor_contents_are_fetched(
    repository: Repository, bare: Repository, git: GitSource
) -> None:
    for text in (WORSE_TRAIN_PY, TRAIN_PY, WORSE_TRAIN_PY):
        repository.train_py(text)
    repository.write("data/large.bin", "x" * 100_000)
    repository.commit()
    repository.git("push", "--quiet", str(bare.path), "main")
    spec = model(f"file://{bare.path}")
    head = head_of(git, spec)
    git.seen_commit(spec, head)
    there = held(git)
    assert there["commit"] == {head}
    assert there["blob"] == {repository.git("rev-parse", f"HEAD:{FOLDER}/model.yaml")}
    repository.train_py(TRAIN_PY)
    repository.git("push", "--quiet", str(bare.path), "main")
    git.seen_commit(spec, head_of(git, spec), head)
    assert held(git)["blob"] == there["blob"]
    assert len(held(git)["commit"]) == 2


def test_one_fetch_for_all_models_of_a_head(
    repository: Repository,
    bare: Repository,
    git: GitSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("a", "b", "c", "d")
    for name in names:
        text = MODEL_YAML + f"description: the model {name}\n"
        repository.write(f"mlops_assets/models/{name}/model.yaml", text)
    repository.commit()
    repository.git("push", "--quiet", str(bare.path), "main")
    specs = [model(f"file://{bare.path}", name=name) for name in names]
    head = head_of(git, specs[0])
    trace = tmp_path / "trace"
    monkeypatch.setenv("GIT_TRACE2", str(trace))
    for spec in specs:
        assert git.seen_commit(spec, head).spec is not None
    # One for the commit; one, of git's own making, for what every model.yaml holds.
    served = [line for line in trace.read_text().splitlines() if "cmd_name upload-pack" in line]
    assert len(served) == 2
    assert len(held(git)["blob"]) == len(names) + 1


def test_a_server_without_filters(repository: Repository, bare: Repository, git: GitSource) -> None:
    bare.git("config", "uploadpack.allowFilter", "false")
    spec = model(f"file://{bare.path}")
    seen = git.seen_commit(spec, head_of(git, spec))
    assert seen.commit == git.resolve(spec)
    assert seen.spec is not None


def test_what_a_killed_git_left_behind_hinders_nobody(
    repository: Repository, git: GitSource
) -> None:
    git.head_tree(model(), head_of(git, model()))
    (mirror,) = Path(git.mirrors).glob("*.heads.git")
    (mirror / "shallow.lock").touch()
    (mirror / "HEAD").unlink()
    git.heads([model()])
    (mirror / "shallow.lock").touch()
    repository.train_py(WORSE_TRAIN_PY)
    assert git.head_tree(model(), head_of(git, model())) == git.resolve(model()).tree


def test_ssh_never_asks(
    repository: Repository,
    bare: Repository,
    git: GitSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = wrapped("ssh", tmp_path, monkeypatch, SSH_SCRIPT)
    spec = model(f"ssh://git@git.example{bare.path}")
    seen = git.seen_commit(spec, head_of(git, spec))
    assert seen.commit == git.resolve(spec)
    assert seen.commit.repository == f"ssh://git@git.example{bare.path}"
    assert held(git)["blob"] == {repository.git("rev-parse", f"HEAD:{FOLDER}/model.yaml")}
    assert all("BatchMode=yes" in line for line in calls.read_text().splitlines())


def test_an_ssh_command_of_ones_own_is_taken(
    bare: Repository, git: GitSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = wrapped("our-ssh", tmp_path, monkeypatch, SSH_SCRIPT)
    monkeypatch.setenv("GIT_SSH_COMMAND", "our-ssh -i key")
    head_of(git, model(f"ssh://git@git.example{bare.path}"))
    assert "-i key" in calls.read_text()
    assert "BatchMode" not in calls.read_text()


def test_passwords_are_masked_everywhere(git: GitSource, repository: Repository) -> None:
    url = "https://ada:s3cr3t@localhost:1/flats.git"
    (branch,) = git.heads([model(url)]).errors
    (error,) = git.heads([model(url)]).errors.values()
    for text in (str(branch), repr(branch), str(error), branch.repository):
        assert "s3cr3t" not in text
    assert "https://***@localhost:1/flats.git: cannot be reached" in str(error)
    assert not [
        p for p in Path(git.mirrors).rglob("*") if p.is_file() and b"s3cr3t" in p.read_bytes()
    ]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "https://ada:a@b:c@host/x and http://token@host",
            "https://***@host/x and http://***@host",
        ),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("ssh://git:pw@host/x", "ssh://***@host/x"),
        (
            "git@host:x, mailto ada@host, file:///srv/a@b",
            "git@host:x, mailto ada@host, file:///srv/a@b",
        ),
    ],
)
def test_mask(text: str, masked: str) -> None:
    assert mask(text) == masked
