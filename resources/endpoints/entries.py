"""What each verb makes of a wanted state: the same for every server that follows a generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlops_assets.scoring.generation import Entry
from mlops_assets.scoring.signature import Signed
from resources.endpoints.base import Deployment, EndpointError, VersionRef, split_traffic

Entries = dict[str, Entry]


def deployments(entries: Mapping[str, Entry]) -> dict[str, Deployment]:
    """The deployments of a generation, in its order."""
    return {
        name: Deployment(name, entry.version, entry.digest, entry.traffic)
        for name, entry in entries.items()
    }


def most_traffic(found: Mapping[str, Deployment]) -> Deployment | None:
    """The deployment with the most traffic, if any has some."""
    live = [deployment for deployment in found.values() if deployment.traffic > 0]
    return max(live, key=lambda deployment: deployment.traffic, default=None)


def staged(
    entries: Entries, version: VersionRef, bundle: str, signed: Signed | None, mirror: int
) -> tuple[str, Entries]:
    """A version beside the others, without traffic; one that is there stays as it is.

    Args:
        entries: what there is.
        version: what is added.
        bundle: where its server finds it.
        signed: by whom it must be signed.
        mirror: percent of the requests that are copied to it.

    Returns:
        Its name, and what there is then.
    """
    name = _name(version, entries)
    new = Entry(bundle, version.digest, version.version)
    return name, {**entries, name: replace(entries.get(name, new), mirror=mirror, signed=signed)}


def promoted(entries: Entries, deployment: str, percent: int, endpoint: str) -> Entries:
    """A deployment with that share of the traffic; raises EndpointError."""
    if deployment not in entries:
        raise EndpointError(f"{endpoint}: no deployment '{deployment}'")
    if not 0 <= percent <= 100:
        raise EndpointError(f"traffic is 0 to 100 percent, not {percent}")
    shares = split_traffic({n: e.traffic for n, e in entries.items()}, deployment, percent)
    # Who has traffic is not asked twice.
    return {n: replace(e, traffic=shares[n], mirror=0) for n, e in entries.items()}


def without(entries: Entries, name: str) -> Entries:
    """All but one."""
    return {n: entry for n, entry in entries.items() if n != name}


def _name(version: VersionRef, entries: Entries) -> str:
    name = f"v{version.version}"
    taken = entries.get(name)
    # A registry that was removed and made anew counts from 1 again, while the old one serves.
    return (
        name if taken is None or taken.digest == version.digest else f"{name}-{version.digest[:8]}"
    )
