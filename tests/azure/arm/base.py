"""What every operation of Azure Resource Manager has in common."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from tests.azure.blob import Blob
from tests.azure.faults import Faults
from tests.azure.login import Login
from tests.azure.messages import Request, Response

if TYPE_CHECKING:
    from tests.azure.arm.operations import Operation

ML = "Microsoft.MachineLearningServices"
ACI = "Microsoft.ContainerInstance"
SERVER = "https://management.azure.com"


class Container(Protocol):
    """Something that runs, and its output."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        ...

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        ...

    def ask(self, request: Request) -> Response:
        """Its answer."""
        ...

    def logs(self) -> str:
        """What it has printed so far."""
        ...

    def end(self) -> None:
        """End it."""
        ...


class Cluster(Protocol):
    """What runs containers."""

    #: The variables by which whoever runs there finds Azure.
    network: Callable[[], Mapping[str, str]]

    def launch(self, name: str, environment: Mapping[str, str]) -> Container:
        """Start one."""
        ...

    def start(self, name: str, environment: Mapping[str, str], model: Path | None) -> Container:
        """Start one and return when it answers; raises RuntimeError if it ends before."""
        ...


@dataclass
class Resource:
    """Something that was made and can be asked for again."""

    id: str
    #: As it is answered: ``properties``, ``tags``, ``location``, ...
    body: dict[str, Any]
    created: str
    modified: str
    #: What no answer has in it: keys, secrets, running containers.
    hidden: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.id.rpartition("/")[2]

    @property
    def properties(self) -> dict[str, Any]:
        """As it is answered."""
        return self.body["properties"]

    @property
    def type(self) -> str:
        """Such as ``Microsoft.MachineLearningServices/workspaces/models``."""
        provider, *parts = self.id.partition("/providers/")[2].split("/")
        return "/".join([provider, *parts[::2]])


@dataclass
class Cloud:
    """The state of one subscription, in memory."""

    login: Login
    blob: Blob
    faults: Faults
    cluster: Cluster
    subscription: str
    group: str
    location: str
    folder: Path
    #: Tracebacks of errors in the test server itself.
    broken: list[str]
    lock: threading.RLock = field(default_factory=threading.RLock)
    work: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))
    operations: dict[str, Operation] = field(default_factory=dict)
    #: Services that the subscription does not use yet, in small letters.
    unregistered: set[str] = field(default_factory=set)
    #: What is in container registries: ``SERVER/REPOSITORY@DIGEST``.
    images: set[str] = field(default_factory=set)
    _resources: dict[str, Resource] = field(default_factory=dict)

    def find(self, resource_id: str) -> Resource | None:
        """A resource by its id, in any case."""
        return self._resources.get(resource_id.lower())

    def put(self, resource_id: str, body: dict[str, Any]) -> tuple[Resource, bool]:
        """Make a resource, or give it a new body; the second value says whether it is new."""
        before = self.find(resource_id)
        moment = now()
        if before:
            before.body, before.modified = body, moment
            return before, False
        made = Resource(resource_id, body, moment, moment)
        self._resources[resource_id.lower()] = made
        return made, True

    def remove(self, resource_id: str) -> None:
        """Remove a resource and what is below it."""
        start = resource_id.lower()
        for key in [k for k in self._resources if k == start or k.startswith(f"{start}/")]:
            del self._resources[key]

    def below(self, resource_id: str, kind: str) -> Iterator[Resource]:
        """The resources of a kind right below another, the oldest first."""
        start = f"{resource_id}/{kind}/".lower()
        for key, found in list(self._resources.items()):
            if key.startswith(start) and "/" not in key[len(start) :]:
                yield found

    def every(self, kind: str) -> list[Resource]:
        """All resources of a type, such as ``.../onlineEndpoints``."""
        with self.lock:
            return [r for r in self._resources.values() if r.type.lower().endswith(kind.lower())]

    def clear(self) -> None:
        """Forget all resources; what runs for them is ended."""
        with self.lock:
            found = list(self._resources.values())
            self._resources.clear()
            self.operations.clear()
            self.unregistered.clear()
            self.images.clear()
        for resource in found:
            if "container" in resource.hidden:
                resource.hidden["container"].end()


class ArmError(Exception):
    """An answer that is an error."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body.decode())
        self.response = response


@dataclass(frozen=True)
class Call:
    """One request to one operation."""

    request: Request
    #: The parts of the path, unquoted.
    names: Mapping[str, str]
    cloud: Cloud

    @property
    def version(self) -> str:
        """The version of the interface that the client speaks."""
        return self.request.query["api-version"]

    @property
    def id(self) -> str:
        """The path, as an id."""
        return unquote(self.request.path.rstrip("/"))

    @property
    def parent(self) -> str:
        """The id of the workspace or the registry."""
        found = re.match(r".*?/providers/[^/]+/(workspaces|registries)/[^/]+", self.id, re.I)
        assert found, self.id
        return found[0]

    def json(self) -> dict[str, Any]:
        """The body; raises ArmError."""
        try:
            found = self.request.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            text = "The request content was invalid and could not be deserialized."
            raise ArmError(error(400, "InvalidRequestContent", text))
        return found


Handler = Callable[[Call], Response]


class Routes:
    """Operations by method and path."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def on(self, method: str, path: str) -> Callable[[Handler], Handler]:
        """Decorate the handler of an operation; ``{name}`` is a part of its path."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)

        def add(handler: Handler) -> Handler:
            self._routes.append((method, re.compile(f"{pattern}/?", re.IGNORECASE), handler))
            return handler

        return add

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The operation of a request, and the parts of its path."""
        for known, pattern, handler in self._routes:
            if known == method and (match := pattern.fullmatch(path)):
                return handler, {name: unquote(value) for name, value in match.groupdict().items()}
        return None


routes = Routes()
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
WORKSPACE = f"{_GROUP}/providers/{ML}/workspaces/{{workspace}}"
REGISTRY = f"{_GROUP}/providers/{ML}/registries/{{registry}}"
GROUPS = f"{_GROUP}/providers/{ACI}/containerGroups"


def now() -> str:
    """The time, as Azure writes it."""
    return datetime.now(UTC).isoformat()


def error(status: int, code: str, message: str, **headers: str) -> Response:
    """An error of Resource Manager itself."""
    found = {"x-ms-failure-cause": "gateway", **headers}
    return Response.of(status, {"error": {"code": code, "message": message}}, found)


def service_error(
    status: int,
    message: str,
    *,
    code: str = "UserError",
    detail: tuple[str, str] | None = None,
    inner: str | None = None,
    location: str = "eastus2",
) -> Response:
    """An error of Azure Machine Learning's own front end.

    Args:
        status: of HTTP.
        message: what people read.
        code: what programs read.
        detail: code and message of the one entry of ``details``.
        inner: code of the inner error, such as ``NotFoundError``.
        location: the region.
    """
    values: list[tuple[str, Any]] = [
        ("ComponentName", "managementfrontend"),
        ("Correlation", {"operation": secrets.token_hex(16), "request": secrets.token_hex(8)}),
        ("Environment", location),
        ("Location", location),
        ("Time", now()),
    ]
    if inner:
        values.append(("InnerError", {"code": inner, "innerError": None}))
    details: list[dict[str, Any]] = []
    if detail:
        details.append(
            {"code": detail[0], "message": detail[1], "details": [], "additionalInfo": []}
        )
    body = {
        "code": code,
        "message": message,
        "details": details,
        "additionalInfo": [{"type": kind, "info": {"value": value}} for kind, value in values],
    }
    return Response.of(status, {"error": body}, {"x-ms-response-type": "error"})


def system_data(resource: Resource, *, types: bool = True) -> dict[str, str]:
    """Who made a resource, and when; some services say less than others."""
    who = "Test Principal"
    found = {"createdAt": resource.created, "createdBy": who}
    if types:
        found["createdByType"] = "Application"
    found["lastModifiedAt"] = resource.modified
    if types:
        found |= {"lastModifiedBy": who, "lastModifiedByType": "Application"}
    return found
