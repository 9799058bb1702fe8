from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.assets.sources import TRAINING_CODE, report
from mlops_assets.sensors.git import git_sensor
from resources.git import GitError
from tests.git_servers import GIT_SCRIPT, model, wrapped
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY
from tests.sensors.watch import Watch, forbid_queries

FOLDER = "mlops_assets/models/rent"


def test_the_first_tick_reports_the_head_with_its_author(watch: Watch) -> None:
    head = watch.push_train(WORSE_TRAIN_PY, "try the mean")
    assert watch.tick() == ["rent"]
    metadata = dict(watch.seen().metadata)
    assert metadata.pop("changed").startswith("not known")
    assert len(metadata.pop("time")) == 25
    assert metadata == {
        "commit": head,
        "author": "Ada <ada@example.org>",
        "message": "try the mean",
        "branch": "main",
        "repository": f"file://{watch.bare.path}",
        "contract": watch.specs[0].contract_digest,
        "tree": watch.seen().version,
    }
    assert watch.seen().version == watch.git.resolve(watch.specs[0]).tree
    assert watch.said == "1 repository, 1 model: 1 looked at, reported: rent"


def test_nothing_moved_costs_one_question_and_no_query(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = watch.specs[0].source.repository
    watch.load(*watch.specs, model(url, "second"), model(url, "third"), model())
    watch.tick()
    started = wrapped("git", tmp_path, monkeypatch, GIT_SCRIPT)
    forbid_queries(watch, monkeypatch)
    assert watch.tick() == []
    assert watch.said == "2 repositories, 4 models: nothing moved"
    lines = started.read_text().splitlines()
    assert len([line for line in lines if " ls-remote " in line]) == 2
    assert len([line for line in lines if line.startswith("-c ")]) == 2  # upload-pack aside


def test_a_push_is_reported_once(watch: Watch) -> None:
    watch.tick()
    watch.repository.write(f"{FOLDER}/features.py", "")
    head = watch.push_train(WORSE_TRAIN_PY)
    assert watch.tick() == ["rent"]
    assert watch.tick() == []
    assert watch.seen().metadata["commit"] == head
    assert watch.seen().metadata["changed"] == f"{FOLDER}/features.py\n{FOLDER}/train.py"


def test_two_pushes_between_ticks_are_one_report_of_the_newest(watch: Watch) -> None:
    watch.tick()
    watch.push_train(WORSE_TRAIN_PY)
    newest = watch.push_train(TRAIN_PY + "\n# better\n")
    assert watch.tick() == ["rent"]
    assert (watch.reports(), watch.seen().metadata["commit"]) == (2, newest)


def test_a_revert_is_reported_again(watch: Watch) -> None:
    watch.tick()
    first = watch.seen().version
    watch.push_train(WORSE_TRAIN_PY)
    watch.tick()
    watch.push_train(TRAIN_PY, "revert")
    assert watch.tick() == ["rent"]
    assert watch.seen().version == first
    assert watch.seen().metadata["message"] == "revert"


def test_another_model_and_documentation_report_nothing(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch.tick()
    watch.repository.write("mlops_assets/models/other/train.py", "")
    watch.repository.write(f"{FOLDER}/README.md", "# rent\n\nMore words.\n")
    watch.repository.commit()
    head = watch.push()
    assert watch.tick() == []
    assert watch.said == "1 repository, 1 model: 1 looked at, reported: none"
    assert f"rent: nothing of it changes with {head[:10]}" in capsys.readouterr().err
    assert watch.tick() == []
    assert watch.said.endswith("nothing moved")


def test_a_merge(watch: Watch) -> None:
    watch.tick()
    watch.repository.git("checkout", "--quiet", "-b", "feature")
    watch.repository.train_py(WORSE_TRAIN_PY)
    watch.repository.git("checkout", "--quiet", "main")
    watch.repository.write("notes.txt", "")
    watch.repository.commit()
    watch.repository.git("merge", "--quiet", "--no-ff", "--message", "merge it", "feature")
    head = watch.push()
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["commit"] == head
    assert watch.seen().metadata["message"] == "merge it"
    assert watch.seen().metadata["changed"] == f"{FOLDER}/train.py"


def test_a_force_push(watch: Watch) -> None:
    watch.push_train(WORSE_TRAIN_PY)
    watch.tick()
    watch.repository.git("reset", "--quiet", "--hard", "HEAD~1")
    watch.repository.train_py(TRAIN_PY + "\n# rewritten\n", "rewritten")
    head = watch.push("--force")
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["commit"] == head == watch.git.resolve(watch.specs[0]).commit
    watch.repository.git("commit", "--quiet", "--amend", "--message", "the same files")
    watch.push("--force")
    assert watch.tick() == []


def test_a_branch_deleted_and_made_again(watch: Watch) -> None:
    watch.tick()
    cursor = watch.cursor
    watch.bare.git("branch", "other", "main")
    watch.bare.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(GitError, match=r"'main': no such branch in .*there are: other"):
        watch.tick()
    assert watch.cursor == cursor
    watch.push()
    assert watch.tick() == []
    watch.bare.git("update-ref", "-d", "refs/heads/main")
    head = watch.push_train(WORSE_TRAIN_PY)
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["commit"] == head


def test_a_model_new_to_the_code_location_is_looked_at(watch: Watch) -> None:
    watch.repository.write("mlops_assets/models/second/model.yaml", MODEL_YAML)
    watch.repository.commit()
    watch.push()
    assert watch.tick() == ["rent"]
    watch.load(*watch.specs, model(watch.specs[0].source.repository, "second"))
    assert watch.tick() == ["second"]
    assert watch.tick() == []


def test_a_source_that_is_elsewhere_now_is_looked_at(watch: Watch) -> None:
    watch.bare.git("branch", "next", "main")
    url = watch.specs[0].source.repository
    watch.load(model(url), model(url, "second", "next"))
    watch.tick()
    watch.push_train(WORSE_TRAIN_PY)
    watch.bare.git("branch", "--force", "next", "main")
    watch.tick()
    watch.bare.git("branch", "--force", "next", "main~1")
    watch.tick()
    watch.load(model(url, branch="next"), model(url, "second", "next"))
    assert watch.tick() == ["rent"]


def test_this_repository_by_its_checkout_and_by_its_name(watch: Watch) -> None:
    watch.load(model())
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["repository"] == "."
    watch.repository.git("checkout", "--quiet", "--detach")
    detached = watch.repository.train_py(WORSE_TRAIN_PY)
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["commit"] == detached
    watch.git = watch.git.model_copy(update={"repository": str(watch.bare.path)})
    watch.load(model())
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["repository"] == str(watch.bare.path)
    assert watch.seen().metadata["commit"] == watch.bare.git("rev-parse", "main")


def test_what_a_run_reported_too_late_is_corrected(watch: Watch) -> None:
    clock = [1000.0]
    sensor = git_sensor(watch.specs, watch.git, dg.DefaultSensorStatus.RUNNING, lambda: clock[0])
    watch.sensor = sensor
    watch.tick()
    first = watch.seen()
    watch.push_train(WORSE_TRAIN_PY)
    watch.tick()
    newest = watch.seen().version
    late = report("rent", TRAINING_CODE, first.version, first.metadata)
    watch.instance.report_runless_asset_event(late)
    assert watch.tick() == []
    clock[0] += 61
    assert watch.tick() == ["rent"]
    assert watch.seen().version == newest
    # Once: who insists has loaded another model.yaml.
    watch.instance.report_runless_asset_event(late)
    clock[0] += 61
    assert watch.tick() == []
