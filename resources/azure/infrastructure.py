"""Infrastructure as code: Azure becomes what the documents say.

Only what a document states is changed; what Azure adds by itself, and what others set, stays.
Nothing is removed but what is named.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from mlops_assets.strict import load_yaml
from resources.azure.clients import AzureClients, AzureError, azure_errors
from resources.azure.explain import cause_of
from resources.azure.infrastructure_difference import Difference, Plan, compare, folded
from resources.azure.infrastructure_documents import Kind, Wanted, entity, read_infrastructure
from resources.environment import Profile

#: How long to wait between two looks at what Azure is about to change.
_SECONDS = 5.0


def plan(profile: Profile, clients: AzureClients, environment: str) -> Plan:
    """What Azure has beside the documents of one environment.

    Raises:
        SpecError: a document is wrong.
        AzureError: Azure cannot be asked.
    """
    documents = read_infrastructure(profile, environment)
    mine = [wanted for wanted in documents if wanted.environment == environment]
    for wanted in mine:
        entity(wanted)  # azure-ai-ml's own loader may know more against it
    return _compared(mine, _Found(clients), documents)


def _compared(mine: Sequence[Wanted], found: _Found, documents: Sequence[Wanted]) -> Plan:
    differences: list[Difference] = []
    for wanted in mine:
        actual = found.actual(wanted.kind, wanted.name)
        if actual is None:
            differences.append(Difference(wanted))
        elif changes := compare(wanted, _content(actual)):
            differences.append(Difference(wanted, changes))
    known = {wanted.name.lower() for wanted in documents if wanted.kind == "compute"}
    unmanaged = {
        name: str(compute.type)
        for name, compute in sorted(found.computes.items())
        if name.lower() not in known
    }
    return Plan(tuple(differences), unmanaged)


def apply(
    profile: Profile,
    clients: AzureClients,
    environment: str,
    prune: Collection[str] = (),
    log: Callable[[str], object] = lambda _: None,
) -> Plan:
    """Make Azure as the documents of one environment say; what is so already stays untouched.

    Args:
        profile: where the documents lie.
        clients: whom to ask.
        environment: whose documents.
        prune: names of computes to remove that no document has; one that is gone is no error.
        log: told of every step.

    Returns:
        What was different.

    Raises:
        SpecError: a document is wrong.
        AzureError: Azure refuses something; what was done before stays, and is not done again.
    """
    documents = read_infrastructure(profile, environment)
    kept = [str(w) for w in documents if w.kind == "compute" and w.name in prune]
    if kept:
        raise AzureError(f"{', '.join(kept)}: not removed; remove its document first")
    seconds = profile.environment(environment).deploy_seconds
    found = _Found(clients)
    mine = [wanted for wanted in documents if wanted.environment == environment]
    for wanted in mine:
        entity(wanted)
        if wanted.kind == "compute":
            found.settle(wanted, seconds, log)
    made = _compared(mine, found, documents)
    refused = [line for d in made.differences if d.action == "fixed" for line in d.lines()]
    if refused:
        raise AzureError("\n".join(["nothing was changed:", *refused]))
    for difference in made.differences:
        for line in difference.lines():
            log(line)
        with _explained(str(difference.wanted)):
            _carry_out(difference, found, seconds)
    for name in sorted(set(prune)):
        _remove(name, found, seconds, log)
    return made


class _Found:
    """What Azure has, asked once."""

    def __init__(self, clients: AzureClients) -> None:
        self.clients = clients
        self._seen: dict[tuple[Kind, str], Any] = {}
        self._computes: dict[str, Any] | None = None

    @property
    def computes(self) -> dict[str, Any]:
        """The computes of the workspace by name; none where there is no workspace."""
        if self._computes is None:
            self._computes = {}
            if self.actual("workspace", self.clients.settings.workspace) is not None:
                with azure_errors(f"computes of workspace {self.clients.settings.workspace}"):
                    found = list(self.clients.workspace.compute.list())
                self._computes = {str(compute.name): compute for compute in found}
        return self._computes

    def actual(self, kind: Kind, name: str) -> Any:
        """The resource as azure-ai-ml has it; None where there is none."""
        if kind == "compute":
            names = {found.lower(): found for found in self.computes}
            return self.computes.get(names.get(name.lower(), ""))
        if (kind, name) not in self._seen:
            client = self.clients.workspace
            get = client.workspaces.get if kind == "workspace" else client.registries.get
            self._seen[kind, name] = _or_none(get, kind, name)
        return self._seen[kind, name]

    def settle(self, wanted: Wanted, seconds: float, log: Callable[[str], object]) -> None:
        """Wait while Azure is about to change a compute, begun by another run or one killed."""
        until, state = time.monotonic() + seconds, ""
        while actual := self.actual("compute", wanted.name):
            state = folded(actual.provisioning_state)
            if state not in ("creating", "updating", "deleting"):
                return
            if time.monotonic() > until:
                raise AzureError(
                    f"{wanted}: is {state} since {seconds:g} seconds; look at it in the studio"
                )
            log(f"{wanted} is {state}; waiting")
            time.sleep(_SECONDS)
            self._computes = None


def _or_none(get: Callable[[str], Any], kind: Kind, name: str) -> Any:
    from azure.core.exceptions import ResourceNotFoundError

    with azure_errors(f"{kind} {name}"):
        try:
            return get(name)
        except ResourceNotFoundError as error:
            above = ("ResourceGroupNotFound", "SubscriptionNotFound")
            if error.error is None or error.error.code not in above:
                return None
            raise


def _carry_out(difference: Difference, found: _Found, seconds: float) -> None:
    """Make or change one resource, and wait until Azure has done so."""
    wanted, client = difference.wanted, found.clients.workspace
    made = entity(wanted)
    actual = found.actual(wanted.kind, wanted.name)
    if wanted.kind == "workspace" and actual is None:
        made.location = made.location or found.clients.settings.location
        _wait(client.workspaces.begin_create(made), wanted, seconds)
    elif wanted.kind == "workspace":
        made.tags = {**(actual.tags or {}), **(made.tags or {})}
        changed = client.workspaces.begin_update(made, update_dependent_resources=True)
        _wait(changed, wanted, seconds)
    elif wanted.kind == "registry":
        if actual is not None:
            made.tags = {**(actual.tags or {}), **(made.tags or {})}
        _wait(client.registries.begin_create(made), wanted, seconds)
    else:
        _wait(
            client.compute.begin_create_or_update(_changed(actual, made, wanted)), wanted, seconds
        )


def _changed(actual: Any, made: Any, wanted: Wanted) -> Any:
    """What is there, with what the document states: a compute is always written as a whole."""
    if actual is None:
        return made
    if getattr(actual, "network_settings", None) and not actual.network_settings.subnet:
        actual.network_settings = None  # the client reads it so, and cannot write what it read
    for key in wanted.content:
        if key in ("name", "type"):
            continue
        new = getattr(made, key)
        if key == "tags":
            new = {**(actual.tags or {}), **(new or {})}
        setattr(actual, key, new)
    return actual


def _remove(name: str, found: _Found, seconds: float, log: Callable[[str], object]) -> None:
    compute = found.actual("compute", name)
    if compute is None:
        log(f"compute {name}: not there, nothing to remove")
        return
    # A cluster of Kubernetes is somebody's own: only the link to it goes.
    attached = folded(compute.type) == "kubernetes"
    log(f"{'detach' if attached else 'remove'} compute {compute.name}")
    with _explained(f"compute {compute.name}"):
        operations = found.clients.workspace.compute
        action = "Detach" if attached else "Delete"
        _wait(operations.begin_delete(compute.name, action=action), f"compute {name}", seconds)


def _wait(poller: Any, what: object, seconds: float) -> None:
    poller.wait(seconds)
    if not poller.done():
        raise AzureError(
            f"{what}: not done after {seconds:g} seconds, and Azure goes on; materialize again to "
            "wait for it, with a larger deploy_seconds in environment.json if need be"
        )


@contextmanager
def _explained(what: str) -> Generator[None]:
    """Azure's refusal, with the mend where its cause is known."""
    try:
        with azure_errors(what):
            yield
    except AzureError as error:
        cause = cause_of(str(error))
        mend = f"{cause.cause}: {cause.mend}" if cause and not error.mend else error.mend
        raise AzureError(error.said, mend, error.status) from None


def _content(actual: Any) -> dict[str, Any]:
    """A resource as its document would be."""
    stream = io.StringIO()
    actual.dump(stream)
    found: dict[str, Any] = load_yaml(stream.getvalue(), "what Azure answered")
    return found
