"""What the workflow of pull requests runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mlops_assets.experiment import changed_models
from resources.environment import load_profile
from resources.git_commands import GitError
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, Repository, make_repository
from tests.resources.trackers.github import GitHub
from tests.resources.trackers.server import TOKEN, serve
from tests.test_steering import mlops, steer

WORKFLOW = Path(__file__).parents[1] / ".github" / "workflows" / "experiment.yml"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    found = make_repository(tmp_path / "clone")
    steer(found.path, tmp_path / "home", monkeypatch)
    return found


def test_models_that_a_branch_changes(repository: Repository) -> None:
    profile = load_profile()
    other = "mlops_assets/models/other"
    repository.write(f"{other}/model.yaml", MODEL_YAML)
    repository.write(f"{other}/train.py", TRAIN_PY)
    repository.commit()
    repository.git("switch", "--quiet", "--create", "idea")
    assert changed_models(profile, "main") == []
    repository.write("mlops_assets/models/rent/README.md", "# other words\n")
    repository.commit()
    assert changed_models(profile, "main") == []
    repository.train_py(WORSE_TRAIN_PY)
    assert changed_models(profile, "main") == ["rent"]
    # What the base has done since is not the branch's.
    repository.git("switch", "--quiet", "main")
    repository.write(f"{other}/train.py", WORSE_TRAIN_PY)
    repository.commit()
    repository.git("switch", "--quiet", "idea")
    assert changed_models(profile, "main") == ["rent"]
    for wrong in ("nowhere", "--all"):
        with pytest.raises(GitError):
            changed_models(profile, wrong)


def test_no_model_differs(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "experiment.md"
    code, text = mlops("experiment", "--changed-since", "main", "--markdown", str(path))
    assert (code, text, path.read_text()) == (0, "No model differs.\n\n", "No model differs.\n")
    code, text = mlops("experiment", "--changed-since", "nowhere")
    assert code == 1
    assert "nowhere" in text
    assert mlops("experiment")[0] == 2


def test_one_comment_on_a_pull_request(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "experiment.md"
    path.write_text("worse")
    code, text = mlops("comment", "1", str(path))
    assert (code, "set MLOPS_TRACKER=github:OWNER/REPOSITORY" in text) == (1, True)
    github = GitHub()
    github.issue("a pull request", "", pull_request={"url": "https://github.example.org/1"})
    with serve(github) as server:
        monkeypatch.setenv("MLOPS_TRACKER", "github:acme/rents")
        monkeypatch.setenv("MLOPS_TRACKER_URL", server.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        code, text = mlops("comment", "1", str(path))
        assert (code, text) == (0, "https://github.example.org/acme/rents/issues/1#1\n")
        path.write_text("better")
        assert mlops("comment", "1", str(path))[0] == 0
        monkeypatch.setenv("GITHUB_TOKEN", "another")
        code, text = mlops("comment", "1", str(path))
        assert (code, "the token is wrong" in text) == (1, True)
    assert [c["body"] for c in github.comments] == ["better\n\n<!-- mlops-experiment -->"]


def test_what_the_branch_brings_gets_no_permission_to_write() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    train, comment = workflow["jobs"]["train"], workflow["jobs"]["comment"]
    assert workflow["permissions"] == {"contents": "read"}
    assert train["permissions"] == {"contents": "read", "id-token": "write"}
    assert "GITHUB_TOKEN" not in str(train)
    assert comment["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    for step in [*train["steps"], *comment["steps"]]:
        assert "${{" not in step.get("run", ""), "what others name comes by the environment"
