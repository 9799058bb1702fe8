"""Why a deployment on Azure failed, and how to mend it: the causes that are met often, as a table.

The texts are those of Azure's documentation of online endpoints and of container instances, of
Kubernetes' events, and of messages that people were given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from resources.azure.clients import without_secrets

#: How much of a log is shown: its end says why something ended.
LINES, CHARACTERS = 12, 1500
#: How much of Azure's own words is shown.
_WORDS = 600


@dataclass(frozen=True)
class Cause:
    """Something that makes deployments fail."""

    name: str
    #: Searched for in Azure's words, in any case.
    pattern: str
    cause: str
    mend: str
    #: Searched for in the log as well: a narrower one, as a log is full of other people's words.
    log: str | None = None


#: The first one that fits is told: the particular before the general.
CAUSES = (
    Cause(
        "out of memory",
        r"OOMKilled|out of memory|exit ?code:? 137\b|\b137 \(|MemoryError|Cannot allocate memory",
        "the container needs more memory than it has",
        "give it more: `resources.limits.memory` (Kubernetes), a larger `instance_type` (managed) "
        "or `resources.requests.memoryInGB` (container group); or let fewer workers serve",
        log=r"OOMKilled|out of memory|MemoryError\b|Cannot allocate memory",
    ),
    Cause(
        "image platform",
        r"exec format error|no match(ing)? (for platform|manifest)",
        "the image is built for another kind of processor",
        "build it for linux/amd64: `docker build --platform linux/amd64`",
        log="exec format error",
    ),
    Cause(
        "image access",
        r"InaccessibleImage|(pull|download)[^.]{0,300}?(unauthorized|authentication required|denied"
        r"|401|403)|RegistryCredential|ContainerRegistryAuth|AcrPull|UNAUTHORIZED: auth",
        "the container registry does not let the image be pulled",
        "give the identity that pulls (the endpoint's, the cluster's or the container group's) the "
        "role AcrPull on the registry, or check `imageRegistryCredentials`",
    ),
    Cause(
        "image",
        r"ErrImagePull|ImagePullBackOff|ImageNotFound|manifest (for .{1,200} )?(unknown|not found)"
        r"|Unable to download user container image|Failed to pull image|RegistryErrorResponse"
        r"|name unknown: ",
        "the image cannot be pulled",
        "check that it was pushed, under the very digest that the document names: "
        "`az acr manifest list-metadata`; and that the registry can be reached from there",
    ),
    Cause(
        "image build",
        r"ImageBuildFail|Environment image build|image build (has )?failed",
        "the image could not be built in Azure ML",
        "read the build's log below Environments in the studio; a package that cannot be installed "
        "is the usual reason",
    ),
    Cause(
        "size not available",
        r"SkuNotAvailable|VMSizeNotSupported|InvalidVmSize|(vm ?size|sku|instance ?type)[^.]{0,120}"
        r"(not (available|supported|valid|recognized)|is invalid|unavailable)"
        r"|requested (VM )?size[^.]{0,120}not",
        "this size of machine is not offered in the region, or not to the subscription",
        "choose another: `az ml compute list-sizes --location LOCATION`",
    ),
    Cause(
        "no capacity",
        r"OutOfCapacity|AllocationFailed|Region-wide VM capacity|lack of [^.]{0,60}capacity"
        r"|requested resource is not available in the location",
        "the region has no such machine free at the moment",
        "try again later, or choose another size or region",
    ),
    Cause(
        "no room in the cluster",
        r"Kubernetes unschedulable|FailedScheduling|\d+/\d+ nodes are available|Insufficient (cpu"
        r"|memory|nvidia)|ScheduleFail",
        "no node of the Kubernetes cluster has room for what the deployment asks for",
        "ask for less in `resources.requests`, remove what is no longer needed, or add nodes",
    ),
    Cause(
        "quota",
        r"OutOfQuota|QuotaExceeded|QuotaReached|not enough quota|exceed\w*[^.]{0,80}quota"
        r"|quota[^.]{0,120}exceeded|exceeding approved|ReachedLimit|LimitExceeded",
        "the subscription's quota does not suffice",
        "remove deployments that are no longer needed, ask for less, or ask Azure for more: "
        "`az ml compute list-usage --location LOCATION`, then a quota request in the portal",
    ),
    Cause(
        "provider",
        r"MissingSubscriptionRegistration|SubscriptionNotRegistered|registered to use namespace",
        "the subscription does not use this service of Azure yet",
        "register it once: `az provider register --namespace NAMESPACE`, with the namespace named "
        "here",
    ),
    Cause(
        "role",
        r"AuthorizationFail|AuthorizationPermissionMismatch|LinkedAuthorizationFailed"
        r"|does not have (authorization|permission)|not authorized to perform|authorization error"
        r"|incorrect role assignments?|Forbidden|\b403\b",
        "an identity lacks a role",
        "docs/azure.md lists who needs which; a new assignment takes some minutes to hold",
        log="AuthorizationPermissionMismatch|AuthorizationFailed",
    ),
    Cause(
        "name taken",
        r"DnsNameLabel[^.]{0,120}(taken|in use|exist|not available)|DnsRecordInUse"
        r"|name[^.]{0,120}already (taken|in use|exists)|endpoint[^.]{0,80}already exists",
        "the name is taken, maybe by another team: it is unique in the region",
        "choose another one in the environment's document",
    ),
    Cause(
        "liveness probe",
        r"liveness[ _]?probe[^.]{0,40}fail|Liveness check fail",
        "the server does not answer its liveness probe, so Azure ends it again and again",
        "read the log's end; where the model loads slowly, raise `liveness_probe.initial_delay` or "
        "`failure_threshold` in deployment.json",
    ),
    Cause(
        "readiness probe",
        r"readiness[ _]?probe[^.]{0,40}fail|Readiness check fail",
        "the server never says that it is ready, so it gets no requests",
        "read the log's end; where the model loads slowly, raise `readiness_probe.initial_delay` "
        "or `failure_threshold` in deployment.json",
    ),
    Cause(
        "model download",
        r"Unable to download user model|storage-?initializer|StorageManifestError"
        r"|BlobContainerNotFound",
        "the files of the version could not be brought to the machine",
        "check that the version is in the registry, and that the endpoint's identity has the role "
        "Storage Blob Data Reader on the workspace's storage account",
    ),
    Cause(
        "crash",
        r"CrashLoopBackOff|has crashed|container [^.]{0,60}(crash|terminated)|Back-off restarting"
        r"|application crashed|ResourceNotReady|exit ?code:? [1-9]",
        "the server ends as soon as it starts",
        "the log's end says why; the same bundle can be tried on this machine: "
        "`python -m mlops_assets.scoring --help`",
    ),
    Cause(
        "timeout",
        r"Timed? ?out|Timeout|deadline exceeded|did not (finish|complete) (with)?in",
        "it took longer than it may",
        "raise `deploy_seconds` in environment.json if it only starts slowly; otherwise the log's "
        "end and Azure's activity log say what it waits for",
    ),
    Cause(
        "throttled",
        r"TooManyRequests|\b429\b|throttl",
        "Azure limits how often it is asked",
        "try again later",
    ),
    Cause(
        "Azure's own",
        r"InternalServerError|InternalServiceError|InternalError|\b50[0234]\b|ServiceUnavailable",
        "something failed inside Azure",
        "try again; if it stays, look at https://status.azure.com and give support the ids here",
    ),
)


def cause_of(error_text: str, log: str = "") -> Cause | None:
    """The cause in the table that fits; None where none does."""
    for cause in CAUSES:
        if re.search(cause.pattern, error_text, re.IGNORECASE):
            return cause
        if cause.log and re.search(cause.log, log, re.IGNORECASE):
            return cause
    return None


def explain(error_text: str, log: str = "") -> str:
    """What happened and how to mend it, then Azure's words, then the log's last lines.

    Args:
        error_text: what Azure said, code and message.
        log: what the container printed and its events, oldest first; may be empty.
    """
    words = _short(without_secrets(error_text))
    found = cause_of(error_text, log)
    said = f"Azure says: {words}" if words else "Azure does not say why"
    text = f"{found.cause}; {found.mend}. {said}" if found else said
    end = tail(log)
    return f"{text}\nThe log ends with:\n{end}" if end else text


def tail(log: str) -> str:
    """The last lines of a log, indented, without secrets and with nothing that moves a cursor."""
    printable = (
        "".join(c for c in line if c.isprintable() or c == "\t").rstrip()
        for line in without_secrets(log).splitlines()
    )
    text = "\n".join(f"  {line}" for line in [line for line in printable if line][-LINES:])
    return text if len(text) <= CHARACTERS else "  …" + text[-CHARACTERS:]


def _short(text: str) -> str:
    """One line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _WORDS else line[:_WORDS] + " …"
