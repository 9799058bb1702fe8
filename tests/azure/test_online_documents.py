"""Azure ML's documents of an environment: what is read, filled in and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlops_assets import cli
from mlops_assets.strict import SpecError
from resources.endpoints.azureml_documents import OnlineDocuments
from resources.endpoints.base import VersionRef
from resources.environment import Environment, checkout, load_profile
from tests.azure.online import documents

AZURE = {"MLOPS_PROFILE": "azure"}
VERSION = VersionRef("two_words", 7, "ab" * 32, Path())


def written(
    folder: Path, target: str = "managed", model: str = "two_words", **changes: Any
) -> OnlineDocuments:
    """The documents of a target; ``endpoint={...}`` and ``deployment={...}`` change keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in documents(target).items():
        changed = document | changes.get(name.partition(".")[0], {})
        (folder / name).write_text(json.dumps(changed))
    declared = {"name": "production", "target": target, "capture": changes.get("capture")}
    environment = Environment.model_validate(declared)
    return OnlineDocuments(folder, model, environment, changes.get("registry"))


@pytest.mark.parametrize("target", ["aks", "managed"])
def test_what_the_platform_fills_in_and_nothing_else(tmp_path: Path, target: str) -> None:
    found = written(tmp_path, target, deployment={"environment_variables": {"A": "b"}})
    endpoint: Any = found.endpoint()
    assert endpoint.name == "two-words-production"
    assert endpoint.tags == {"mlops_model": "two_words", "mlops_environment": "production"}
    made: Any = found.deployment("v7-abababab", VERSION, {"MLOPS_NO_KEYS": "true"}, "now")
    assert (made.name, made.endpoint_name) == ("v7-abababab", "two-words-production")
    assert made.model.removeprefix("azureml:") == "two_words:7"
    assert made.environment_variables == {"A": "b", "MLOPS_NO_KEYS": "true"}
    assert made.tags["mlops_version"] == "7"
    assert made.tags["mlops_digest"] == VERSION.digest
    assert made.environment.inference_config["livenessRoute"]["path"] == "/v2/health/live"


@pytest.mark.parametrize("target", ["aks", "managed"])
def test_capture_turns_on_the_platforms_own_collector(tmp_path: Path, target: str) -> None:
    found = written(tmp_path, target, capture={"share": 0.25, "keep_days": 3})
    made: Any = found.deployment("v7-abababab", VERSION, {}, "now")
    collections = made.data_collector.collections
    assert {name: one.enabled for name, one in collections.items()} == {
        "request": "true",
        "response": "true",
    }
    assert made.data_collector.sampling_rate == 0.25
    for key, value in (("exclude", ["a"]), ("columns", ["a"]), ("rotate_seconds", 5)):
        with pytest.raises(ValueError, match=rf"capture.{key}: Azure ML's data collector"):
            written(tmp_path, target, capture={key: value})


def test_a_models_own_document_takes_the_place_of_the_common_one(tmp_path: Path) -> None:
    found = written(tmp_path)
    own = tmp_path / "two_words"
    own.mkdir()
    (own / "endpoint.json").write_text('{"name": "two-words-of-ours", "auth_mode": "key"}')
    assert found.endpoint_name == "two-words-of-ours"
    assert written(tmp_path, model="other").endpoint_name == "other-production"


def test_a_shared_registry(tmp_path: Path) -> None:
    found = written(tmp_path, registry="shared")
    made: Any = found.deployment("v7-abababab", VERSION, {}, "now")
    assert made.model == "azureml://registries/shared/models/two_words/versions/7"
    with pytest.raises(SpecError, match="registry: Kubernetes endpoints"):
        written(tmp_path, "aks", registry="shared").check()


@pytest.mark.parametrize(
    ("target", "changes", "texts"),
    [
        ("managed", {"endpoint": {"name": "x" * 30}}, ["endpoint.json: name: Azure takes 3 to 32"]),
        ("managed", {"endpoint": {"name": "a_b"}}, ["found 'two-words-a_b'"]),
        ("managed", {"endpoint": {"name": 3}}, ["endpoint.json: name: must be a text"]),
        (
            "managed",
            {"endpoint": {"auth_mode": "none"}},
            ["json: auth_mode: value 'none'"],
        ),
        ("managed", {"endpoint": {"more": 1}}, ["endpoint.json: more: unknown field"]),
        (
            "managed",
            {"endpoint": {"traffic": {"a": 100}}},
            ["traffic: the platform moves"],
        ),
        (
            "managed",
            {"endpoint": {"compute": "azureml:aks"}},
            ["target 'managed' has none"],
        ),
        ("aks", {"endpoint": {"compute": None}}, ["compute: target 'aks' names"]),
        ("aks", {"deployment": {"type": "managed"}}, ["deployment.json: type: target 'aks' wants"]),
        ("managed", {"deployment": {"type": "kubernetes"}}, ["type: target 'managed' wants"]),
        (
            "managed",
            {"deployment": {"instance_count": "x"}},
            ["instance_count: not a valid int"],
        ),
        (
            "aks",
            {"deployment": {"more": 1, "liveness_probe": {"period": "x"}}},
            ["deployment.json: liveness_probe.period: not a", "deployment.json: more: unknown"],
        ),
        (
            "managed",
            {"deployment": {"environment": {"image": "registry/image:latest"}}},
            ["environment.image: must be pinned by its digest", "'registry/image:latest'"],
        ),
        (
            "managed",
            {"deployment": {"code_configuration": {"code": ".", "scoring_script": "a.py"}}},
            ["code_configuration: the image serves by itself"],
        ),
        (
            "managed",
            {"capture": {}, "deployment": {"data_collector": {"collections": {}, "x": 1}}},
            ["deployment.json: data_collector: the environment's own"],
        ),
    ],
)
def test_what_is_refused_names_file_and_key(
    tmp_path: Path, target: str, changes: dict[str, Any], texts: list[str]
) -> None:
    with pytest.raises(SpecError) as caught:
        written(tmp_path, target, **changes).check()
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "no such file"), ("{", "not readable as JSON"), ("[]", "must be a JSON object")],
)
def test_a_file_that_is_none(tmp_path: Path, content: str | None, text: str) -> None:
    found = written(tmp_path)
    path = tmp_path / "deployment.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError, match=f"deployment.json: {text}"):
        found.check()


def test_traffic_that_azure_ml_does_not_have() -> None:
    def environment(target: str, **traffic: Any) -> Environment:
        return Environment.model_validate({"name": "a", "target": target, "traffic": traffic})

    for target in ("aks", "managed"):
        with pytest.raises(ValueError, match="sticky_header: online endpoints of Azure ML"):
            environment(target, sticky_header="x-user")
    mirrored = {"mirror_percent": 50, "mirror_seconds": 5}
    with pytest.raises(ValueError, match="mirror_percent: Azure ML copies no requests on Kub"):
        environment("aks", **mirrored)
    assert environment("managed", **mirrored).traffic.mirror_percent == 50
    with pytest.raises(ValueError, match="mirror_percent"):
        environment("managed", mirror_percent=60, mirror_seconds=5)


def ours() -> list[Path]:
    """The repository's own environments with such targets."""
    found = sorted(checkout().glob("environments/azure/*/environment.json"))
    return [path for path in found if json.loads(path.read_bytes())["target"] in ("aks", "managed")]


@pytest.mark.parametrize("path", ours(), ids=lambda path: path.parent.name)
@pytest.mark.parametrize("model", ["diabetes", "penguins"])
def test_the_repositorys_own_documents_load(
    path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_SERVING_REGISTRY", "example.azurecr.io")
    monkeypatch.setenv("MLOPS_SERVING_DIGEST", f"sha256:{'a' * 64}")
    environment = Environment.model_validate_json(path.read_bytes())
    OnlineDocuments(path.parent, model, environment).check()


def test_there_is_one() -> None:
    assert "production" in [path.parent.name for path in ours()]


def test_validate_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "environments" / "azure"
    shutil.copytree(checkout() / "mlops_assets" / "models", tmp_path / "mlops_assets" / "models")
    written(own / "production")
    environment = {"name": "production", "target": "managed"}
    (own / "production" / "environment.json").write_text(json.dumps(environment))
    names = ("subscription_id", "resource_group", "workspace", "location")
    settings = dict.fromkeys(names, "x") | {"storage": {"account": "x"}}
    (own / "profile.json").write_text(json.dumps(settings))
    monkeypatch.setattr(cli, "load_profile", lambda: load_profile(AZURE, tmp_path))
    assert CliRunner().invoke(cli.main, ["validate"]).exit_code == 0
    written(own / "production", endpoint={"more": 1})
    done = CliRunner().invoke(cli.main, ["validate"])
    assert done.exit_code == 1
    assert done.output.count("endpoint.json: more: unknown field") == 1  # not once per model
