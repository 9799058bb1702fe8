"""Azure on loopback: the real host names, real TLS, Microsoft's unmodified clients."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from tests.azure.api import Api
from tests.azure.arm import registries, workspaces
from tests.azure.arm.base import Cloud
from tests.azure.arm.host import ResourceManager
from tests.azure.authority import Authority
from tests.azure.blob import SUFFIX, Blob
from tests.azure.container_registry import ContainerRegistries
from tests.azure.control import Control
from tests.azure.faults import Faults
from tests.azure.identity import HOST as IDENTITY_HOST
from tests.azure.identity import Identity
from tests.azure.login import HOST, Login
from tests.azure.proxy import Host, Proxy
from tests.azure.record import Record
from tests.azure.scoring import ContainerInstances, LocalCluster, OnlineEndpoints
from tests.azure.validate import Findings, Validator, specifications

GROUP, WORKSPACE, REGISTRY = "test-group", "test-workspace", "test-registry"
LOCATION, ACCOUNT = "eastus2", "mlopstest"


class AzureServer:
    """One tenant, one subscription, one resource group with a workspace and a registry."""

    def __init__(self) -> None:
        """Start all of it; ``close`` ends it."""
        self._temporary = tempfile.TemporaryDirectory(prefix="azure-")
        self.folder = Path(self._temporary.name)
        self.subscription = str(uuid.uuid4())
        self.authority = Authority(self.folder)
        self.blob = Blob(ACCOUNT, self.authority, self.folder)
        self.faults, self.record = Faults(), Record()
        self.login = Login(str(uuid.uuid4()), str(uuid.uuid4()))
        self._validator: Validator | None = None
        cluster = LocalCluster(self.folder / "containers", self._network, self._inside)
        self.cloud = Cloud(
            self.login, self.blob, self.faults, cluster, self.subscription, GROUP, LOCATION,
            self.folder, self.record.broken,
        )  # fmt: skip
        hosts: dict[str, Host] = {
            "management.azure.com": ResourceManager(self.cloud),
            HOST: self.login,
            IDENTITY_HOST: Identity(self.cloud),
            SUFFIX: self.blob,
            ".inference.ml.azure.com": OnlineEndpoints(self.cloud),
            ".api.azureml.ms": Api(self.cloud),
            ".azurecontainer.io": ContainerInstances(self.cloud),
            ".azurecr.io": ContainerRegistries(self.cloud),
        }
        control = Control(self.faults, self.record, self.findings)
        self.proxy = Proxy(self.authority, hosts, control, self.faults, self.record)
        self.blob.wait()
        self._make()

    @property
    def workspace_id(self) -> str:
        """The id of the workspace."""
        return workspaces.identity(self.cloud, WORKSPACE)

    def environment(self) -> dict[str, str]:
        """The variables for the code under test, in this process or another."""
        return {
            **self._network(),
            "AZURE_TENANT_ID": self.login.tenant,
            "AZURE_CLIENT_ID": self.login.client_id,
            "AZURE_CLIENT_SECRET": self.login.secret,
            "AZURE_SUBSCRIPTION_ID": self.subscription,
            "AZURE_RESOURCE_GROUP": GROUP,
            "AZURE_WORKSPACE": WORKSPACE,
            "AZURE_LOCATION": LOCATION,
            "AZURE_STORAGE_ACCOUNT": ACCOUNT,
            # What a team has made before: a cluster, an image in its registry, an identity.
            "AZURE_KUBERNETES_CLUSTER": "test-cluster",
            "MLOPS_SERVING_REGISTRY": "images.azurecr.io",
            "MLOPS_SERVING_DIGEST": f"sha256:{'5' * 64}",
            "MLOPS_SERVING_IDENTITY": (
                f"/subscriptions/{self.subscription}/resourceGroups/{GROUP}/providers/"
                "Microsoft.ManagedIdentity/userAssignedIdentities/mlops-serving"
            ),
            "MLOPS_DNS_LABEL": "test",
        }

    def trust_in_this_process(self) -> None:
        """Make aiohttp, which reads the authorities when it is imported, trust this one too."""
        from aiohttp import connector

        connector._SSL_CONTEXT_VERIFIED.load_verify_locations(self.authority.bundle)

    def findings(self) -> Findings | None:
        """What the exchanges so far look like beside the specifications; None without those."""
        folder = specifications()
        if folder is None:
            return None
        if self._validator is None:
            self._validator = Validator(folder, self.folder / "validator.log")
        return self._validator.check(self.record.exchanges())

    def reset(self) -> None:
        """As new: no resources but the workspace and the registry, no faults, no exchanges."""
        self.cloud.clear()
        self.faults.clear()
        self.record.clear()
        client = self.blob.client()
        for container in client.list_containers():
            client.delete_container(container.name)
        self._make()

    def close(self) -> None:
        """End all processes."""
        self.proxy.close()
        self.cloud.clear()
        self.cloud.work.shutdown()
        self.blob.close()
        if self._validator:
            self._validator.close()
        self._temporary.cleanup()

    def _make(self) -> None:
        with self.cloud.lock:
            workspaces.make(self.cloud, WORKSPACE)
            registries.make(self.cloud, REGISTRY)

    def _inside(self, name: str) -> dict[str, str]:
        """The same for a container: the proxy knows it by the name of its group."""
        own = self.proxy.url.replace("://", f"://{name}:container@")
        return {**self._network(), "HTTPS_PROXY": own, "HTTP_PROXY": own}

    def _network(self) -> dict[str, str]:
        """What everybody needs who is to find Azure here."""
        bundle = str(self.authority.bundle)
        return {
            "HTTPS_PROXY": self.proxy.url,
            "HTTP_PROXY": self.proxy.url,
            "NO_PROXY": "localhost,127.0.0.1",
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
        }
