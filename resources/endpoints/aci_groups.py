"""Container groups as Azure has them: found, started, removed, and why one does not run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resources.azure.clients import AzureClients, azure_errors
from resources.azure.explain import explain
from resources.endpoints.aci_documents import (
    CANDIDATE_TAG,
    ENVIRONMENT_TAG,
    INSTANCE,
    MODEL_TAG,
    SCORING,
)
from resources.endpoints.aci_state import endpoint_errors
from resources.endpoints.base import EndpointError

if TYPE_CHECKING:
    from azure.core.polling import LROPoller
    from azure.mgmt.containerinstance.models import Container, ContainerGroup

#: Seconds between two questions about an operation, where Azure does not say.
OPERATION_SECONDS = 3
#: Seconds between two looks at a group that is waited for.
LOOK_SECONDS = 2.0
#: Lines of a log that a message has.
LOG_LINES = 15
#: Times that something goes wrong by itself and mends itself.
PATIENCE = 3


class Groups:
    """The container groups of the profile's resource group."""

    def __init__(self, clients: AzureClients) -> None:
        """Nothing is asked yet."""
        self._clients = clients

    @property
    def _all(self) -> Any:
        return self._clients.container_instances.container_groups

    @property
    def _resources(self) -> str:
        return self._clients.settings.resource_group

    def find(self, name: str) -> ContainerGroup | None:
        """A group with how it is; None if there is none."""
        from azure.core.exceptions import ResourceNotFoundError

        with endpoint_errors(), azure_errors(f"container group {name}"):
            try:
                return self._all.get(self._resources, name)
            except ResourceNotFoundError as error:
                code = error.error.code if error.error else None
                if code in (None, "ResourceNotFound"):
                    return None
                raise  # the resource group, or the subscription

    def known(self) -> list[tuple[str, str]]:
        """Model and environment of every group that serves."""
        with endpoint_errors(), azure_errors(f"container groups of {self._resources}"):
            found = [g.tags or {} for g in self._all.list_by_resource_group(self._resources)]
        return sorted(
            (tags[MODEL_TAG], tags[ENVIRONMENT_TAG])
            for tags in found
            if MODEL_TAG in tags and ENVIRONMENT_TAG in tags and CANDIDATE_TAG not in tags
        )

    def start(self, name: str, body: dict[str, Any], deadline: float) -> LROPoller[Any]:
        """Make a group, or replace it, which restarts it; raises EndpointError if Azure refuses."""

        def put() -> LROPoller[Any]:
            content = json.dumps(body).encode()  # as it stands, not as the client's models know it
            return self._all.begin_create_or_update(
                self._resources, name, content, polling_interval=OPERATION_SECONDS
            )

        return self._done(name, "make", put, deadline)

    def wake(self, name: str, deadline: float) -> None:
        """Start a group that was stopped."""
        self._done(name, "start", lambda: self._all.begin_start(self._resources, name), deadline)

    def remove(self, name: str, deadline: float) -> None:
        """Remove a group; one that is not there is no error."""
        from azure.core.exceptions import ResourceNotFoundError

        def delete() -> None:
            try:
                self._all.begin_delete(
                    self._resources, name, polling_interval=OPERATION_SECONDS
                ).wait(max(1.0, deadline - time.monotonic()))
            except ResourceNotFoundError:
                return

        if self.find(name) is not None:
            self._done(name, "remove", delete, deadline)

    def _done(self, name: str, what: str, do: Callable[[], Any], deadline: float) -> Any:
        """Do something to a group that may still be busy with what was done to it before."""
        from azure.core.exceptions import HttpResponseError

        pause = 1.0
        with endpoint_errors(), azure_errors(f"container group {name}"):
            while True:
                try:
                    return do()
                except HttpResponseError as error:
                    busy = error.status_code == 409 and time.monotonic() + pause < deadline
                    if not busy:
                        if error.status_code in (400, 409):
                            raise EndpointError(
                                f"container group {name}: cannot {what}: "
                                f"{explain(error.message, '')}"
                            ) from None
                        raise
                time.sleep(pause)
                pause = min(pause * 1.5, 10.0)

    def problem(self, name: str) -> str | None:
        """Why a group will not come up, with its events and the end of its log; None if it may."""
        group = self.find(name)
        if group is None:
            return "it was removed"
        if str(group.provisioning_state) == "Failed":
            return self.why(name, group, "Azure could not provide it")
        for container in group.containers:
            found = _trouble(container)
            if found:
                return self.why(name, group, found)
        return None

    def running(self, name: str) -> bool:
        """Whether all containers of a group run."""
        group = self.find(name)
        views = [c.instance_view for c in group.containers] if group else []
        states = [view.current_state.state if view else "" for view in views]
        return bool(states) and set(states) == {"Running"}

    def why(self, name: str, group: ContainerGroup, found: str) -> str:
        """What went wrong, in words: cause and mend, events, the end of the log."""
        events = [text for container in group.containers for text in _events(container)]
        text = "; ".join([found, *dict.fromkeys(events)])
        return explain(text, self.log(name))

    def log(self, name: str) -> str:
        """The end of the server's log; empty if Azure has none."""
        from azure.core.exceptions import AzureError

        containers = self._clients.container_instances.containers
        try:
            found = containers.list_logs(self._resources, name, SCORING, tail=LOG_LINES)
        except AzureError:
            return ""
        return found.content or ""


def instance_of(group: ContainerGroup) -> str:
    """The name by which a group's server acknowledges; empty if it is none of ours."""
    for container in group.containers:
        if container.name == SCORING:
            for variable in container.environment_variables or []:
                if variable.name == INSTANCE:
                    return variable.value or ""
    return ""


def url_of(group: ContainerGroup) -> str:
    """Where a group is asked; EndpointError if nowhere."""
    address = group.ip_address
    if address is not None and address.fqdn:
        return f"https://{address.fqdn}/score"
    if address is not None and address.ip:
        ours = [c for c in group.containers if c.name == SCORING]
        inside = [port.port for c in ours for port in c.ports or []]
        shown = {port.port for port in address.ports}
        port = next((port for port in inside if port in shown), None)
        if port is not None:
            return f"http://{address.ip}:{port}/score"
    raise EndpointError(f"container group {group.name}: has no address yet")


def _trouble(container: Container) -> str | None:
    view: Any = container.instance_view
    # What a container that runs has gone through is over: it may have been a month ago.
    if view is None or (view.current_state and view.current_state.state == "Running"):
        return None
    state, before = view.current_state, view.previous_state
    ours = container.name == SCORING
    for one in (state, before):
        ended = one is not None and one.state == "Terminated" and one.exit_code is not None
        # What stands beside the server may wait for its certificate, and try again.
        if ended and one and (ours or (view.restart_count or 0) >= PATIENCE):
            return f"container {container.name} ended with exit code {one.exit_code}"
    failed = [e for e in view.events or [] if e.type == "Warning" and e.name == "Failed"]
    if sum(event.count or 1 for event in failed) >= PATIENCE:
        return f"container {container.name} does not start"
    return None


def _events(container: Container) -> list[str]:
    view: Any = container.instance_view
    return [
        f"{event.name}: {event.message}"
        for event in (view.events if view else None) or []
        if event.type != "Normal"
    ]
