"""What of a container group differs from its document, before anybody changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resources.azure.clients import AzureClients
from resources.endpoints.aci_documents import INSTANCE, SPEC_TAG, group_of
from resources.endpoints.aci_groups import Groups
from resources.environment import Environment, Profile

RESTARTS = "restarts the group: about a minute without answers; versions alone never do"
HIDDEN = "something that Azure does not show: a secret, or something that was left out"
MAKES = "makes the group; nothing serves there yet"
#: What Azure never tells again.
_UNTOLD = {
    "secureValue", "password", "storageAccountKey", "workspaceKey", "secret",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GroupChanges:
    """What the next deployment does to a group."""

    group: str
    #: Each as ``place: found ..., wanted ...``; empty where nothing changes, or nothing is there.
    differences: tuple[str, ...]
    #: What it means for those who ask; None if the group stays as it is.
    effect: str | None


def changes(
    profile: Profile, clients: AzureClients, environment: Environment, model: str
) -> GroupChanges:
    """Compare a model's group with its document; changes nothing.

    Raises:
        SpecError: the document has problems.
        EndpointError: Azure does not say how the group is.
    """
    wanted = group_of(profile, clients, environment, model)
    live = Groups(clients).find(wanted.name)
    if live is None:
        return GroupChanges(wanted.name, (), MAKES)
    if (live.tags or {}).get(SPEC_TAG) == wanted.spec:
        return GroupChanges(wanted.name, (), None)
    found = live.serialize(keep_readonly=True)
    said = [line for line in _differences(wanted.body, found, "") if f"{SPEC_TAG}:" not in line]
    return GroupChanges(wanted.name, tuple(said or [HIDDEN]), RESTARTS)


def _differences(wanted: Any, found: Any, place: str) -> list[str]:
    if isinstance(wanted, dict):
        given = found if isinstance(found, dict) else {}
        lines: list[str] = []
        for name, value in wanted.items():
            if name not in _UNTOLD:
                below = f"{place}.{name}" if place else name
                lines += _differences(value, given.get(name), below)
        return lines
    if isinstance(wanted, list):
        return _list_differences(wanted, found if isinstance(found, list) else [], place)
    if wanted == found or (found is None and wanted in (None, "", False)):
        return []
    return [f"{place}: found {found!r}, wanted {wanted!r}"]


def _list_differences(wanted: list[Any], found: list[Any], place: str) -> list[str]:
    """Lists of named things by their names, others as they stand."""
    if not all(isinstance(item, dict) and "name" in item for item in [*wanted, *found]):
        if len(wanted) != len(found):
            return [f"{place}: found {len(found)} entries, wanted {len(wanted)}"]
        pairs = zip(wanted, found, strict=True)
        return [
            line
            for index, (one, other) in enumerate(pairs)
            for line in _differences(one, other, f"{place}[{index}]")
        ]
    there = {item["name"]: item for item in found if item["name"] != INSTANCE}
    named = {item["name"]: item for item in wanted}
    lines = [f"{place}[{name}]: found, no longer wanted" for name in there if name not in named]
    for name, item in named.items():
        if name in there:
            lines += _differences(item, there[name], f"{place}[{name}]")
        else:
            lines.append(f"{place}[{name}]: missing")
    return lines
