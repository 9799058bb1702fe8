"""`mlops` as people type it; processes of its own only where the environment matters."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlops_assets import cli, page
from mlops_assets.files import to_json, write_atomic
from mlops_assets.runs import process_name
from mlops_assets.scoring.keys import read_keys
from resources.environment import Profile, checkout, load_profile
from resources.serving import Serving
from tests.repository import MODEL_YAML, Repository, make_repository, rows
from tests.signing_keys import write_key


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Profile]:
    """A clone with one model and its sample data; `mlops` works there."""
    repository = make_repository(tmp_path / "clone")
    repository.write("samples/data/rent/rents.csv", rows(200))
    repository.write("dagster.yaml", "telemetry: {enabled: false}\n")
    repository.commit("sample data")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr("resources.environment.checkout", lambda: repository.path)
    profile = load_profile()
    yield profile
    Serving(profile).stop()


def mlops(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def test_the_demo_and_what_comes_after(clone: Profile, capfd: pytest.CaptureFixture[str]) -> None:
    assert mlops("endpoints") == (0, "no endpoint yet: `make demo` deploys the sample models\n")
    code, first = mlops("demo")
    assert code == 0, first
    assert "1 files from samples/data" in first
    assert "✓ rent/trained_model" in first
    assert "registered version 1" in first
    code, again = mlops("demo")
    assert code == 0, again
    assert "registered version" not in again
    assert "version 1 serves already; nothing to do" in again
    code, listed = mlops("endpoints", "--json")
    found = json.loads(listed)
    assert [(e["model"], e["environment"], e["version"], e["healthy"]) for e in found] == [
        ("rent", "staging", 1, True),
        ("rent", "production", 1, True),
    ]
    assert set(found[0]) == {
        "model",
        "environment",
        "version",
        "url",
        "healthy",
        "key_command",
        "key_file",
    }
    lines = [line for line in first.splitlines() if line.startswith("curl ")]
    assert len(lines) == 2
    for line in lines:
        done = subprocess.run(line, shell=True, check=True, capture_output=True, text=True)
        assert len(json.loads(done.stdout)["predictions"]) == 1
    code, answer = mlops("invoke", "rent", "production")
    assert code == 0
    assert len(json.loads(answer)["predictions"]) == 1
    code, answer = mlops("invoke", "rent", "production", "--sample", "no rooms")
    assert code == 1
    assert "the endpoint answers 400" in answer
    code, copied = mlops("package", "rent", "--to", str(clone.home / "out"))
    assert code == 0, copied
    assert f"{clone.home}/out/rent_model-1.0.0-py3-none-any.whl\n" in copied
    assert {str(path) for path in (clone.home / "out").iterdir()} <= set(copied.split())
    rotate_a_key(clone)
    sign_a_version(clone)
    clone.samples_of("rent", "production").unlink()
    code, table = mlops("endpoints")
    assert code == 1
    assert "rent   production   1        yes" in table
    assert "samples/requests/rent/production.json: missing" in table
    assert mlops("stop") == (0, "ended: rent/production, rent/staging\n")
    assert mlops("stop") == (0, "nothing was running\n")
    code, table = mlops("endpoints")
    assert "NO" in table
    capfd.readouterr()


def rotate_a_key(clone: Profile) -> None:
    path = clone.home / "endpoints" / "production" / "rent" / "keys"
    primary, secondary = read_keys(path)
    code, said = mlops("rotate-keys", "rent", "production", "--key", "secondary")
    assert code == 0
    assert f"the new secondary key is line 2 of {path}; the primary one is as it was" in said
    kept, new = read_keys(path)
    assert kept == primary
    assert new != secondary
    assert new.decode() not in said
    assert mlops("rotate-keys", "rent", "production")[0] == 0
    assert read_keys(path)[1] == new
    assert read_keys(path)[0] != primary
    assert mlops("invoke", "rent", "production")[0] == 0
    code, said = mlops("rotate-keys", "rent", "development")
    assert (code, "no key; deploy to this endpoint first" in said) == (1, True)


def sign_a_version(clone: Profile) -> None:
    private, _ = write_key(clone.home, "release")
    code, said = mlops("sign", "rent", "1", "--key", str(private))
    path = clone.home / "registry" / "rent" / "signatures" / "1.sig"
    assert (code, said) == (0, f"rent 1 is signed: {path}\n")
    assert path.is_file()
    code, said = mlops("sign", "rent", "1", "--key", str(clone.home / "nowhere"))
    assert (code, "nowhere: No such file" in said) == (1, True)
    code, said = mlops("sign", "rent", "9", "--key", str(private))
    assert (code, "model rent has no version 9; registered: 1" in said) == (1, True)
    extra = clone.home / "registry" / "rent" / "versions" / "1" / "extra"
    extra.touch()
    code, said = mlops("sign", "rent", "1", "--key", str(private))
    assert (code, "rent 1: not as registered: extra" in said) == (1, True)
    extra.unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rent", "moon"), "no environment 'moon' in profile local; there are:"),
        (("rent", "staging", "--sample", "x"), "no sample 'x'; there are: a flat, no rooms"),
        (("other", "staging"), "samples/requests/other/staging.json: missing"),
        (("rent", "staging"), "no key; deploy to this endpoint first"),
    ],
)
def test_asking_what_is_not_there(clone: Profile, arguments: list[str], message: str) -> None:
    code, output = mlops("invoke", *arguments)
    assert code == 1
    assert message in output


def test_copying_a_package_that_is_not_there(clone: Profile) -> None:
    code, output = mlops("package", "rent", "--to", str(clone.home / "out"))
    assert code == 1
    assert "rent: no version is packaged; materialize rent/package; packaged: none" in output
    code, output = mlops("package", "other", "--to", str(clone.home / "out"))
    assert code == 2
    assert "no model 'other'; there are: rent" in output


def test_validate_prints_every_problem(clone: Profile) -> None:
    assert mlops("validate")[0] == 0
    repository = Repository(clone.root)
    wrong = MODEL_YAML.replace("nullable", "nullible")
    repository.write("mlops_assets/models/other/model.yaml", wrong)
    gates = {"rent": {"quality": {"r2": {"minimum": 0.1}}}}
    staging = {"name": "staging", "target": "local", "gates": gates}
    repository.write("environments/local/staging.json", json.dumps(staging))
    code, output = mlops("validate")
    assert code == 1
    assert "other/model.yaml: data.columns.district.nullible: unknown key" in output
    assert "staging.json: gates.rent.quality.r2.minimum: 0.1 is looser than" in output
    repository.write("environments/local/staging.json", "{")
    code, output = mlops("validate")
    assert code == 1
    assert "staging.json: " in output


def test_columns_to_capture_that_no_model_has_are_wrong(clone: Profile) -> None:
    declared = {"name": "staging", "target": "local", "capture": {"exclude": ["District"]}}
    Repository(clone.root).write("environments/local/staging.json", json.dumps(declared))
    said = "capture.exclude: no model has a column 'District'; perhaps 'district'"
    for command in ("validate", "doctor", "demo"):
        code, output = mlops(command)
        assert code == 1
        assert "staging.json" in output
        assert said in output


def test_the_demo_of_a_model_that_fails(clone: Profile) -> None:
    Repository(clone.root).train_py("def build(params):\n    raise ValueError('no idea')\n")
    code, output = mlops("demo")
    assert code == 1
    assert "✗ rent/trained_model" in output
    assert "train.py:2" in output
    assert "ValueError: no idea" in output
    assert "Error: the run failed" in output


def test_a_state_folder_that_cannot_be_written(
    clone: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "file" / "home"))
    for command in ("demo", "dev"):
        code, output = mlops(command)
        assert code == 1
        assert "cannot be written (Not a directory); make room, or set MLOPS_HOME" in output


def test_a_home_folder_that_is_not_there(tmp_path: Path) -> None:
    """The platform writes to its state folder alone."""
    environment = {**os.environ, "HOME": "/nonexistent/home", "MLOPS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "mlops_assets.cli", "endpoints"],
        cwd=checkout(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_many_first_starts_at_once_share_one_set_of_databases(tmp_path: Path) -> None:
    ready = """
from mlops_assets.state import ready
from resources.environment import load_profile
ready(load_profile())
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    print(len(instance.get_runs()))
"""
    environment = {**os.environ, "MLOPS_HOME": str(tmp_path / "home")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ready],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "0\n"), err


def test_the_page_runs_once(clone: Profile) -> None:
    write_atomic(clone.home / "page.json", to_json({"process": process_name(), "port": 4711}))
    code, output = mlops("dev")
    assert code == 1
    assert "the page runs already: http://127.0.0.1:4711" in output


def test_a_record_of_a_page_that_is_gone(clone: Profile) -> None:
    write_atomic(clone.home / "page.json", to_json({"process": f"{os.getpid()}@1.0", "port": 1}))
    assert page.stop(clone) == []


def test_monitor_prints_verdicts_and_tells_an_alarm_by_its_exit_code(
    clone: Profile, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said = mlops("monitor", "rent", "production")
    assert code == 1
    assert "production captures nothing" in said
    place = clone.root / "environments/local/production.json"
    place.write_text(
        '{"name": "production", "target": "local", "promotes_from": "staging", '
        '"latency_ms": 2000, "capture": {"rotate_seconds": 0.2}}'
    )
    code, said = mlops("monitor", "rent", "production")
    assert (code, "nothing serves production yet" in said) == (1, True)
    assert mlops("demo")[0] == 0
    assert mlops("invoke", "rent", "production")[0] == 0
    code, said = mlops("monitor", "rent", "production")
    assert code == 0, said
    assert "rent version 1 in production" in said
    assert "drift: too few rows" in said
    later = "2100-01-01T00:00"
    code, said = mlops("monitor", "rent", "production", "--now", later)
    assert code == 2, said
    assert "freshness: alarm" in said
    code, said = mlops("monitor", "rent", "production", "--now", "soon")
    assert code == 2
    assert "'soon' is no time" in said
