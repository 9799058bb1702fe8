import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.strict import SpecError
from resources.azure.settings import AzureSettings, read_settings
from resources.environment import checkout, load_profile, profile_schema

CONTENT: dict[str, Any] = {
    "subscription_id": "${SUBSCRIPTION}",
    "resource_group": "ml-${STAGE}-rg",
    "workspace": "ml",
    "location": "westeurope",
    "storage": {"account": "mldata", "account_key": "ML_KEY"},
}
SET = {"SUBSCRIPTION": "1234", "STAGE": "test", "ML_KEY": "c2VjcmV0"}


def settings(**more: object) -> AzureSettings:
    return AzureSettings.model_validate({**CONTENT, **more})


def test_variables_are_filled_in() -> None:
    found = settings().resolved(SET)
    assert (found.subscription_id, found.resource_group) == ("1234", "ml-test-rg")
    assert found.storage.url == "https://mldata.blob.core.windows.net"


def test_a_secret_stays_a_name() -> None:
    assert "c2VjcmV0" not in settings().resolved(SET).model_dump_json()


def test_all_that_is_not_set_is_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        settings().resolved({"STAGE": "test", "SUBSCRIPTION": ""})
    assert [p.split()[2] for p in caught.value.problems] == ["ML_KEY", "SUBSCRIPTION"]
    assert "environments/azure/profile.json" in str(caught.value)


def test_every_problem_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with pytest.raises(SpecError, match="no such file"):
        read_settings(path)
    content = {**CONTENT, "workspace": 3, "training": {"instance_count": 0, "vm_size": "D2"}}
    del content["location"]
    path.write_text(json.dumps(content))
    with pytest.raises(SpecError) as caught:
        read_settings(path)
    places = {problem.partition(":")[0] for problem in caught.value.problems}
    assert places == {"workspace", "location", "training.instance_count", "training.vm_size"}


def test_the_schema_is_that_of_the_models() -> None:
    path = checkout() / "environments" / "profile.schema.json"
    assert path.read_text() == profile_schema(), "run `make schema`"


def test_the_profile_of_this_repository() -> None:
    profile = load_profile({"MLOPS_PROFILE": "azure"})
    assert profile.azure
    assert {e.name: e.target for e in profile.environments} == {
        "staging": "aci",
        "production": "aks",
    }
    assert profile.environment("production").promotes_from == "staging"
