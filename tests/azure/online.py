"""A checkout's documents for online endpoints, and versions to deploy by them."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from azure.ai.ml.entities import KubernetesCompute, Model

from mlops_assets.samples import Sample
from resources.azure.clients import AzureClients
from resources.endpoints.azureml import OnlineEndpoints
from resources.endpoints.base import VersionRef
from resources.environment import Environment, Profile, load_profile
from tests.azure.clients import GROUP, LOCATION, ROW, WORKSPACE
from tests.azure.server import ACCOUNT, AzureServer

ROUTES = {
    "liveness_route": {"path": "/v2/health/live", "port": 5001},
    "readiness_route": {"path": "/v2/health/ready", "port": 5001},
    "scoring_route": {"path": "/score", "port": 5001},
}
IMAGE = f"registry.example/scoring@sha256:{'1' * 64}"


@dataclass
class Room:
    """A profile in a temporary folder, and what serves by it."""

    azure: AzureServer
    profile: Profile
    endpoints: OnlineEndpoints
    clients: AzureClients
    folder: Path
    log: list[str]
    versions: list[VersionRef] = field(default_factory=list[VersionRef])

    @property
    def environment(self) -> Environment:
        """The one that is deployed to."""
        return self.profile.environment("production")

    @property
    def name(self) -> str:
        """The endpoint's, on Azure."""
        return "tiny-production"

    def register(self, make: Callable[[Path, int], VersionRef], number: int) -> VersionRef:
        """Register a version with the workspace."""
        version = make(self.folder / "bundles", number)
        self.clients.workspace.models.create_or_update(
            Model(name="tiny", version=str(number), path=str(version.bundle))
        )
        return version

    def open(self) -> Any:
        """Hold the endpoint."""
        return self.endpoints.open("tiny", "production", self.environment)

    def deployments(self) -> dict[str, int]:
        """What there is on Azure, by the server itself: name -> share of the traffic."""
        endpoint = self.azure.cloud.find(f"{self.azure.workspace_id}/onlineEndpoints/{self.name}")
        if endpoint is None:
            return {}
        found = self.azure.cloud.below(endpoint.id, "deployments")
        return {one.name: endpoint.properties["traffic"].get(one.name, 0) for one in found}


def sample(version: int) -> Sample:
    """Answered as expected by version n of ``regression`` alone."""
    value = 1000.0 * version + 3
    expect = {"predictions": 1, "minimum": value, "maximum": value}
    return Sample.model_validate({"name": "one row", "request": ROW, "expect": expect})


def documents(target: str) -> dict[str, dict[str, Any]]:
    """Azure ML's own documents for a target."""
    endpoint: dict[str, Any] = {"name": "production", "auth_mode": "key"}
    deployment: dict[str, Any] = {
        "name": "blue",
        "endpoint_name": "production",
        "model": "azureml:tiny:1",
        "environment": {"name": "scoring", "image": IMAGE, "inference_config": ROUTES},
    }
    if target == "aks":
        endpoint["compute"] = "azureml:aks"
        deployment |= {
            "type": "kubernetes",
            "scale_settings": {
                "type": "target_utilization",
                "min_instances": 1,
                "max_instances": 3,
            },
        }
    else:
        deployment |= {"instance_type": "Standard_DS3_v2", "instance_count": 1}
    return {"endpoint.json": endpoint, "deployment.json": deployment}


def room(azure: AzureServer, folder: Path, target: str, **environment: Any) -> Room:
    """A profile for a target, its compute attached."""
    profile = write_profile(azure, folder / "checkout", target, **environment)
    assert profile.azure is not None
    clients, log = AzureClients(profile.azure), list[str]()
    if target == "aks":
        attach(clients)
    return Room(
        azure, profile, OnlineEndpoints(profile, clients, log=log.append), clients, folder, log
    )


def attach(clients: AzureClients) -> None:
    """Attach a cluster."""
    cluster = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService"
    aks = KubernetesCompute(
        name="aks", resource_id=f"{cluster}/managedClusters/aks", namespace="n", properties={}
    )
    clients.workspace.compute.begin_create_or_update(aks).wait()


def write_profile(
    azure: AzureServer, root: Path, target: str, registry: str | None = None, **environment: Any
) -> Profile:
    """Write ``environments/azure`` of a checkout."""
    folder = root / "environments" / "azure"
    own = folder / "production"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    settings: dict[str, Any] = {
        "subscription_id": azure.subscription,
        "resource_group": GROUP,
        "workspace": WORKSPACE,
        "location": LOCATION,
        "storage": {"account": ACCOUNT},
    }
    if registry:
        settings["registry"] = registry
    (folder / "profile.json").write_text(json.dumps(settings))
    declared = {"name": "production", "target": target, "deploy_seconds": 20, **environment}
    (own / "environment.json").write_text(json.dumps(declared))
    for name, document in documents(target).items():
        (own / name).write_text(json.dumps(document))
    return load_profile({"MLOPS_PROFILE": "azure", "MLOPS_HOME": str(root / "home")}, root)


class Asker:
    """Asks an endpoint again and again, as applications do, and keeps what was no prediction."""

    def __init__(self, place: Room, body: Any = None) -> None:
        endpoint: Any = place.clients.workspace.online_endpoints.get(place.name)
        keys: Any = place.clients.workspace.online_endpoints.get_keys(place.name)
        self._url, self._key = endpoint.scoring_uri, keys.primary_key
        self._body = body or ROW
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answered: Counter[float] = Counter()
        self.failed: list[str] = []

    def __enter__(self) -> Asker:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            headers = {"authorization": f"Bearer {self._key}"}
            while not self._done.wait(0.01):
                answer = client.post(self._url, json=self._body, headers=headers)
                if answer.status_code == 200:
                    self.answered[answer.json()["predictions"][0]] += 1
                else:
                    self.failed.append(f"{answer.status_code} {answer.text}")
