"""A container group brought to what its document says: tried out beside the live one first.

Versions never come here: they change inside the running group. Only another image, size, port or
variable does, and restarts the group. It is tried as ``<name>-candidate``, which follows the same
generation and which nobody asks; when that has loaded what is served, the live group is replaced,
and the candidate removed. A run may be killed between any two lines; the next one finds out what
there is.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlops_assets.scoring.follow import InstanceAck
from resources.endpoints.aci_documents import SPEC_TAG, Group, candidate, started
from resources.endpoints.aci_groups import LOOK_SECONDS, Groups, instance_of, url_of
from resources.endpoints.aci_state import EndpointBlobs, endpoint_errors
from resources.endpoints.base import EndpointError

if TYPE_CHECKING:
    from azure.core.polling import LROPoller
    from azure.mgmt.containerinstance.models import ContainerGroup

#: Seconds between two looks for an acknowledgement: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0


class Update:
    """Brings one endpoint's group to what it is to be."""

    def __init__(
        self,
        groups: Groups,
        blobs: EndpointBlobs,
        answers: Callable[[str], bool],
        seconds: float,
        log: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            groups: where it lies.
            blobs: what it serves, and what it says.
            answers: whether a server answers at a scoring URL.
            seconds: for all of it.
            log: told what happens.
            check: raises where somebody else may hold the endpoint by now.
        """
        self._groups, self._blobs, self._answers = groups, blobs, answers
        self._seconds, self._log, self._check = seconds, log, check
        self._deadline = time.monotonic() + seconds

    def ensure(self, wanted: Group) -> ContainerGroup:
        """See to it that the group runs as it is to be; raises EndpointError."""
        trial = candidate(wanted)
        self._groups.remove(trial.name, self._deadline)  # one that a killed run left
        live = self._groups.find(wanted.name)
        if live is None:
            self._log(f"container group {wanted.name} is made")
            return self._first(wanted)
        if (live.tags or {}).get(SPEC_TAG) == wanted.spec and instance_of(live):
            return self._kept(wanted, live)
        if str(live.provisioning_state) != "Succeeded" and not self._has_served(live):
            self._log(f"container group {wanted.name} never came up; it is made anew")
            self._groups.remove(wanted.name, self._deadline)
            return self._first(wanted)
        self._try(trial)
        try:
            found = self._replace(wanted)
        finally:
            self._groups.remove(trial.name, self._deadline)
        return found

    def _first(self, wanted: Group) -> ContainerGroup:
        """Make a group where there is none; one that does not come up is removed."""
        try:
            self._start(wanted)
            return self._reached(wanted.name)
        except BaseException as error:
            self._remove_after(wanted.name, error)
            raise

    def _kept(self, wanted: Group, live: ContainerGroup) -> ContainerGroup:
        """A group that is as it is to be, though it may only just be starting, or be stopped."""
        view = live.instance_view
        if str(live.provisioning_state) == "Failed":
            self._log(f"container group {wanted.name} failed; it is made anew")
            self._start(wanted)
        elif view is not None and view.state == "Stopped":
            self._log(f"container group {wanted.name} was stopped; it is started")
            self._groups.wake(wanted.name, self._deadline)
            self._wait(wanted.name, instance_of(live), None)
        elif self._blobs.ack(instance_of(live)) is None:
            try:  # it may have been made by a run that was killed before it knew
                self._wait(wanted.name, instance_of(live), None)
            except EndpointError as error:
                if not self._has_served(live):
                    self._remove_after(wanted.name, error)
                raise
        return self._reached(wanted.name)

    def _has_served(self, group: ContainerGroup) -> bool:
        """Whether somebody may be asking a group; one that nobody can ask is only in the way."""
        if self._blobs.ack(instance_of(group)) is not None:
            return True
        try:
            return self._answers(url_of(group))
        except EndpointError:
            return False

    def _try(self, trial: Group) -> None:
        """Start the candidate; it is removed if it does not come up."""
        self._log(f"the container group changes; {trial.name} tries it out")
        try:
            self._start(trial)
            self._wait_running(trial.name)
        except BaseException as error:
            self._remove_after(trial.name, error)
            raise
        self._log(f"{trial.name} serves what is live; the live group is replaced")

    def _replace(self, wanted: Group) -> ContainerGroup:
        began = time.monotonic()
        self._start(wanted)
        found = self._reached(wanted.name)
        self._log(
            f"container group {wanted.name} was replaced; it did not answer for at most "
            f"{time.monotonic() - began:.0f} s"
        )
        return found

    def _remove_after(self, name: str, error: BaseException) -> None:
        try:
            # It may take longer than all may: a group that is left costs money.
            self._groups.remove(name, max(self._deadline, time.monotonic() + 60))
        except Exception as second:  # what happened first is what people must read
            error.add_note(f"and removing {name} failed, the next deployment does it: {second}")

    def _start(self, group: Group) -> None:
        """Start a group and wait until its server serves the wanted state."""
        self._check()
        instance = f"{group.name}-{group.spec[:8]}-{secrets.token_hex(4)}"
        began = self._groups.start(group.name, started(group, instance), self._deadline)
        self._wait(group.name, instance, began)

    def _wait(self, name: str, instance: str, operation: LROPoller[Any] | None) -> None:
        number = self._blobs.read().number
        wait_for_ack(self._groups, self._blobs, name, instance, number, self._left(), operation)

    def _wait_running(self, name: str) -> None:
        """Wait for the containers beside the server."""
        self._until(lambda: self._groups.running(name), name, "not all of its containers run")

    def _reached(self, name: str) -> ContainerGroup:
        """Wait until the group answers where people ask it: its certificate comes last."""
        found = self._groups.find(name)
        if found is None:
            raise EndpointError(f"container group {name}: it was removed")
        url = url_of(found)
        self._until(lambda: self._answers(url), name, f"{url} does not answer")
        return found

    def _until(self, holds: Callable[[], bool], name: str, otherwise: str) -> None:
        pause, looked = FIRST_PAUSE, time.monotonic()
        while not holds():
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                problem = self._groups.problem(name)
                if problem:
                    raise EndpointError(f"container group {name}: {problem}")
            if self._left() <= 0:
                raise EndpointError(
                    f"container group {name}: {otherwise} within {self._seconds:g} s"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def wait_for_ack(
    groups: Groups,
    blobs: EndpointBlobs,
    name: str,
    instance: str,
    number: int,
    seconds: float,
    operation: LROPoller[Any] | None = None,
) -> InstanceAck:
    """Wait until a group's server serves a generation.

    Args:
        groups: where it lies.
        blobs: where its server says what it serves.
        name: the group's.
        instance: the server's.
        number: of the generation.
        seconds: how long.
        operation: the operation that starts the group, if it has only begun.

    Raises:
        EndpointError: the group does not run, or did not say so in time.
    """
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    looked = time.monotonic()
    while True:
        ack = blobs.ack(instance)
        if ack is not None and ack.generation == number:
            return ack
        if operation is not None and operation.done():
            _require_success(groups, name, operation)
            operation = None
        if time.monotonic() - looked >= LOOK_SECONDS:
            looked = time.monotonic()
            problem = groups.problem(name)
            if problem:
                raise EndpointError(f"container group {name}: {problem}")
        if time.monotonic() >= deadline:
            raise EndpointError(_late(groups, name, number, seconds))
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)


def _require_success(groups: Groups, name: str, operation: LROPoller[Any]) -> None:
    from azure.core.exceptions import HttpResponseError

    from resources.azure.clients import azure_errors, without_secrets
    from resources.azure.explain import explain

    with endpoint_errors(), azure_errors(f"container group {name}"):
        try:
            operation.result()
        except HttpResponseError as error:
            group = groups.find(name)
            text = without_secrets(error.message or str(error)).strip()
            said = groups.why(name, group, text) if group else explain(text, "")
            raise EndpointError(f"container group {name}: {said}") from None


def _late(groups: Groups, name: str, number: int, seconds: float) -> str:
    group = groups.find(name)
    text = f"its server did not follow generation {number} within {seconds:.0f} s"
    if group is None:
        return f"container group {name}: {text}: the group was removed"
    return f"container group {name}: {groups.why(name, group, text)}"
