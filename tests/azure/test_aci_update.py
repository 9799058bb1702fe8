"""Another image or size: tried out beside the live group, which serves until it is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resources.endpoints.aci_changes import MAKES, RESTARTS, changes
from resources.endpoints.base import EndpointError
from tests.azure.aci_groups import NAME, OTHER_DIGEST, Groups, document, users
from tests.azure.faults import Fault, OperationFault
from tests.azure.server import AzureServer
from tests.bundles import regression
from tests.local_servers import eventually, processes_of

BAD = f"registry.example/bad@{OTHER_DIGEST}"


@pytest.fixture
def groups(azure: AzureServer, tmp_path: Path) -> Groups:
    return Groups(tmp_path, azure)


@pytest.fixture
def deployed(groups: Groups, tmp_path: Path) -> Groups:
    groups.deploy(regression(tmp_path, 1))
    groups.log.clear()
    return groups


def _puts(azure: AzureServer) -> list[str]:
    found = azure.record.exchanges("PUT .*/containerGroups/")
    return [e.url.partition("/containerGroups/")[2].partition("?")[0] for e in found]


def test_another_size_goes_through_a_candidate(
    azure: AzureServer, deployed: Groups, tmp_path: Path
) -> None:
    found = document(resources={"requests": {"cpu": 2, "memoryInGB": 2}})
    deployed.write(found)
    told = changes(deployed.profile, deployed.clients, deployed.environment, "tiny")
    place = "properties.containers[scoring].properties.resources.requests"
    assert told.differences == (
        f"{place}.cpu: found 1.0, wanted 2", f"{place}.memoryInGB: found 1.0, wanted 2"
    )  # fmt: skip
    assert told.effect == RESTARTS
    deployed.deploy(regression(tmp_path, 2))
    assert _puts(azure) == [NAME, f"{NAME}-candidate", NAME]
    assert deployed.names() == [NAME]
    assert deployed.answering() == 2
    said = [line for line in deployed.log if "did not answer for at most" in line]
    assert len(said) == 1
    print(said)
    again = changes(deployed.profile, deployed.clients, deployed.environment, "tiny")
    assert (again.differences, again.effect) == ((), None)
    # Versions alone never do.
    deployed.deploy(regression(tmp_path, 3))
    assert _puts(azure) == [NAME, f"{NAME}-candidate", NAME]
    eventually(lambda: len({p.pid for p in processes_of(azure.folder, "scoring.worker")}) == 1)


def test_the_candidate_is_nobodys_address(azure: AzureServer, deployed: Groups) -> None:
    deployed.write(document(image=f"registry.example/scoring@{OTHER_DIGEST}"))
    with deployed.open():
        pass
    (sent,) = azure.record.exchanges(f"PUT .*/containerGroups/{NAME}-candidate")
    assert "ipAddress" not in sent.request_body["properties"]
    assert sent.request_body["tags"]["mlops_candidate"] == "true"
    assert deployed.endpoints.known() == [("tiny", "staging")]


def test_what_is_not_there_yet_is_told(groups: Groups) -> None:
    told = changes(groups.profile, groups.clients, groups.environment, "tiny")
    assert (told.group, told.differences, told.effect) == (NAME, (), MAKES)


def _inaccessible(azure: AzureServer) -> dict[str, Any]:
    azure.faults.images["registry.example/bad"] = "inaccessible"
    return document(image=BAD)


def _not_pulled(azure: AzureServer) -> dict[str, Any]:
    azure.faults.images["registry.example/bad"] = "not pulled"
    return document(image=BAD)


def _ends(azure: AzureServer) -> dict[str, Any]:
    return document(environmentVariables=[{"name": "MLOPS_WORKERS", "value": "0"}])


def _without_identity(azure: AzureServer) -> dict[str, Any]:
    variable = {"name": "AZURE_CLIENT_ID", "value": "11111111-1111-1111-1111-111111111111"}
    return document(environmentVariables=[variable])


def _failed(azure: AzureServer) -> dict[str, Any]:
    azure.faults.add(
        OperationFault("PUT .*/containerGroups/", code="QuotaExceeded", message="Quota exceeded.")
    )
    return document(image=BAD)


def _endless(azure: AzureServer) -> dict[str, Any]:
    azure.faults.add(OperationFault("PUT .*/containerGroups/", "endless"))
    return document(image=BAD)


def _refused(status: int) -> Callable[[AzureServer], dict[str, Any]]:
    def fault(azure: AzureServer) -> dict[str, Any]:
        azure.faults.add(Fault("PUT .*/containerGroups/", status, times=None))
        return document(image=BAD)

    return fault


CASES = [
    (_inaccessible, "InaccessibleImage|does not let the image be pulled", 60),
    (_not_pulled, "Failed to pull image", 60),
    (_ends, "exit code 2.*not a number from 1 to 64", 60),
    (_without_identity, "did not follow generation .*Identity not found", 25),
    (_failed, "quota", 60),
    (_endless, "did not follow generation", 12),
    (_refused(401), "Azure answers 401.*az login", 60),
    (_refused(403), "Azure answers 403.*role", 60),
    (_refused(409), "Conflict", 12),
]


@pytest.mark.parametrize(("make", "said", "seconds"), CASES)
def test_a_group_that_does_not_come_up_leaves_the_live_one(
    azure: AzureServer,
    deployed: Groups,
    tmp_path: Path,
    make: Callable[[AzureServer], dict[str, Any]],
    said: str,
    seconds: float,
) -> None:
    deployed.write(make(azure))
    limited = Groups(tmp_path, None, seconds)
    with users(deployed.key()) as told, pytest.raises(EndpointError) as caught:
        limited.deploy(regression(tmp_path, 2))
    text = " ".join(str(caught.value).split())
    assert re.search(said, text), text
    assert deployed.key() not in text
    assert set(told.statuses) == {200}
    assert told.seen() == [1]
    assert deployed.names() == [NAME]
    azure.faults.clear()
    deployed.write(document())
    deployed.deploy(regression(tmp_path / "again", 2))
    assert deployed.answering() == 2


@pytest.mark.parametrize(("make", "said", "seconds"), CASES[:3])
def test_a_first_group_that_does_not_come_up_is_removed(
    azure: AzureServer,
    groups: Groups,
    tmp_path: Path,
    make: Callable[[AzureServer], dict[str, Any]],
    said: str,
    seconds: float,
) -> None:
    groups.write(make(azure))
    with pytest.raises(EndpointError):
        groups.deploy(regression(tmp_path, 1))
    assert groups.names() == []
    azure.faults.clear()
    groups.write(document())
    groups.deploy(regression(tmp_path / "again", 1))
    assert groups.answering() == 1


def test_a_stopped_group_is_started(deployed: Groups, tmp_path: Path) -> None:
    deployed.clients.container_instances.container_groups.stop("test-group", NAME)
    assert not deployed.endpoints.status("tiny", "staging").healthy
    deployed.deploy(regression(tmp_path, 2))
    assert deployed.answering() == 2


def test_a_group_that_somebody_removed_is_made_anew(deployed: Groups) -> None:
    deployed.clients.container_instances.container_groups.begin_delete("test-group", NAME).wait()
    with deployed.open() as target:
        assert list(target.live()) == ["v1"]
    assert deployed.answering() == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500}, {"status": 503, "retry_after": 1}, {"drop": "request"},
        {"drop": "answer"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["blob.core.windows.net", "management.azure.com"])
def test_what_passes_is_tried_again(
    azure: AzureServer, groups: Groups, tmp_path: Path, where: str, fault: dict[str, Any]
) -> None:
    for method in ("PUT", "GET", "DELETE"):
        azure.faults.add(Fault(f"{method} https://[^/]*{where}", times=2, after=1, **fault))
    groups.deploy(regression(tmp_path, 1))
    assert groups.answering() == 1


def test_a_throttled_manager_is_asked_again(
    azure: AzureServer, groups: Groups, tmp_path: Path
) -> None:
    azure.faults.add(Fault("(PUT|GET) .*/containerGroups/", 429, retry_after=1, times=3, after=1))
    groups.deploy(regression(tmp_path, 1))
    assert groups.answering() == 1
