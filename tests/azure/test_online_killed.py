"""A rollout that is killed at each request by which it changes something on Azure.

It is a process of its own, and ends by SIGKILL: once before Azure has carried the request out, and
once after. The endpoint answers all the time, and the next rollout ends what was begun.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Literal

import pytest

from mlops_assets.rollout import roll_out
from resources.azure.clients import AzureClients
from resources.endpoints.azureml import OnlineEndpoints
from resources.endpoints.base import VersionRef
from resources.environment import load_profile
from resources.traffic import Traffic
from tests.azure.faults import Fault
from tests.azure.online import Asker, Room, room, sample
from tests.azure.server import AzureServer
from tests.bundles import regression

CHANGES = "^(PUT|POST|PATCH|DELETE) https://management"
STEPS = Traffic.model_validate({"steps": [{"percent": 50}]})
#: More than a rollout has changes: the walk ends by itself.
MOST = 20


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that have imported everything when they begin."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["azure.ai.ml", "azure.storage.blob", __name__])
    return context


def deploy(
    root: Path, variables: Mapping[str, str], version: VersionRef, traffic: Traffic, begin: Any
) -> None:
    """What the killed process does."""
    os.environ.update(variables)
    profile = load_profile({"MLOPS_PROFILE": "azure", "MLOPS_HOME": str(root / "home")}, root)
    assert profile.azure is not None
    endpoints = OnlineEndpoints(profile, AzureClients(profile.azure))
    begin.wait()
    with endpoints.open("tiny", "production", profile.environment("production")) as target:
        roll_out(target, version, [sample(version.version)], traffic=traffic)


def killed(
    place: Room,
    processes: ForkServerContext,
    version: VersionRef,
    after: int,
    when: Literal["request", "answer"],
    traffic: Traffic = STEPS,
) -> bool:
    """Roll a version out in a process that is killed at its n-th change; False if it had fewer."""
    begin = processes.Event()
    arguments = (place.profile.root, place.azure.environment(), version, traffic, begin)
    process = processes.Process(target=deploy, args=arguments)
    process.start()
    fault = Fault(CHANGES, drop=when, after=after, then=process.kill)
    place.azure.faults.add(fault)
    begin.set()
    process.join(100)
    place.azure.faults.clear()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize("when", ["request", "answer"])
@pytest.mark.parametrize("target", ["aks", "managed"])
def test_wherever_it_is_killed(
    azure: AzureServer,
    tmp_path: Path,
    processes: ForkServerContext,
    target: str,
    when: Literal["request", "answer"],
) -> None:
    place = room(azure, tmp_path, target)
    versions = [place.register(regression, number) for number in (1, 2)]
    with place.open() as held:
        roll_out(held, versions[0], [sample(1)])
    kills = 0
    with Asker(place) as asker:
        for after in range(MOST):
            # Each time the version that does not serve.
            wanted = versions[(after + 1) % 2]
            if not killed(place, processes, wanted, after, when):
                break
            kills += 1
            assert sum(place.deployments().values()) == 100
            with place.open() as held:
                roll_out(held, wanted, [sample(wanted.version)], log=place.log.append)
            assert place.deployments() == {f"v{wanted.version}-{wanted.digest[:8]}": 100}
    # At least: the environment, the deployment, twice the traffic, the old deployment.
    assert 5 <= kills < MOST
    assert asker.failed == []
    assert asker.answered.keys() == {1003.0, 2003.0}


@pytest.mark.parametrize("when", ["request", "answer"])
def test_the_first_deployment_of_all(
    azure: AzureServer,
    tmp_path: Path,
    processes: ForkServerContext,
    when: Literal["request", "answer"],
) -> None:
    place = room(azure, tmp_path, "managed")
    version = place.register(regression, 1)
    kills = 0
    while kills < MOST and killed(place, processes, version, kills, when):
        kills += 1
        with place.open() as held:
            roll_out(held, version, [sample(1)], log=place.log.append)
        assert place.deployments() == {f"v1-{version.digest[:8]}": 100}
        place.clients.workspace.online_endpoints.begin_delete(place.name).wait()
    assert place.deployments() == {f"v1-{version.digest[:8]}": 100}
    assert 4 <= kills < MOST


def test_while_requests_are_copied(
    azure: AzureServer, tmp_path: Path, processes: ForkServerContext
) -> None:
    place = room(azure, tmp_path, "managed")
    first, second = (place.register(regression, number) for number in (1, 2))
    with place.open() as held:
        roll_out(held, first, [sample(1)])
    mirrored = Traffic.model_validate({"mirror_percent": 20, "mirror_seconds": 1})
    begin = len(azure.record.exchanges(CHANGES))
    # The request that ends the copying; the first one is found by a rollout that is let go on.
    assert not killed(place, processes, second, MOST, "request", mirrored)
    names = [e.url.partition("?")[0] for e in azure.record.exchanges(CHANGES)[begin:]]
    moves = [n for n, url in enumerate(names) if url.endswith(f"onlineEndpoints/{place.name}")]
    assert len(moves) == 2  # copies on; all the traffic, and copies off
    with place.open() as held:
        roll_out(held, first, [sample(1)])
    with Asker(place) as asker:
        assert killed(place, processes, second, moves[1], "request", mirrored)
        endpoint = azure.cloud.find(f"{azure.workspace_id}/onlineEndpoints/{place.name}")
        assert endpoint is not None
        assert list(endpoint.properties["mirrorTraffic"].values()) == [20]
        with place.open() as held:
            roll_out(held, second, [sample(2)])
    assert endpoint.properties["mirrorTraffic"] == {}
    assert place.deployments() == {f"v2-{second.digest[:8]}": 100}
    assert asker.failed == []
