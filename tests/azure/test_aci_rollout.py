"""Rollouts to a container group whose server really runs, and follows real blobs."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from mlops_assets.rollout import RolloutError
from tests.azure.aci_groups import NAME, URL, Groups, users
from tests.azure.server import AzureServer
from tests.bundles import broken, constant, deadly, regression
from tests.local_servers import eventually


@pytest.fixture
def groups(azure: AzureServer, tmp_path: Path) -> Groups:
    return Groups(tmp_path, azure)


def test_the_first_deployment(groups: Groups, tmp_path: Path) -> None:
    done = groups.deploy(regression(tmp_path, 1))
    assert (done.outcome, done.previous) == ("deployed", None)
    assert groups.answering() == 1
    assert groups.names() == [NAME]
    assert groups.endpoints.known() == [("tiny", "staging")]
    status = groups.endpoints.status("tiny", "staging")
    assert (status.version, status.url, status.healthy) == (1, URL, True)
    live = groups.endpoints.serving("tiny", "staging")
    assert live is not None
    assert (live.name, live.version, live.traffic) == ("v1", 1, 100)
    assert "az storage blob download" in status.key_command
    assert httpx.post(URL, json={"data": []}).status_code == 401


def test_versions_are_swapped_and_no_request_is_lost(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(regression(tmp_path, 1))
    with users(groups.key()) as told:
        eventually(lambda: len(told.versions) > 20)
        began = time.monotonic()
        groups.deploy(regression(tmp_path, 2))
        seconds = time.monotonic() - began
        before = len(told.versions)
        eventually(lambda: len(told.versions) > before + 20)
    assert set(told.statuses) == {200}
    assert told.seen() == [1, 2]
    puts = groups.clients.container_instances.container_groups.get("test-group", NAME)
    assert puts.containers[0].instance_view.restart_count == 0
    print(f"{len(told.statuses)} requests, longest {told.longest:.3f} s, rollout {seconds:.1f} s")
    done = groups.deploy(regression(tmp_path / "again", 2))
    assert done.outcome == "unchanged"
