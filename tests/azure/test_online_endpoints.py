"""A version's way through an online endpoint, on attached Kubernetes and managed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_assets.rollout import roll_out
from resources.endpoints.base import Request
from tests.azure.clients import ROW
from tests.azure.online import Room, room, sample
from tests.azure.server import AzureServer
from tests.bundles import regression


@pytest.fixture(params=["aks", "managed"])
def place(request: pytest.FixtureRequest, azure: AzureServer, tmp_path: Path) -> Room:
    return room(azure, tmp_path, request.param)


def test_the_first_version_and_then_the_second(place: Room) -> None:
    first, second = (place.register(regression, n) for n in (1, 2))
    with place.open() as target:
        done = roll_out(target, first, [sample(1)], log=place.log.append)
        assert (done.outcome, done.previous) == ("deployed", None)
        assert place.deployments() == {f"v1-{first.digest[:8]}": 100}
    assert place.endpoints.ask("tiny", "production", Request.of(ROW)).json() == {
        "predictions": [1003.0]
    }
    with place.open() as target:
        done = roll_out(target, second, [sample(2)], log=place.log.append)
        assert (done.outcome, done.previous) == ("deployed", 1)
        assert place.deployments() == {f"v2-{second.digest[:8]}": 100}
        assert roll_out(target, second, [sample(2)]).outcome == "unchanged"
