"""What the workflow of pull requests runs, on GitHub and in Azure Pipelines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.experiment import changed_models
from resources.environment import load_profile
from resources.git_commands import GitError
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, Repository, make_repository
from tests.resources.trackers.azure_devops import AzureDevOps
from tests.resources.trackers.github import GitHub
from tests.resources.trackers.server import TOKEN, serve
from tests.test_steering import mlops, steer

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "experiment.yml"
PIPELINE = ROOT / ".azuredevops" / "experiment.yml"
#: The command, where nothing is installed.
MLOPS = "'from mlops_assets.cli import main; main()'"


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


def pipeline_steps(job: str) -> list[dict[str, Any]]:
    """The steps of a job of the pipeline, those that it has under a condition too."""
    (found,) = [one for one in yaml.safe_load(PIPELINE.read_text())["jobs"] if one["job"] == job]
    steps: list[dict[str, Any]] = []
    for step in found["steps"]:
        (first,) = list(step.items())[:1]
        steps += first[1] if first[0].startswith("${{") else [step]
    return steps


def test_what_the_branch_brings_gets_no_token_in_azure_pipelines() -> None:
    train, comment = pipeline_steps("train"), pipeline_steps("comment")
    assert "AccessToken" not in str(train)
    assert "AccessToken" in str(comment[-1]), "the search finds it"
    for step in [*train, *comment]:
        script = step.get("bash", "") + step.get("inputs", {}).get("inlineScript", "")
        assert "$(" not in script, "what others name comes by the environment"
        assert step.get("persistCredentials", "false") == "false"


def test_the_pipeline_trains_the_branch_and_comments_by_the_base(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own scripts, in a clone of the merge commit as Azure Pipelines checks it out."""
    repository.git("switch", "--quiet", "--create", "revise/rent-3")
    repository.train_py(WORSE_TRAIN_PY)
    head = repository.git("rev-parse", "HEAD").strip()
    repository.git("switch", "--quiet", "--detach", "main")
    repository.git("merge", "--quiet", "--no-ff", "-m", "merge", "revise/rent-3")
    azure = AzureDevOps()
    clone = Repository(tmp_path / "agent")
    workspace = tmp_path / "workspace"
    for path in (workspace / "experiment", tmp_path / "bin"):
        path.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", str(repository.path), str(clone.path)], check=True)
    clone.git("switch", "--quiet", "--detach", repository.git("rev-parse", "HEAD").strip())
    with serve(azure) as server:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "MLOPS_HOME": str(tmp_path / "home"),
            "MLOPS_TRACKER_URL": server.url,
            "SYSTEM_COLLECTIONURI": "https://dev.azure.com/acme/",
            "SYSTEM_TEAMPROJECT": "Rents of flats",
            "SYSTEM_PULLREQUEST_PULLREQUESTID": "17",
            "SYSTEM_PULLREQUEST_SOURCEBRANCH": "refs/heads/revise/rent-3",
            "SYSTEM_PULLREQUEST_TARGETBRANCH": "refs/heads/main",
            "SYSTEM_PULLREQUEST_SOURCECOMMITID": head,
            "PIPELINE_WORKSPACE": str(workspace),
        }

        def runs(step: dict[str, Any]) -> None:
            script = step["bash"].replace(".venv/bin/mlops", f"{sys.executable} -c {MLOPS}")
            more = dict.fromkeys(step.get("env", {}), TOKEN)
            subprocess.run(
                ["bash", "-c", script], cwd=clone.path, env=environment | more, check=True
            )

        branch, experiment = [
            step
            for step in pipeline_steps("train")
            if "bash" in step and "make install" not in step["bash"]
        ]
        runs(branch)
        assert clone.git("symbolic-ref", "--short", "HEAD").strip() == "revise/rent-3"
        assert clone.git("rev-parse", "HEAD").strip() == head
        monkeypatch.chdir(clone.path)
        assert "--changed-since refs/experiment/base" in experiment["bash"]
        assert changed_models(load_profile(environment, clone.path), "refs/experiment/base") == [
            "rent"
        ]
        base, comment = [
            step
            for step in pipeline_steps("comment")
            if "bash" in step and "make install" not in step["bash"]
        ]
        runs(base)
        assert clone.git("rev-parse", "HEAD") == repository.git("rev-parse", "main")
        for text in ("worse", "better"):
            (workspace / "experiment" / "experiment.md").write_text(text)
            runs(comment)
    (thread,) = azure.threads
    assert thread["comments"][0]["content"] == "better\n\n`mlops-experiment`"
