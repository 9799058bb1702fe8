"""Exchanges against Microsoft's published specifications."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.azure.blob import NODE, node
from tests.azure.record import HIDDEN, Exchange

#: Versions of the interface that are not published there, and the ones that are nearest.
ALIASES = {
    "machinelearningservices": {
        "2024-10-01-preview": "2024-04-01-preview",
        "2025-01-01-preview": "2024-04-01-preview",
    },
    "resources": {"2020-06-01": "2021-04-01"},
}
#: Addresses that no specification names: the service hands them out itself. And one that oav
#: cannot find: it takes the service that is asked about for the one that is asked.
UNPUBLISHED = re.compile(
    r"/(mfeOperationsStatus|mfeOperationResults|computeOperationsStatus|workspaceOperationsStatus"
    r"|operationStatuses|operations/[0-9a-f-]{36}\b)|^/subscriptions/[^/]+/providers/[\w.]+$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Deviation:
    """Something that is known to differ from the specification."""

    operation: str
    #: Both are searched for as regular expressions.
    code: str
    path: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Whether it is this."""
        return (
            re.fullmatch(self.operation, finding.operation) is not None
            and re.fullmatch(self.code, finding.code) is not None
            and re.search(self.path, finding.path) is not None
        )


#: What Microsoft's own clients send, against their own specification.
REQUESTS = (
    Deviation(
        "CodeVersions_CreateOrUpdate|RegistryCodeVersions_CreateOrUpdate",
        "INVALID_TYPE",
        "hash_version",
        "azure-ai-ml sends the version of its hash as an integer",
    ),
    Deviation(
        "Deployments_CreateOrUpdate",
        "ENUM_CASE_MISMATCH",
        r"\.mode$",
        "azure-ai-ml writes the mode of a template's deployment in small letters",
    ),
    Deviation(
        "Registries_CreateOrUpdate",
        "OBJECT_ADDITIONAL_PROPERTIES",
        r"\.managedResourceGroupTags$",
        "azure-ai-ml sends the tags of a registry's own resource group",
    ),
)
#: What Azure itself answers, against its own specification; each is in a recording.
RESPONSES = (
    Deviation(
        "Workspaces_Get|Workspaces_ListByResourceGroup",
        "OBJECT_ADDITIONAL_PROPERTIES",
        r"\.(etag|softDeleteEnabled|linkedModelInventoryArmId|sdkTelemetryAppInsightsKey"
        r"|creationTime|allowRoleAssignmentOnRG|networkAcls|EnableSoftwareBillOfMaterials"
        r"|enableServiceSideCMKEncryption|enableNetworkMonitor|enableFirewallLog|sasGetterUri)$",
        "a workspace has more than is published (recorded in March 2026)",
    ),
    Deviation(
        "Datastores_(Get|List|CreateOrUpdate)",
        "OBJECT_MISSING_REQUIRED_PROPERTY",
        r"\.credentials\.secrets$",
        "a datastore is answered without the secrets that are required (recorded in 2022 and 2026)",
    ),
    Deviation(
        "DeploymentOperations_List",
        "OBJECT_ADDITIONAL_PROPERTIES",
        r"\.trackingId$",
        "the steps of a template's deployment have a tracking id (recorded in 2023)",
    ),
)


@dataclass(frozen=True)
class Finding:
    """Where an exchange differs from the specification."""

    side: str
    operation: str
    code: str
    path: str
    message: str
    url: str

    def __str__(self) -> str:
        return f"{self.side} {self.operation} {self.code} {self.path}: {self.message} ({self.url})"


@dataclass
class Findings:
    """What the validator has to say about some exchanges."""

    #: Exchanges by operation.
    operations: Counter[str] = field(default_factory=Counter)
    #: Exchanges that no specification is about, by method and address.
    outside: Counter[str] = field(default_factory=Counter)
    requests: list[Finding] = field(default_factory=list)
    responses: list[Finding] = field(default_factory=list)
    #: How often each known deviation was seen.
    known: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """Counts for people."""
        return (
            f"{self.counts()}; {len(self.requests)} findings in requests, {len(self.responses)} "
            "in answers"
        )

    def counts(self) -> str:
        """How much was checked."""
        known = ", ".join(f"{count} x {reason}" for reason, count in self.known.items())
        return (
            f"{sum(self.operations.values())} exchanges of {len(self.operations)} operations held "
            f"against the specifications, {sum(self.outside.values())} that they are not about; "
            f"known: {known or 'none'}"
        )


class Validator:
    """One process of Node, with the specifications in its memory."""

    def __init__(self, specifications: Path, log: Path) -> None:
        """Start it; the first exchange waits until it has read the specifications."""
        if not (specifications / "specification").is_dir():
            raise NotADirectoryError(
                f"AZURE_SPECS_DIR: there is no {specifications / 'specification'}; it is to be a "
                "copy of the repository azure-rest-api-specs"
            )
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [node(), str(NODE / "validate.cjs"), str(specifications)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._log = log

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def check(self, exchanges: Sequence[Exchange]) -> Findings:
        """Check exchanges with management.azure.com; faults and dropped ones are left out."""
        found = Findings()
        for exchange in exchanges:
            if exchange.fault or exchange.status is None:
                continue
            path = urlsplit(exchange.url).path
            if exchange.host != "management.azure.com" or UNPUBLISHED.search(path):
                found.outside[f"{exchange.method} {exchange.host}"] += 1
                continue
            answer = self._ask(exchange)
            found.operations[answer["operation"]] += 1
            _sort(exchange, "request", answer, REQUESTS, found.requests, found.known)
            _sort(exchange, "response", answer, RESPONSES, found.responses, found.known)
        return found

    def _ask(self, exchange: Exchange) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(_pair(exchange)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the validator has ended: {self._log.read_text()[-2000:]}")
        return json.loads(line)


def specifications() -> Path | None:
    """The folder of azure-rest-api-specs, from ``AZURE_SPECS_DIR``."""
    found = os.environ.get("AZURE_SPECS_DIR")
    return Path(found) if found else None


def _pair(exchange: Exchange) -> dict[str, Any]:
    return {
        "liveRequest": {
            "method": exchange.method,
            "url": _published(exchange.url),
            "headers": {**exchange.request_headers, "Authorization": f"Bearer {HIDDEN}"},
            "body": exchange.request_body,
        },
        "liveResponse": {
            "statusCode": str(exchange.status),
            "headers": {name.lower(): v for name, v in exchange.response_headers.items()},
            "body": exchange.response_body,
        },
    }


def _published(url: str) -> str:
    provider = re.findall(r"/providers/Microsoft\.(\w+)", url, re.IGNORECASE)
    aliases = ALIASES.get(provider[-1].lower(), {}) if provider else ALIASES["resources"]
    return re.sub(r"(?<=api-version=)[\w-]+", lambda match: aliases.get(match[0], match[0]), url)


def _sort(
    exchange: Exchange,
    side: str,
    answer: dict[str, Any],
    deviations: Sequence[Deviation],
    findings: list[Finding],
    known: Counter[str],
) -> None:
    for item in answer[side]:
        url = f"{exchange.method} {exchange.url} -> {exchange.status}"
        found = Finding(side, answer["operation"], item["code"], item["path"], item["message"], url)
        reason = next((d.reason for d in deviations if d.covers(found)), None)
        if reason:
            known[reason] += 1
        else:
            findings.append(found)
