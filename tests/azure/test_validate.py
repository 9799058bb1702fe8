"""The validator finds what differs: without that, a run without findings says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.azure.record import Exchange
from tests.azure.validate import REQUESTS, Findings, Validator, specifications

SCOPE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/group/providers"
WORKSPACE = f"https://management.azure.com{SCOPE}/Microsoft.MachineLearningServices/workspaces/work"


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Validator]:
    folder = specifications()
    if folder is None:
        pytest.skip("AZURE_SPECS_DIR does not name a copy of azure-rest-api-specs")
    log = tmp_path_factory.mktemp("validator") / "log"
    with closing(Validator(folder, log)) as found:
        yield found


def _exchange(**given: Any) -> Exchange:
    properties = {"modelType": "custom_model", "modelUri": "azureml://x", "tags": {}}
    answer = {"id": "/x", "name": "1", "type": "t", "properties": properties}
    headers = {"Content-Type": "application/json"}
    url = f"{WORKSPACE}/models/rent/versions/1?api-version=2023-08-01-preview"
    good = Exchange(
        "PUT", "management.azure.com", url, headers, {"properties": properties}, 201, headers,
        answer, fault=False,
    )  # fmt: skip
    return replace(good, **given)


def _only(found: Findings) -> str:
    (finding,) = found.requests + found.responses
    return f"{finding.side} {finding.code} {finding.path}"


def test_what_fits_has_no_finding(validator: Validator) -> None:
    found = validator.check([_exchange(), _exchange()])
    assert found.requests + found.responses == []
    assert found.operations == {"ModelVersions_CreateOrUpdate": 2}
    assert "2 exchanges of 1 operations" in found.summary()


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        ({"request_body": {"properties": {"stages": "x"}}},
         "request OBJECT_ADDITIONAL_PROPERTIES $.properties.stages"),
        ({"request_body": {"properties": {"tags": {"a": 1}}}},
         "request INVALID_TYPE $.properties.tags['a']"),
        ({"request_body": {}}, "request OBJECT_MISSING_REQUIRED_PROPERTY $.properties"),
        ({"response_body": {"properties": {"isArchived": "no"}}},
         "response INVALID_TYPE $.properties.isArchived"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_found(
    validator: Validator, given: dict[str, Any], finding: str
) -> None:
    assert _only(validator.check([_exchange(**given)])) == finding


def test_unknown_operations_and_versions_are_found(validator: Validator) -> None:
    good = _exchange()
    for url in (
        good.url.replace("/models/", "/modells/"),
        good.url.replace("2023-08", "2023-09"),
    ):
        found = validator.check([replace(good, url=url)])
        assert {finding.operation for finding in found.requests} == {"unknownOperationId"}


def test_faults_and_other_hosts_are_left_out(validator: Validator) -> None:
    bad = {"request_body": {}}
    left_out = [
        _exchange(**bad, fault=True),
        _exchange(**bad, status=None),
        _exchange(**bad, host="x.blob.core.windows.net"),
    ]
    found = validator.check(left_out)
    assert found.requests + found.responses == []
    assert sum(found.outside.values()) == 1


def test_few_requests_may_differ_each_with_a_reason() -> None:
    assert len(REQUESTS) <= 3
    assert all(len(deviation.reason) > 20 for deviation in REQUESTS)


def test_a_folder_without_specifications_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nothing/specification"):
        Validator(tmp_path / "nothing", tmp_path / "log")
