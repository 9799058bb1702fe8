"""What goes wrong between the platform and an online endpoint: it recovers, or says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlops_assets.rollout import RolloutError, roll_out
from resources.azure.clients import AzureClients
from resources.endpoints.azureml import OnlineEndpoints
from resources.endpoints.base import EndpointError, Request
from tests.azure.arm.operations import OperationError
from tests.azure.clients import ROW
from tests.azure.faults import Fault, OperationFault
from tests.azure.online import Asker, Room, room, sample
from tests.azure.server import AzureServer
from tests.bundles import regression

DEPLOYMENT = r"PUT .*/onlineEndpoints/[^/]+/deployments/"
TRAFFIC = r"PUT .*/onlineEndpoints/[^/?]+(\?|$)"
DELETE = r"DELETE .*/deployments/"


@pytest.fixture
def place(azure: AzureServer, tmp_path: Path) -> Room:
    return room(azure, tmp_path, "managed")


@pytest.fixture
def serving(place: Room) -> Room:
    """Version 1 serves, version 2 is registered."""
    versions = [place.register(regression, number) for number in (1, 2)]
    place.versions.extend(versions)
    with place.open() as target:
        roll_out(target, versions[0], [sample(1)])
    return place


@pytest.mark.parametrize("where", [DEPLOYMENT, TRAFFIC, DELETE])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 409, "times": 2},
        {"status": 429, "retry_after": 1},
        {"status": 500, "times": 2},
        {"drop": "request"},
        {"drop": "answer"},
    ],
    ids=["409", "429", "500", "request", "answer"],
)
def test_what_passes_is_waited_for(serving: Room, where: str, fault: dict[str, Any]) -> None:
    _, second = serving.versions
    with Asker(serving) as asker, serving.open() as target:
        serving.azure.faults.add(Fault(where, **fault))
        done = roll_out(target, second, [sample(2)], log=serving.log.append)
    assert done.outcome == "deployed"
    assert asker.failed == []
    assert serving.deployments() == {f"v2-{second.digest[:8]}": 100}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(DEPLOYMENT, 401, times=None), "sign in: `az login`"),
        (Fault(DEPLOYMENT, 403, times=None), "lacks a role"),
        (Fault(DEPLOYMENT, 404, message="The model was not found."), "model was not found"),
        (Fault(DEPLOYMENT, 500, times=None, after=0), "500"),
        (OperationFault(DEPLOYMENT, code="OutOfQuota", message="Not enough cores."), "cores"),
        (OperationFault(DEPLOYMENT, "Canceled", message="Somebody did."), "Somebody did"),
        (OperationFault(TRAFFIC, message="No traffic today."), "No traffic today"),
    ],
    ids=["401", "403", "404", "500", "failed", "cancelled", "traffic"],
)
def test_what_stays_is_told_and_the_old_version_serves(
    serving: Room, fault: Fault | OperationFault, text: str
) -> None:
    first, second = serving.versions
    with Asker(serving) as asker, serving.open() as target:
        serving.azure.faults.add(fault)
        with pytest.raises(RolloutError, match="version 1 serves as before") as caught:
            roll_out(target, second, [sample(2)], log=serving.log.append)
        assert text in str(caught.value)
        serving.azure.faults.clear()
        assert serving.deployments() == {f"v1-{first.digest[:8]}": 100}
    assert asker.failed == []
    with serving.open() as target:  # and nothing has to be cleaned up by hand
        assert roll_out(target, second, [sample(2)]).outcome == "deployed"
    assert serving.deployments() == {f"v2-{second.digest[:8]}": 100}


def test_an_operation_without_end(serving: Room) -> None:
    _, second = serving.versions
    environment = serving.environment.model_copy(update={"deploy_seconds": 3.0})
    serving.azure.faults.add(OperationFault(DEPLOYMENT, "endless"))
    with (
        Asker(serving) as asker,
        serving.endpoints.open("tiny", "production", environment) as target,
        pytest.raises(RolloutError, match="deploy_seconds") as caught,
    ):
        roll_out(target, second, [sample(2)], log=serving.log.append)
    assert "version 1 serves as before" in str(caught.value)
    assert "is left to the next rollout" in str(caught.value)
    assert asker.failed == []
    # In the end Azure gives up.
    (endless,) = [one for one in serving.azure.cloud.operations.values() if one.fault]
    endless.fault = None
    endless.future.set_exception(OperationError("Timeout", "Azure has given up."))
    found = serving.azure.cloud.find(
        f"{serving.azure.workspace_id}/onlineEndpoints/{serving.name}/deployments/"
        f"v2-{second.digest[:8]}"
    )
    assert found is not None
    found.properties["provisioningState"] = "Failed"
    with serving.open() as target:
        assert roll_out(target, second, [sample(2)]).outcome == "deployed"
    assert serving.deployments() == {f"v2-{second.digest[:8]}": 100}


def test_an_old_version_that_cannot_be_removed_is_left_to_the_next_rollout(serving: Room) -> None:
    first, second = serving.versions
    serving.azure.faults.add(Fault(DELETE, 403))
    with serving.open() as target:
        done = roll_out(target, second, [sample(2)], log=serving.log.append)
        assert done.outcome == "deployed"
        assert serving.deployments() == {
            f"v1-{first.digest[:8]}": 0,
            f"v2-{second.digest[:8]}": 100,
        }
        assert roll_out(target, second, [sample(2)]).outcome == "unchanged"
    assert serving.deployments() == {f"v2-{second.digest[:8]}": 100}
    assert any("lacks a role" in line for line in serving.log)


def test_an_endpoint_that_failed_is_made_again(place: Room) -> None:
    version = place.register(regression, 1)
    place.azure.faults.add(OperationFault(TRAFFIC, message="No room."))
    with pytest.raises(EndpointError, match="No room"):
        place.open().__enter__()
    with place.open() as target:
        assert roll_out(target, version, [sample(1)]).outcome == "deployed"
    place.azure.faults.add(OperationFault(TRAFFIC, message="No room.", times=None))
    found = place.azure.cloud.find(f"{place.azure.workspace_id}/onlineEndpoints/{place.name}")
    assert found is not None
    found.properties["provisioningState"] = "Failed"
    with pytest.raises(EndpointError, match="No room"):
        place.open().__enter__()
    assert place.deployments() == {f"v1-{version.digest[:8]}": 100}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("inference", drop="request", times=None), "does not answer"),
        (Fault("POST .*/listKeys", 403, times=None), "lacks a role"),
    ],
    ids=["connection", "keys"],
)
def test_an_endpoint_that_cannot_be_asked(serving: Room, fault: Fault, text: str) -> None:
    serving.azure.faults.add(fault)
    anew = OnlineEndpoints(serving.profile, serving.clients)  # it has no key yet
    with pytest.raises(EndpointError, match=text):
        anew.ask("tiny", "production", Request.of(ROW))


@pytest.mark.parametrize(
    "fault",
    [{"drop": "request"}, {"drop": "answer"}, {"status": 429, "retry_after": 1}],
    ids=["request", "answer", "429"],
)
def test_a_lost_request_is_sent_again(serving: Room, fault: dict[str, Any]) -> None:
    serving.azure.faults.add(Fault("POST https://tiny.*inference", **fault))
    answer = serving.endpoints.ask("tiny", "production", Request.of(ROW))
    assert answer.json() == {"predictions": [1003.0]}


def test_the_wrong_secret(place: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "not-the-secret")
    with pytest.raises(EndpointError, match="sign in: `az login`") as caught:
        place.endpoints.known()
    assert "not-the-secret" not in str(caught.value)


def test_a_workspace_that_is_not_there_is_no_missing_endpoint(place: Room) -> None:
    assert place.endpoints.serving("tiny", "production") is None
    settings = place.profile.azure
    assert settings is not None
    for changed in ({"workspace": "other"}, {"resource_group": "other"}):
        clients = AzureClients(settings.model_copy(update=changed))
        with pytest.raises(EndpointError, match="other"):
            OnlineEndpoints(place.profile, clients).serving("tiny", "production")
