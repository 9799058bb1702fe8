"""One online endpoint of Azure ML, held by one deployer: the five verbs and the question."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlops_assets.scoring.signature import Signed
from resources.azure.clients import AzureClients
from resources.azure.explain import explain
from resources.endpoints.azureml_counts import Instances
from resources.endpoints.azureml_documents import OnlineDocuments
from resources.endpoints.azureml_operations import (
    Operations,
    TooSlowError,
    endpoint_errors,
    state_of,
)
from resources.endpoints.azureml_scoring import Scoring
from resources.endpoints.base import (
    Answer,
    Deployment,
    EndpointError,
    Observation,
    Request,
    VersionRef,
    split_traffic,
)

#: Lines of a container's log that are asked for.
LOG_LINES = 100
#: How long removing a deployment is tried that has been waited for in vain.
STUCK_SECONDS = 30.0
#: Between two looks at shares that only the holder changes: Azure limits how often it is asked.
LOOK_SECONDS = 30.0
#: So much of a digest stands in a deployment's name, which has 32 characters at most.
DIGITS = 8


@dataclass(frozen=True, slots=True)
class _Seen:
    deployments: dict[str, Deployment]
    #: Deployment -> percent of the requests that are copied to it.
    mirrored: dict[str, int]
    #: On the monotonic clock.
    at: float


class OnlineTarget:
    """One endpoint; every verb returns when Azure has done it."""

    def __init__(
        self,
        documents: OnlineDocuments,
        clients: AzureClients,
        operations: Operations,
        scoring: Scoring,
    ) -> None:
        """An endpoint that exists and is held.

        Args:
            documents: what it and its deployments are made by.
            clients: of the workspace.
            operations: waits for Azure.
            scoring: asks it.
        """
        self._documents = documents
        self._clients = clients
        self._operations = operations
        self._scoring = scoring
        self._instances = Instances(scoring.score)
        self._name = documents.endpoint_name
        self._foreign: dict[str, int] = {}
        #: As it was when it was last looked at; None where it was changed since.
        self._seen: _Seen | None = None
        #: Deployments that Azure had not done with within the limit.
        self._stuck: set[str] = set()

    @property
    def url(self) -> str:
        """The scoring URL."""
        return self._scoring.url

    def live(self) -> dict[str, Deployment]:
        """The deployments that the platform has made, by name; see the protocol."""
        return self._look().deployments

    def stage(self, version: VersionRef, mirror: int = 0) -> Deployment:
        """Load a version beside the others; see the protocol."""
        if mirror and self._documents.kubernetes:
            raise EndpointError(
                f"{self._operations.what}: Azure copies no requests on Kubernetes; leave "
                "mirror_percent out of environment.json"
            )
        name = deployment_name(version)
        found = self._operations.settled(name, lambda: self._deployment(name))
        if found is not None and not _serves(found, version):
            self.discard(name)
            found = None
        if found is None:
            self._deploy(name, version)
        self._set_traffic(self._shares(), {name: mirror} if mirror else {})
        return self.live()[name]

    def score(self, deployment: str | None, request: Request) -> Answer:
        """Ask one deployment, or whichever the traffic's shares choose; see the protocol."""
        return self._scoring.score(deployment, request)

    def promote(self, deployment: str, percent: int, sticky_header: str | None = None) -> None:
        """Give a deployment a share of the traffic; see the protocol."""
        if sticky_header is not None:
            raise EndpointError(
                f"{self._operations.what}: online endpoints of Azure ML have no sticky_header; "
                "leave it out of environment.json"
            )
        if not 0 <= percent <= 100:
            raise EndpointError(f"traffic is 0 to 100 percent, not {percent}")
        before = self._shares()
        if deployment not in before:
            raise EndpointError(f"{self._operations.what}: no deployment '{deployment}'")
        shares = split_traffic(before, deployment, percent)
        if sum(shares.values()) not in (0, 100):
            raise EndpointError(
                f"{self._operations.what}: {deployment} cannot have {percent} % where no other "
                "deployment has the rest: Azure shares all the traffic, or none"
            )
        self._set_traffic(shares, {})

    def discard(self, deployment: str) -> None:
        """Remove a deployment; see the protocol."""
        client = self._clients.workspace.online_deployments
        if self._deployment(deployment) is None:
            return
        shares, mirrored = self._shares(), dict(self._look().mirrored)
        if shares.get(deployment) or mirrored.pop(deployment, 0):
            self._set_traffic(split_traffic(shares, deployment, 0), mirrored)
        operations = self._operations
        if deployment in self._stuck:  # it has been waited for
            operations = replace(operations, seconds=min(operations.seconds, STUCK_SECONDS))
        self._seen = None
        operations.run(f"delete {deployment}", lambda: client.begin_delete(deployment, self._name))

    def observe(self) -> dict[str, Observation]:
        """What each deployment has done so far; see the protocol."""
        seen = self._seen
        if seen is None or time.monotonic() - seen.at > LOOK_SECONDS:
            seen = self._look()
        result: dict[str, Observation] = {}
        for position, (name, deployment) in enumerate(seen.deployments.items()):
            counts = self._instances.counts(name, oldest=position == 0)
            # Azure sends copies like any request; who has no share gets nothing else.
            copies = seen.mirrored.get(name) and not deployment.traffic
            result[name] = Observation(mirrored=counts) if copies else Observation(counts)
        return result

    # -- deployments

    def _deploy(self, name: str, version: VersionRef) -> None:
        """Make a deployment; what fails is removed, and explained."""
        client = self._clients.workspace.online_deployments
        made = self._documents.deployment(name, version, self._variables(version), _now())
        self._seen = None
        try:
            self._operations.run(
                f"deploy version {version.version} as {name}",
                lambda: client.begin_create_or_update(made),
            )
        except EndpointError as error:
            text = f"{self._operations.what}: version {version.version} cannot be deployed: "
            failure = EndpointError(text + explain(str(error), self._log_of(name)))
            if isinstance(error, TooSlowError):
                self._stuck.add(name)
            try:
                self.discard(name)
            except EndpointError as second:
                failure.add_note(f"{name} is left to the next rollout: {second}")
            raise failure from None

    def _variables(self, version: VersionRef) -> dict[str, str]:
        """What the server is told: which version it must find, and who checks keys."""
        server = self._documents.environment.server
        found = {
            # Azure's front checks them, and passes none on.
            "MLOPS_NO_KEYS": "true",
            "MLOPS_BUNDLE_DIGEST": version.digest,
            "MLOPS_BUNDLE_VERSION": str(version.version),
            "MLOPS_COMPARED_EDGES": json.dumps(self._edges()),
        }
        if server.cors_origins:
            found["MLOPS_CORS_ORIGINS"] = ",".join(server.cors_origins)
        if server.access_log:
            found["MLOPS_ACCESS_LOG"] = "true"
        return found | _signature(version.signed)

    def _edges(self) -> list[float]:
        """By which the oldest deployment counts what it predicts: the new one does so too."""
        oldest = next(iter(self.live()), None)
        if oldest is None:
            return []
        try:
            return list(self._instances.one(oldest).edges)
        except EndpointError as error:  # predictions are not compared; all else is
            self._operations.log(f"{self._operations.what}: {error}")
            return []

    def _deployment(self, name: str) -> Any:
        from azure.core.exceptions import ResourceNotFoundError

        with endpoint_errors(f"{self._operations.what}: {name}"):
            try:
                return self._clients.workspace.online_deployments.get(name, self._name)
            except ResourceNotFoundError:
                return None

    def _log_of(self, name: str) -> str:
        client = self._clients.workspace.online_deployments
        with suppress(EndpointError), endpoint_errors(self._operations.what):
            return client.get_logs(name, self._name, lines=LOG_LINES)
        return ""

    # -- traffic

    def _endpoint(self) -> Any:
        with endpoint_errors(self._operations.what):
            return self._clients.workspace.online_endpoints.get(self._name)

    def _look(self) -> _Seen:
        with endpoint_errors(self._operations.what):
            listed = list(self._clients.workspace.online_deployments.list(self._name))
        endpoint = self._endpoint()
        ours, others = deployments_of(self._documents, endpoint.traffic, listed)
        self._report(others)
        self._seen = _Seen(ours, dict(endpoint.mirror_traffic or {}), time.monotonic())
        return self._seen

    def _shares(self) -> dict[str, int]:
        return {name: deployment.traffic for name, deployment in self.live().items()}

    def _set_traffic(self, shares: Mapping[str, int], mirrored: Mapping[str, int]) -> None:
        """Let Azure share the traffic so, if it does not yet."""
        client = self._clients.workspace.online_endpoints
        endpoint: Any = self._operations.settled(self._name, self._endpoint)
        wanted = {name: share for name, share in shares.items() if share}
        found = {name: share for name, share in (endpoint.traffic or {}).items() if share}
        copies = {name: share for name, share in (endpoint.mirror_traffic or {}).items() if share}
        if (found, copies, state_of(endpoint)) == (wanted, dict(mirrored), "Succeeded"):
            return
        endpoint.traffic, endpoint.mirror_traffic = wanted, dict(mirrored)
        self._seen = None
        self._operations.run("move its traffic", lambda: client.begin_create_or_update(endpoint))

    def _report(self, others: dict[str, int]) -> None:
        """Say once which deployments are none of the platform's."""
        if others == self._foreign:
            return
        self._foreign = others
        for name, traffic in others.items():
            has = (
                f"has {traffic} % of the traffic, until a version gets its share" if traffic else ""
            )
            self._operations.log(
                f"{self._operations.what}: {name} was not made by the platform and is left alone"
                + (f"; it {has}" if has else "")
            )


def deployment_name(version: VersionRef) -> str:
    """Its name on Azure."""
    return f"v{version.version}-{version.digest[:DIGITS]}"


def deployments_of(
    documents: OnlineDocuments, traffic: Mapping[str, int] | None, listed: Iterable[Any]
) -> tuple[dict[str, Deployment], dict[str, int]]:
    """The platform's deployments, the oldest first, and the traffic of all others."""
    ours: list[tuple[str, int, Deployment]] = []
    others: dict[str, int] = {}
    for found in listed:
        tags = found.tags or {}
        share = int((traffic or {}).get(found.name, 0))
        version, digest = str(tags.get("mlops_version", "")), tags.get("mlops_digest")
        if tags.get("mlops_model") == documents.model and version.isdecimal() and digest:
            deployment = Deployment(found.name, int(version), digest, share)
            ours.append((tags.get("mlops_created", ""), int(version), deployment))
        else:
            others[found.name] = share
    return {d.name: d for _, _, d in sorted(ours, key=lambda one: one[:2])}, others


def _serves(found: Any, version: VersionRef) -> bool:
    digest = (found.tags or {}).get("mlops_digest")
    return state_of(found) == "Succeeded" and digest == version.digest


def _signature(signed: Signed | None) -> dict[str, str]:
    """The public key, and the signature: it is younger than the registered files."""
    if signed is None:
        return {}
    try:
        signature = Path(signed.signature).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise EndpointError(
            f"{signed.signature}: not there: the version is not signed; `mlops sign` does it"
        ) from None
    return {"MLOPS_PUBLIC_KEY": signed.public_key, "MLOPS_SIGNATURE": signature.strip()}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()
