"""container-group.json: what is refused, and what is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.scoring.options import parse
from mlops_assets.strict import SpecError
from resources.azure.clients import AzureClients
from resources.azure.settings import AzureSettings
from resources.endpoints.aci_documents import (
    candidate,
    group_of,
    missing_variables,
    problems,
    read,
    started,
)
from resources.environment import CapturePolicy, Environment, Profile, checkout
from tests.azure.aci_groups import DIGEST, document
from tests.convert.azure_accepts import group_validator, needs_specifications

STAGING = checkout() / "environments" / "azure" / "staging"
VARIABLES = {
    "MLOPS_SERVING_IDENTITY": "/subscriptions/s/resourceGroups/g/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/mlops-serving",
    "MLOPS_SERVING_REGISTRY": "example.azurecr.io",
    "MLOPS_SERVING_DIGEST": DIGEST,
    "MLOPS_DNS_LABEL": "acme",
}
SETTINGS: dict[str, Any] = {
    "subscription_id": "s", "resource_group": "g", "workspace": "w", "location": "West Europe",
    "storage": {"account": "acmemlops"},
}  # fmt: skip


def _profile(root: Path) -> tuple[Profile, AzureClients, Environment]:
    environment = Environment(name="staging", target="aci")
    settings = AzureSettings.model_validate(SETTINGS)
    profile = Profile("azure", root, root / "home", (environment,), azure=settings)
    return profile, AzureClients(settings), environment


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> tuple[Profile, AzureClients, Environment]:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return _profile(checkout())


@needs_specifications
def test_the_committed_group_is_what_azure_takes(
    committed: tuple[Profile, AzureClients, Environment],
) -> None:
    group = group_of(*committed, "heart_rate")
    body = started(group, "one")
    assert list(group_validator().iter_errors(body)) == []
    assert list(group_validator().iter_errors(started(candidate(group), "two"))) == []
    broken = {**body, "colour": "red"}
    assert list(group_validator().iter_errors(broken)) != []


def test_the_committed_group_is_rendered(
    committed: tuple[Profile, AzureClients, Environment],
) -> None:
    assert problems(read(STAGING / "container-group.json")) == []
    group = group_of(*committed, "heart_rate")
    assert group.name == "heart-rate-staging"
    properties = group.body["properties"]
    assert properties["ipAddress"]["dnsNameLabel"] == "heart-rate-acme-staging"
    scoring, tls = properties["containers"]
    assert (
        "https://heart-rate-acme-staging.westeurope.azurecontainer.io"
        in (tls["properties"]["command"])
    )
    variables = {v["name"]: v["value"] for v in scoring["properties"]["environmentVariables"]}
    assert variables == {
        "MLOPS_WORKERS": "1",
        "MLOPS_GENERATION_URL": (
            "https://acmemlops.blob.core.windows.net/mlops/endpoints/staging/heart_rate"
        ),
    }
    assert list(group.body["identity"]["userAssignedIdentities"]) == [
        VARIABLES["MLOPS_SERVING_IDENTITY"]
    ]
    assert "${" not in json.dumps(group.body)
    assert not group.body.keys() & {"$schema", "name", "type", "apiVersion"}


@pytest.mark.parametrize(
    ("names", "sent"),
    [
        (["age", "size [cm]"], "age,size [cm]"),
        (["income, yearly"], '["income, yearly"]'),
        (["[a]", "b"], '["[a]", "b"]'),
        ([' age "'], '[" age \\""]'),
        (["größe ", "b"], '["gr\\u00f6\\u00dfe ", "b"]'),
    ],
)
def test_columns_reach_the_server_by_the_names_they_have(
    committed: tuple[Profile, AzureClients, Environment], names: list[str], sent: str
) -> None:
    profile, clients, environment = committed
    policy = CapturePolicy(columns=names, exclude=names)
    environment = environment.model_copy(update={"capture": policy})
    body = group_of(profile, clients, environment, "heart_rate").body
    given = body["properties"]["containers"][0]["properties"]["environmentVariables"]
    variables = {v["name"]: v["value"] for v in given if "CAPTURE" in v["name"]}
    assert variables["MLOPS_CAPTURE_EXCLUDE"] == sent
    found = parse([], variables)
    assert (found.capture_columns, found.capture_exclude) == (names, names)


def test_variables_that_are_not_set_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    found = read(STAGING / "container-group.json")
    assert missing_variables(found) == sorted(VARIABLES)
    assert problems(found) == []  # what is not known is not judged
    with pytest.raises(SpecError, match="environment variable MLOPS_DNS_LABEL is not set"):
        group_of(*_profile(checkout()), "heart_rate")


def test_a_models_own_document_keeps_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "environments" / "azure" / "staging"
    for place, name in ((folder, "staging"), (folder / "tiny", "mine")):
        place.mkdir(parents=True, exist_ok=True)
        (place / "container-group.json").write_text(json.dumps({**document(), "name": name}))
    profile, clients, environment = _profile(tmp_path)
    own = group_of(profile, clients, environment, "tiny")
    common = group_of(profile, clients, environment, "other_one")
    assert (own.name, common.name) == ("mine", "other-one-staging")
    assert own.body["properties"]["ipAddress"]["dnsNameLabel"] == "staging"
    assert own.body["location"] == "West Europe"


def _public(**changes: Any) -> dict[str, Any]:
    found = document()
    found["properties"]["ipAddress"] |= changes
    return found


def _with(**changes: Any) -> dict[str, Any]:
    found = document()
    found["properties"] |= changes
    return found


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (document(image="registry.example/scoring:1"), "must name a digest"),
        (document(image=f"registry.example/scoring@{DIGEST[:-1]}"), "must name a digest"),
        ({**document(), "name": "Staging"}, "name: 'Staging' must be small letters"),
        ({**document(), "identity": {"type": "None"}}, "identity: none"),
        ({k: v for k, v in document().items() if k != "identity"}, "identity: none"),
        (_public(ports=[{"port": 5001}]), "would carry keys unencrypted"),
        (_public(ports=[{"port": 443}, {"port": 5001}]), "would carry keys unencrypted"),
        (_public(ports=[{"port": 443}, {"port": 80}]), "shows 443 alone"),
        (_public(ports=[{"port": 80}]), "shows 443 alone"),
        (_public(dnsNameLabel=None), "a certificate is for a name"),
        (_public(type="Private", ports=[{"port": 5001}]), "subnetIds: none"),
        (_with(ipAddress=None), "nobody could ask"),
        (_with(containers=[]), "one must be named 'scoring'"),
        (
            document(environmentVariables=[{"name": "MLOPS_NO_KEYS", "value": "true"}]),
            "MLOPS_NO_KEYS: leave it out",
        ),
        (
            document(environmentVariables=[{"name": "TOKEN", "secureValue": "hush"}]),
            "holds a secret; name an environment variable",
        ),
        (_with(volumes=[{"name": "x", "secret": {"tls.key": "aHVzaA=="}}]), "holds a secret"),
    ],
)
def test_what_is_wrong_is_refused_with_its_mend(found: dict[str, Any], said: str) -> None:
    (problem,) = problems(found)
    assert said in problem
    assert "hush" not in problem
    assert "aHVzaA" not in problem


def test_a_private_group_is_asked_at_its_port() -> None:
    found = _public(type="Private", ports=[{"port": 5001}], dnsNameLabel=None)
    found["properties"]["subnetIds"] = [{"id": "/subscriptions/s/subnets/one"}]
    assert problems(found) == []


def test_the_spec_tells_no_secret_and_changes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "environments" / "azure" / "staging"
    folder.mkdir(parents=True)
    variable = {"name": "TOKEN", "secureValue": "${SOME_TOKEN}"}
    (folder / "container-group.json").write_text(
        json.dumps(document(environmentVariables=[variable]))
    )
    specs: list[str] = []
    for value in ("one", "two", "one"):
        monkeypatch.setenv("SOME_TOKEN", value)
        group = group_of(*_profile(tmp_path), "tiny")
        specs.append(group.spec)
        assert group.body["tags"]["mlops_spec"] == group.spec
        (sent, *_) = group.body["properties"]["containers"][0]["properties"]["environmentVariables"]
        assert sent["secureValue"] == value
    assert specs[0] == specs[2] != specs[1]
