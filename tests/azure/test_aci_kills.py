"""A deployment killed with SIGKILL at every exchange that changes something on Azure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from resources.endpoints.base import VersionRef
from tests.azure.aci_groups import NAME, Groups, document, users
from tests.azure.faults import Fault
from tests.azure.server import AzureServer
from tests.bundles import regression
from tests.local_servers import eventually, processes_of

#: What changes something; only servers write acknowledgements.
_AZURE = r"https://(management\.azure\.com|[^/]*blob\.core\.windows\.net)/"
CHANGES = rf"(DELETE|POST|PATCH) {_AZURE}|PUT {_AZURE}(?!.*/acks/)"
Moment = Literal["request", "answer"]


class Killer:
    """Runs deployments in processes of their own, and kills them."""

    def __init__(self, azure: AzureServer, root: Path) -> None:
        self._azure, self._root = azure, root
        self._process: subprocess.Popen[bytes] | None = None
        self.killed: list[str] = []

    def deploy(self, version: VersionRef, exchange: int, moment: Moment) -> bool:
        """Deploy a version; False if it was killed, at the exchange of that number."""
        fault = Fault(CHANGES, drop=moment, after=exchange, then=self._kill)
        self._azure.faults.add(fault)
        before = len(self._azure.record.exchanges(CHANGES))
        command = [
            sys.executable, "-m", "tests.azure.aci_deploy", str(self._root), str(version.bundle),
            str(version.version), version.digest,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = self._process.communicate(timeout=120)
        self._azure.faults.clear()
        if self._process.returncode == 0:
            return True
        assert self._process.returncode == -9, said.decode()
        last = self._azure.record.exchanges(CHANGES)[before:][exchange]
        self.killed.append(f"{moment} {last.method} {last.url.partition('?')[0][-60:]}")
        return False

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()


@pytest.fixture
def groups(azure: AzureServer, tmp_path: Path) -> Groups:
    return Groups(tmp_path, azure)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", ["request", "answer"])
def test_a_killed_rollout_loses_nothing(
    azure: AzureServer, groups: Groups, tmp_path: Path, moment: Moment
) -> None:
    groups.deploy(regression(tmp_path, 1))
    killer, number = Killer(azure, tmp_path), 1
    while True:
        number += 1
        version = regression(tmp_path, number)
        with users(groups.key(), 0.01) as told:
            eventually(lambda told=told: len(told.versions) > 2)
            done = killer.deploy(version, number - 2, moment)
            if not done:
                count = len(told.versions)
                eventually(lambda told=told, count=count: len(told.versions) > count + 5)
                groups.deploy(version)
        assert set(told.statuses) == {200}, killer.killed[-1:]
        assert told.seen() in ([number - 1], [number - 1, number]), killer.killed[-1:]
        assert groups.answering() == number
        with groups.open() as target:
            assert list(target.live()) == [f"v{number}"]
        if done:
            break
    print("\n".join(killer.killed))
    # The lock and who holds it, the archive, three generations, the lock again.
    assert len(killer.killed) >= 7
    assert sum("generation.json" in line for line in killer.killed) == 3
    assert groups.names() == [NAME]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", ["request", "answer"])
def test_a_killed_change_of_the_group_leaves_no_orphan(
    azure: AzureServer, groups: Groups, tmp_path: Path, moment: Moment
) -> None:
    version = regression(tmp_path, 1)
    groups.deploy(version)
    killer, round_ = Killer(azure, tmp_path), 0
    while True:
        groups.write(document(environmentVariables=[{"name": "ROUND", "value": str(round_)}]))
        done = killer.deploy(version, round_, moment)
        # Also a group that was just being replaced comes back by itself.
        eventually(lambda: groups.endpoints.status("tiny", "staging").healthy, 60)
        eventually(lambda: groups.answering() == 1, 60)
        if done:
            break
        groups.deploy(version)
        assert groups.answering() == 1
        assert groups.names() == [NAME]
        round_ += 1
    print("\n".join(killer.killed))
    assert sum("containerGroups" in line for line in killer.killed) >= 3
    assert groups.names() == [NAME]
    eventually(lambda: len(processes_of(azure.folder, "mlops_assets.scoring.worker")) == 1)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("moment", ["request", "answer"])
def test_a_killed_first_deployment_is_finished_by_the_next(
    azure: AzureServer, groups: Groups, tmp_path: Path, moment: Moment
) -> None:
    killer, version, exchange = Killer(azure, tmp_path), regression(tmp_path, 1), 0
    while not killer.deploy(version, exchange, moment):
        groups.deploy(version)
        assert groups.answering() == 1
        assert groups.names() == [NAME]
        # From the start again, without a group, and without what lies in storage.
        clients = groups.clients.container_instances.container_groups
        clients.begin_delete("test-group", NAME).wait()
        container = azure.blob.client().get_container_client("mlops")
        for blob in container.list_blobs():
            container.delete_blob(blob.name)
        groups.endpoints._asked.clear()
        exchange += 1
    print("\n".join(killer.killed))
    assert groups.answering() == 1
    assert exchange >= 8
