import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlops_assets.spec import parse_model
from mlops_assets.strict import SpecError
from resources.environment import (
    Environment,
    LocalSettings,
    UnknownEnvironmentError,
    checkout,
    load_profile,
    public_key,
    schema,
)
from resources.limits import looser_limits
from tests.repository import MODEL_YAML


def write(root: Path, **environments: object) -> None:
    folder = root / "environments" / "local"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in environments.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def local(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "target": "local", **more}


def test_each_environment_comes_after_the_one_it_promotes_from(tmp_path: Path) -> None:
    write(
        tmp_path,
        alpha=local("alpha", promotes_from="beta"),
        beta=local("beta", promotes_from="gamma"),
        gamma=local("gamma"),
    )
    profile = load_profile({"MLOPS_HOME": str(tmp_path / "home")}, tmp_path)
    assert [e.name for e in profile.environments] == ["gamma", "beta", "alpha"]
    assert profile.home == tmp_path / "home"
    assert profile.environment("beta").promotes_from == "gamma"
    with pytest.raises(UnknownEnvironmentError, match="there are: gamma, beta, alpha"):
        profile.environment("delta")


def test_state_lies_in_the_checkout_by_default(tmp_path: Path) -> None:
    write(tmp_path, staging=local("staging"))
    assert load_profile({}, tmp_path).home == tmp_path / ".mlops"


def test_every_problem_of_every_file_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        staging=local("stage", workers=2),
        production={"name": "production", "target": "cloud"},
        test=local("other"),
    )
    with pytest.raises(SpecError) as caught:
        load_profile({}, tmp_path)
    text = str(caught.value)
    assert "staging.json: workers: unknown key; allowed here:" in text
    assert "production.json: target: input should be" in text
    assert "test.json: name: found 'other', must be the file's: 'test'" in text


def test_an_unknown_key_of_a_block_that_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path, staging=local("staging", capture={"exclud": ["age"]}))
    with pytest.raises(SpecError, match=r"capture.exclud: unknown key; allowed here: .*exclude"):
        load_profile({}, tmp_path)


def test_a_circle_or_a_name_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, staging=local("staging", promotes_from="testing"))
    with pytest.raises(SpecError, match="'testing' is no other environment"):
        load_profile({}, tmp_path)


def test_profiles_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(SpecError, match="no environment; add a file"):
        load_profile({}, tmp_path)
    with pytest.raises(SpecError, match="MLOPS_PROFILE is one of: local"):
        load_profile({"MLOPS_PROFILE": "moon"}, tmp_path)


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"quality": {"r2": {"minimum": 0.4}}}, "0.4 is looser than model.yaml's 0.5"),
        ({"quality": {"f1": {"minimum": 0.4}}}, "gates.rent.quality.f1: no such metric"),
        ({"champion": {"metric": "r2", "tolerance": 0.2}}, "0.2 is looser than model.yaml's 0.05"),
        ({"parity": {"tolerance": 0.01}}, "parity.tolerance: 0.01 is looser than model.yaml's"),
        (
            {"slices": {"metric": "r2", "minimum": 0.1}},
            "gates.rent.slices.minimum: 0.1 is looser than model.yaml's 0.3",
        ),
        ({"slices": {"metric": "r3", "minimum": 0.1}}, "gates.rent.slices.metric: no metric 'r3'"),
        ({"slices": {"metric": "r2", "maximum": 1}}, "gates.rent.slices: r2 has a minimum"),
        ({"parity": {"labels": 0.01}}, "gates.rent.parity.labels: 0.01 is looser than"),
        ({"quality": {"r2": {"minimum": 0.6}}}, None),
        ({"slices": {"metric": "r2", "minimum": 0.4, "tolerance": 0.1}}, None),
        ({"parity": {"tolerance": 1e-6, "labels": 0.0}}, None),
        ({"champion": {"metric": "r2", "tolerance": 0.0}}, None),
    ],
)
def test_an_environment_may_only_be_stricter(gates: object, message: str | None) -> None:
    text = f"{MODEL_YAML}  slices: {{metric: r2, minimum: 0.3}}\n"
    spec = parse_model(text, "rent", "model.yaml")
    environment = Environment.model_validate(local("staging", gates={"rent": gates}))
    found = looser_limits(environment, spec)
    assert [message in line for line in found] == ([True] if message else [])


def test_the_schema_for_editors_is_in_step() -> None:
    path = checkout() / "environments" / "environment.schema.json"
    assert path.read_text() == schema(), "run `make schema`"


def test_workers_for_all_models_or_for_some() -> None:
    same = LocalSettings.model_validate({"workers": 3})
    assert same.workers_of("rent") == 3
    some = LocalSettings.model_validate({"workers": {"rent": 2}})
    assert [some.workers_of("rent"), some.workers_of("other")] == [2, 1]
    for wrong in (0, 65, {"rent": 0}, "two"):
        with pytest.raises(ValidationError):
            LocalSettings.model_validate({"workers": wrong})


PEM = "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n"


def test_the_key_that_signs_what_serves(tmp_path: Path) -> None:
    plain = Environment.model_validate(local("staging"))
    assert public_key(plain, {}) is None
    asks = Environment.model_validate(local("staging", signing={"public_key": "RELEASE_KEY"}))
    path = tmp_path / "release.pem"
    path.write_text(PEM)
    for value in (PEM, str(path)):
        assert public_key(asks, {"RELEASE_KEY": value}) == PEM
    place = r"staging\.json: signing\.public_key: environment variable RELEASE_KEY: "
    for variables, message in (
        ({}, "is not set"),
        ({"RELEASE_KEY": " "}, "is not set"),
        ({"RELEASE_KEY": str(tmp_path / "x.pem")}, r"names .*x\.pem: .*No such file"),
    ):
        with pytest.raises(SpecError, match=place + message):
            public_key(asks, variables)
    with pytest.raises(ValidationError, match=r"signing\.public_key"):
        Environment.model_validate(local("staging", signing={"public_key": PEM}))


def test_an_environment_in_a_folder_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, staging=local("staging"))
    folder = tmp_path / "environments" / "local" / "production"
    folder.mkdir()
    file = folder / "environment.json"
    file.write_text(json.dumps(local("production", promotes_from="staging")))
    (folder / "deployment.json").write_text("{}")  # another tool's
    profile = load_profile({}, tmp_path)
    assert [e.name for e in profile.environments] == ["staging", "production"]
    assert profile.file_of("production") == file
    assert profile.documents_of("production") == folder


def test_a_folder_of_another_name_and_one_beside_its_file(tmp_path: Path) -> None:
    write(tmp_path, staging=local("staging"))
    for folder, name in (("staging", "staging"), ("live", "production")):
        path = tmp_path / "environments" / "local" / folder / "environment.json"
        path.parent.mkdir()
        path.write_text(json.dumps(local(name)))
    with pytest.raises(SpecError) as caught:
        load_profile({}, tmp_path)
    assert len(caught.value.problems) == 2
    assert "must be the folder's: 'live'" in str(caught.value)
    assert "there is staging.json too" in str(caught.value)


def test_a_target_on_azure_needs_the_profiles_file(tmp_path: Path) -> None:
    write(tmp_path, staging={"name": "staging", "target": "aks"})
    with pytest.raises(SpecError, match=r"target: 'aks' needs local/profile.json"):
        load_profile({}, tmp_path)
