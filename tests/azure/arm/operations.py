"""Long-running operations: accepted now, done later, asked about in between."""

from __future__ import annotations

import re
import traceback
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tests.azure.arm.base import ACI, ML, SERVER, Call, now, routes
from tests.azure.faults import OperationFault
from tests.azure.messages import Response

LOCATION = "/subscriptions/{{subscription}}/providers/{provider}/locations/{{location}}"


KINDS = "(?P<kind>mfeOperationsStatus|computeOperationsStatus|workspaceOperationsStatus)"


class OperationError(Exception):
    """An operation that was accepted cannot be carried out; code and message for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Operation:
    """One operation."""

    id: str
    #: What is asked about, such as ``mfeOperationsStatus``.
    kind: str
    resource: str
    started: str
    future: Future[None]
    fault: OperationFault | None
    #: The first time it is asked, it is still going on, as on Azure.
    asked: bool = False
    ended: str = ""

    def outcome(self) -> tuple[str, dict[str, Any] | None]:
        """Its state, and what went wrong."""
        first, self.asked = not self.asked, True
        if first or not self.future.done():
            return "InProgress", None
        self.ended = self.ended or now()
        problem = self.future.exception()
        if problem is None:
            return "Succeeded", None
        assert isinstance(problem, OperationError), problem
        state = self.fault.outcome if self.fault else "Failed"
        return state, {"code": problem.code, "message": problem.message}


def begin(
    call: Call,
    kind: str,
    prefix: str,
    work: Callable[[], None],
    failed: Callable[[OperationError], None] = lambda _: None,
    *,
    endless: bool = False,
) -> Operation:
    """Accept an operation.

    Args:
        call: the request that asks for it.
        kind: of the address that it is asked about at.
        prefix: of its id.
        work: carries it out, not holding the lock of the cloud.
        failed: what becomes of the resource if that failed, or was made to fail.
        endless: nothing is carried out, and it stays in progress.
    """
    cloud, resource = call.cloud, call.id
    fault = cloud.faults.of_operation(call.request.method, resource)
    future: Future[None] = Future()
    found = Operation(f"{prefix}{uuid.uuid4()}", kind, resource, now(), future, fault)
    cloud.operations[found.id] = found
    if endless or (fault and fault.outcome == "endless"):
        return found

    def carry_out() -> None:
        try:
            if fault:
                raise OperationError(fault.code, fault.message)
            work()
            future.set_result(None)
        except OperationError as problem:
            with cloud.lock:
                failed(problem)
            future.set_exception(problem)
        except Exception as problem:
            cloud.broken.append(traceback.format_exc())
            future.set_exception(OperationError("TestServerBroken", repr(problem)))

    cloud.work.submit(carry_out)
    return found


def address(call: Call, operation: Operation, provider: str = ML) -> str:
    """Where an operation is asked about."""
    cloud = call.cloud
    version = "2018-06-01" if provider == ACI else call.version
    extra = {"computeOperationsStatus": "&service=new", "workspaceOperationsStatus": "&type=async"}
    return (
        f"{SERVER}/subscriptions/{cloud.subscription}/providers/{provider}/locations/"
        f"{cloud.location}/{operation.kind}/{operation.id}?api-version={version}"
        f"{extra.get(operation.kind, '')}"
    )


def headers(call: Call, operation: Operation) -> dict[str, str]:
    """What the answer of a request that was accepted says about its operation."""
    found = {"Azure-AsyncOperation": address(call, operation), **SOON}
    if operation.kind == "mfeOperationsStatus":
        found["x-ms-async-operation-timeout"] = "PT30M"
    return found


#: Not Azure's: the clients wait for seconds between two questions unless they are told otherwise.
SOON = {"retry-after-ms": "20"}


@routes.on("GET", f"{LOCATION.format(provider=ML)}/{KINDS}/{{name}}")
def status(call: Call) -> Response:
    """How an operation of Azure Machine Learning goes."""
    found = call.cloud.operations.get(call.names["name"])
    if found is None or found.kind.lower() != call.names["kind"].lower():
        return Response(404)
    state, problem = found.outcome()
    if found.kind != "mfeOperationsStatus":
        body: dict[str, Any] = {"status": state}
        if state == "Succeeded":
            body["percentComplete"] = 100.0
        return Response.of(200, body | ({"error": problem} if problem else {}), SOON)
    body = {"id": call.id, "name": found.id, "startTime": found.started}
    if state == "InProgress":
        # So say the recordings of endpoints and deployments, about creating and deleting too.
        return Response.of(200, {**body, "percentComplete": 0.0, "status": "Updating"}, SOON)
    body |= {"endTime": found.ended, "percentComplete": 100.0, "status": state}
    return Response.of(200, body | ({"error": problem} if problem else {}), SOON)


@routes.on("GET", f"{LOCATION.format(provider=ACI)}/operations/{{name}}")
def container_status(call: Call) -> Response:
    """How an operation on a container group goes."""
    found = call.cloud.operations.get(call.names["name"])
    if found is None:
        return Response(404)
    state, problem = found.outcome()
    group = re.sub("/restart$", "", found.resource)
    resource = call.cloud.find(group)
    events = resource.hidden["events"] if resource and state != "InProgress" else []
    body: dict[str, Any] = {
        "id": group,
        "status": "Pending" if state == "InProgress" else state,
        "startTime": found.started,
        "properties": {"events": events},
    }
    return Response.of(200, body | ({"error": problem} if problem else {}), SOON)
