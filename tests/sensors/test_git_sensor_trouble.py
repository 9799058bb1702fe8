import json
import shutil

import pytest

from mlops_assets.assets.sources import TRAINING_CODE, report
from mlops_assets.sensors.git import Cursor
from resources.git import GitError
from tests.git_servers import model
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY
from tests.sensors.watch import Watch, forbid_queries

FOLDER = "mlops_assets/models/rent"


def test_an_unreachable_repository_hinders_no_other(watch: Watch) -> None:
    mine = model(name="mine")
    watch.repository.write("mlops_assets/models/mine/model.yaml", MODEL_YAML)
    watch.repository.commit()
    watch.load(mine, *watch.specs)
    watch.tick()
    cursor = watch.cursor
    away = watch.bare.path.rename(watch.bare.path.with_name("away.git"))
    watch.repository.write("mlops_assets/models/mine/train.py", TRAIN_PY)
    pushed = watch.repository.commit()
    for _ in range(2):
        with pytest.raises(GitError, match=r"file://.*bare\.git: cannot be reached: "):
            watch.tick()
        assert watch.seen("mine").metadata["commit"] == pushed
        assert watch.cursor == cursor
    assert watch.reports("mine") == 2
    away.rename(watch.bare.path)
    head = watch.push_train(WORSE_TRAIN_PY)
    assert watch.tick() == ["rent"]
    assert watch.seen().metadata["commit"] == head
    assert watch.reports("mine") == 2
    assert watch.tick() == []


def test_a_daemon_started_again_while_one_is_unreachable_repeats_nothing(watch: Watch) -> None:
    watch.load(model(), model(watch.bare.path, "gone"))
    shutil.rmtree(watch.bare.path)
    for _ in range(2):
        with pytest.raises(GitError, match="cannot be reached"):
            watch.tick()
        watch.load(*watch.specs)  # all that was held in memory is lost
    assert watch.reports() == 1


def test_while_one_is_unreachable_the_others_cost_no_query(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.load(model(), model(watch.bare.path.parent / "gone", "gone"))
    with pytest.raises(GitError, match="cannot be reached"):
        watch.tick()
    forbid_queries(watch, monkeypatch)
    with pytest.raises(GitError, match="cannot be reached"):
        watch.tick()


def test_a_report_that_somebody_else_made_is_not_repeated(watch: Watch) -> None:
    watch.tick()
    watch.push_train(WORSE_TRAIN_PY)
    commit = watch.git.resolve(watch.specs[0])
    event = report("rent", TRAINING_CODE, commit.tree, {"commit": commit.commit})
    watch.instance.report_runless_asset_event(event)
    assert watch.tick() == []


@pytest.mark.parametrize(
    "cursor", ["garbage", "[]", '{"heads": 3}', '{"heads": {"a": 1}, "trees": []}', "null", ""]
)
def test_a_cursor_that_is_none_of_ours_starts_anew(watch: Watch, cursor: str) -> None:
    assert Cursor.parse(cursor) == Cursor()
    watch.cursor = cursor
    assert watch.tick() == ["rent"]
    watch.cursor = cursor
    assert watch.tick() == []


def test_a_broken_model_yaml_is_reported_as_such(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch.tick()
    watch.repository.write(f"{FOLDER}/model.yaml", "owner: nobody\n")
    watch.repository.commit()
    watch.push()
    assert watch.tick() == ["rent"]
    metadata = watch.seen().metadata
    assert metadata["contract"] == f"unreadable:{watch.seen().version}"
    assert "owner" in metadata["problem"]
    assert "releasing it will fail" in capsys.readouterr().err
    assert watch.tick() == []


def test_a_model_that_the_head_does_not_hold_hinders_no_other(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch.load(model(watch.specs[0].source.repository, "ghost"), *watch.specs)
    assert watch.tick() == ["rent"]
    assert "ghost: mlops_assets/models/ghost/model.yaml: not in commit" in capsys.readouterr().err
    assert watch.tick() == []
    assert watch.said.endswith("nothing moved")
    watch.repository.write("mlops_assets/models/ghost/model.yaml", MODEL_YAML)
    watch.repository.commit()
    watch.push()
    assert watch.tick() == ["ghost"]


def test_what_wants_a_reload_is_said(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    watch.load(model())
    watch.tick()
    assert "reload the code location" not in capsys.readouterr().err
    text = MODEL_YAML.replace("team:tests", "team:others")
    watch.repository.write(f"{FOLDER}/model.yaml", text)
    watch.repository.write("mlops_assets/models/second/model.yaml", MODEL_YAML)
    watch.repository.write("mlops_assets/models/_private/notes.txt", "")
    watch.repository.commit()
    watch.tick()
    said = capsys.readouterr().err
    assert "rent: owner in model.yaml of" in said
    assert "holds models not loaded: second: reload the code location" in said


def test_the_model_yaml_of_another_repository_names_a_source_of_its_own(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch.tick() == ["rent"]
    assert "reload" not in capsys.readouterr().err


def test_no_password_in_cursor_or_error(watch: Watch) -> None:
    watch.load(model("https://ada:s3cr3t@localhost:1/flats.git"))
    with pytest.raises(GitError) as caught:
        watch.tick()
    assert "s3cr3t" not in str(caught.value)
    script = watch.bare.path.parent / "ssh"
    script.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_SSH_COMMAND", str(script))
        watch.load(model(f"ssh://ada:s3cr3t@localhost{watch.bare.path}"))
        assert watch.tick() == ["rent"]
    (key,) = json.loads(watch.cursor or "")["heads"]
    assert key == f"ssh://***@localhost{watch.bare.path} main"
    assert "s3cr3t" not in f"{watch.cursor}{watch.seen().metadata}{watch.said}"
