"""Container groups for one test: a profile in a folder, and what asks them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from mlops_assets.rollout import Rollout, Sample, roll_out
from resources.azure.clients import AzureClients
from resources.azure.settings import read_settings
from resources.endpoints.aci import ContainerGroups
from resources.endpoints.base import Request, VersionRef
from resources.environment import Environment, Profile
from resources.traffic import Traffic
from tests.azure.server import LOCATION, AzureServer

DIGEST = f"sha256:{'a' * 64}"
OTHER_DIGEST = f"sha256:{'b' * 64}"
NAME = "tiny-staging"
URL = f"https://{NAME}.{LOCATION}.azurecontainer.io/score"
ASK = Request.of({"data": [{"a": 1, "b": 2}]})
SAMPLE = Sample.model_validate(
    {
        "name": "one row",
        "request": {"data": [{"a": 1, "b": 2}]},
        "expect": {"predictions": 1, "minimum": 0, "maximum": 9999},
    }
)


def document(**changes: Any) -> dict[str, Any]:
    """A group with a sidecar that ends TLS."""
    size = {"requests": {"cpu": 1, "memoryInGB": 1}}
    scoring = {
        "image": f"registry.example/scoring@{DIGEST}",
        "resources": size,
        "ports": [{"port": 5001}],
        "environmentVariables": [],
        **changes,
    }
    tls = {
        "image": f"caddy@{DIGEST}",
        "resources": size,
        "ports": [{"port": 443}],
        "command": ["caddy", "reverse-proxy", "--from", "https://${MLOPS_FQDN}"],
    }
    return {
        "name": "staging",
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "osType": "Linux",
            "containers": [
                {"name": "scoring", "properties": scoring},
                {"name": "tls", "properties": tls},
            ],
            "ipAddress": {"type": "Public", "ports": [{"port": 443}], "dnsNameLabel": "staging"},
        },
    }


class Groups:
    """The endpoint ``tiny/staging`` as a container group."""

    def __init__(self, root: Path, azure: AzureServer | None, seconds: float = 60) -> None:
        """Write the profile below ``root``; None: it is there already."""
        self.folder = root / "environments" / "azure"
        self.log: list[str] = []
        if azure is not None:
            from tests.azure.platforms import profile_json

            self.write(document())
            (self.folder / "profile.json").write_text(json.dumps(profile_json(azure)))
        settings = read_settings(self.folder / "profile.json")
        self.environment = Environment(name="staging", target="aci", deploy_seconds=seconds)
        self.profile = Profile("azure", root, root / "home", (self.environment,), azure=settings)
        self.clients = AzureClients(settings)
        self.endpoints = ContainerGroups(self.profile, self.clients, self.log.append)

    def write(self, found: dict[str, Any]) -> None:
        """Write container-group.json."""
        path = self.folder / "staging" / "container-group.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))

    def open(self) -> Any:
        """Hold the endpoint."""
        return self.endpoints.open("tiny", "staging", self.environment)

    def deploy(self, version: VersionRef, **traffic: Any) -> Rollout:
        """Roll a version out."""
        with self.open() as target:
            given = Traffic.model_validate(traffic)
            return roll_out(target, version, [SAMPLE], traffic=given, log=self.log.append)

    def answering(self) -> int:
        """The version that answers."""
        answer = self.endpoints.ask("tiny", "staging", ASK)
        assert answer.status == 200, answer.body
        return int(answer.headers["x-mlops-version"])

    def names(self) -> list[str]:
        """All container groups there are."""
        groups = self.clients.container_instances.container_groups
        return sorted(g.name for g in groups.list_by_resource_group("test-group"))

    def key(self) -> str:
        """The primary key."""
        return self.endpoints._blobs("tiny", "staging").key()


@dataclass
class Users:
    """What users were told, over kept connections: versions and statuses, in order."""

    versions: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    longest: float = 0.0

    def seen(self) -> list[int]:
        """The versions, without repetitions."""
        found: list[int] = []
        for version in self.versions:
            if version not in found[-1:]:
                found.append(version)
        return found


@contextmanager
def users(key: str, pause: float = 0.005, **headers: str) -> Iterator[Users]:
    """Ask all the time."""
    found, stop = Users(), threading.Event()

    def run() -> None:
        given = {"authorization": f"Bearer {key}", **headers}
        with httpx.Client(timeout=30, headers=given) as client:
            while not stop.is_set():
                began = time.perf_counter()
                answer = client.post(URL, json={"data": [{"a": 1, "b": 2}]})
                found.longest = max(found.longest, time.perf_counter() - began)
                found.statuses.append(answer.status_code)
                found.versions.append(int(answer.headers.get("x-mlops-version", 0)))
                time.sleep(pause)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()
