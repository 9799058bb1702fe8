"""Where Azure is not as the documents of the infrastructure say: pure, asks nobody.

Only what a document states is compared: what Azure adds by itself, and what others set, is no
difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from resources.azure.infrastructure_documents import Wanted

#: What Azure cannot change once a resource is there.
FIXED: dict[str, frozenset[str]] = {
    "workspace": frozenset(
        ("location", "hbi_workspace", "storage_account", "key_vault", "customer_managed_key",
         "enable_data_isolation", "workspace_hub")
    ),
    "registry": frozenset(("location", "container_registry", "intellectual_property")),
    "amlcompute": frozenset(
        ("type", "location", "size", "tier", "network_settings", "enable_node_public_ip",
         "ssh_public_access_enabled")
    ),
    "kubernetes": frozenset(("type", "location", "resource_id", "namespace")),
}  # fmt: skip
#: What Azure is told and never tells.
_UNTOLD = frozenset(("ssh_settings", "provision_network_now", "resource_group"))
#: Values in which capitals and blanks matter.
_TEXTS = frozenset(("description", "display_name", "tags"))


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value is another one on Azure."""

    key: str
    old: Any
    new: Any
    #: Whether Azure refuses to change it.
    fixed: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A resource that is not as its document says."""

    wanted: Wanted
    #: Empty: it is not there at all.
    changes: tuple[Change, ...] = ()

    @property
    def action(self) -> Literal["create", "change", "fixed"]:
        """What has to be done about it; ``fixed``: nothing can be."""
        if not self.changes:
            return "create"
        return "fixed" if any(change.fixed for change in self.changes) else "change"

    def lines(self) -> list[str]:
        """For people."""
        head = f"{self.wanted} ({self.wanted.place})"
        if not self.changes:
            return [f"create {head}"]
        lines = [f"change {head}"]
        for change in self.changes:
            lines.append(f"  {change}")
            if change.fixed:
                lines.append(f"    Azure cannot change that: {_mend(self.wanted)}")
        return lines


@dataclass(frozen=True, slots=True)
class Plan:
    """What materializing would do, and what it would leave alone."""

    differences: tuple[Difference, ...] = ()
    #: Computes of the workspace that no document has, by name, with their type.
    unmanaged: Mapping[str, str] = field(default_factory=dict)

    def changed(self) -> list[str]:
        """What is different, for people."""
        return [line for difference in self.differences for line in difference.lines()]

    def left_alone(self) -> list[str]:
        """What no document is about, for people."""
        return [
            f"unmanaged compute {name} ({kind}): in no document; it is left alone"
            for name, kind in self.unmanaged.items()
        ]


def compare(wanted: Wanted, actual: Mapping[str, Any]) -> tuple[Change, ...]:
    """Keys that the document states and that have another value on Azure."""
    kind = str(wanted.content.get("type", "")).lower() or wanted.kind
    changes: list[Change] = []
    for key, new in wanted.content.items():
        if key in _UNTOLD:
            continue
        old = actual.get(key)
        if key == "network_settings":
            new, old = _subnet(new), _subnet(old)
        if not _same(new, old, key in _TEXTS):
            changes.append(Change(key, _stated(old, new), new, key in FIXED[kind]))
    if folded(actual.get("provisioning_state")) == "failed":
        changes.append(Change("provisioning_state", "Failed", "Succeeded"))
    return tuple(changes)


def _same(new: Any, old: Any, exact: bool) -> bool:
    """Whether Azure has what is stated; in a mapping, what is not stated may be anything."""
    if isinstance(new, dict):
        known = old if isinstance(old, dict) else {}
        return all(_same(value, known.get(key), exact) for key, value in new.items())
    if isinstance(new, list):
        values = old if isinstance(old, list) else []
        return len(new) == len(values) and all(
            any(_same(value, other, exact) for other in values) for value in new
        )
    if exact or not isinstance(new, str):
        return new == old
    return folded(new) == folded(old)


def folded(value: Any) -> str:
    """A word that Azure writes in several ways: ``East US 2``, ``LowPriority``, ``State.DONE``."""
    text = str(value)
    if re.fullmatch(r"[A-Z][A-Za-z]+\.[A-Z_]+", text):  # how the client dumps its enumerations
        text = text.partition(".")[2]
    return re.sub(r"[\s_]", "", text).casefold()


def _stated(old: Any, new: Any) -> Any:
    """Of what Azure has, what the document is about."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: old[key] for key in new if key in old}
    return old


def _subnet(settings: Any) -> Any:
    """Network and subnet by name: Azure answers with the subnet's id alone."""
    if not isinstance(settings, dict):
        return {}
    match = re.search(
        r"/virtualNetworks/([^/]+)/subnets/([^/]+)$", str(settings.get("subnet")), re.I
    )
    return {"vnet_name": match[1], "subnet": match[2]} if match else settings


def _shown(value: Any) -> str:
    return "nothing" if value in (None, {}, []) else json.dumps(value, sort_keys=True)


def _mend(wanted: Wanted) -> str:
    if wanted.kind == "compute":
        return (
            "give the document another name, which makes a second compute; move to it what uses "
            f"this one, then remove this one by materializing with `prune: [{wanted.name}]`"
        )
    return f"put the old value back, or give the {wanted.kind} another name, which makes a new one"
