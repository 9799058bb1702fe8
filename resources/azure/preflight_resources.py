"""The looks at what is to be used: computes, quota, names, images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from resources.azure.arm import MACHINE_LEARNING, ML
from resources.azure.clients import AzureError, azure_errors
from resources.azure.container_registry import SUFFIX, has_image
from resources.azure.preflight_documents import computes_of_endpoints, images, names
from resources.azure.settings import FILE
from resources.findings import Finding

if TYPE_CHECKING:
    from resources.azure.preflight import Ground


def training_compute(ground: Ground) -> Iterator[Finding]:
    """The cluster that training names: there, and well."""
    named = ground.clients.settings.training.compute
    if named:
        place = f"environments/{ground.profile.name}/{FILE}: training.compute"
        yield from _compute(ground, named, place)


def computes(ground: Ground) -> Iterator[Finding]:
    """The computes that training and endpoints name: there, and well."""
    yield from training_compute(ground)
    for name, place in computes_of_endpoints(ground.profile, ground.environments, ground.models):
        yield from _compute(ground, name, place)


def _compute(ground: Ground, name: str, place: str) -> Iterator[Finding]:
    found = ground.computes.get(name)
    if found is None:
        owner = [w.environment for w in ground.documents if w.name == name]
        mend = f"mlops plan {owner[0]} --apply" if owner else f"az ml compute create -n {name}"
        yield Finding("error", place, f"compute {name} is not in the workspace", mend)
        return
    state = str(found.provisioning_state).rpartition(".")[2].lower()
    if state != "succeeded":
        severity: Literal["error", "warning"] = "error" if state == "failed" else "warning"
        why = found.provisioning_errors or "no reason is given"
        yield Finding(severity, place, f"compute {name} is {state}: {why}", "mlops plan shows more")


def quota(ground: Ground) -> Iterator[Finding]:
    """Whether the subscription may have as many machines as clusters may grow to."""
    location = ground.clients.settings.location.replace(" ", "").lower()
    base = f"providers/{ML}/locations/{location}"
    with azure_errors(f"quota in {location}"):
        sizes = ground.manager.get(f"{base}/vmSizes", MACHINE_LEARNING)["value"]
        usages = ground.manager.get(f"{base}/usages", MACHINE_LEARNING)["value"]
    by_name = {size["name"].lower(): size for size in sizes}
    free = {u["name"]["value"].lower(): u["limit"] - u["currentValue"] for u in usages}
    mine = {environment.name for environment in ground.environments}
    for wanted in ground.documents:
        if wanted.environment not in mine or "size" not in wanted.content:
            continue
        place = f"environments/{ground.profile.name}/{wanted.place}"
        size = by_name.get(str(wanted.content["size"]).lower())
        if size is None:
            yield Finding(
                "error",
                place,
                f"size: '{wanted.content['size']}' is not offered in {location}",
                f"az ml compute list-sizes --location {location}",
            )
            continue
        grown = ground.computes.get(wanted.name)
        machines = int(wanted.content.get("max_instances", 4)) - (
            grown.max_instances if grown else 0
        )
        cores, left = machines * size["vCPUs"], free.get(size["family"].lower())
        if left is not None and cores > left:
            yield Finding(
                "warning",
                place,
                f"{wanted} may grow by {machines} machines, {cores} cores of {size['family']}; "
                f"{max(0, left)} are left in {location}",
                "lower max_instances, or ask for more quota in the portal",
            )


def container_quota(ground: Ground) -> Iterator[Finding]:
    """Whether the subscription may have one more container group for each model."""
    location = ground.clients.settings.location.replace(" ", "").lower()
    for environment in ground.environments:
        if environment.target != "aci":
            continue
        with azure_errors(f"quota of container groups in {location}"):
            usages: Any = ground.clients.container_instances.location.list_usage(location)
            found = {usage.name.value: usage for usage in usages}
        groups = found.get("ContainerGroups")
        if groups and groups.limit - groups.current_value < len(ground.models):
            yield Finding(
                "warning",
                f"environment {environment.name}",
                f"{groups.limit - groups.current_value} container groups are left in {location}, "
                f"for {len(ground.models)} models",
                "remove groups that are no longer needed, or ask for more quota in the portal",
            )


def endpoint_names(ground: Ground) -> Iterator[Finding]:
    """Whether the names of endpoints are the platform's, or free."""
    for environment in ground.environments:
        unmade: list[str] = []
        for model, name in names(ground.profile, environment, ground.models):
            try:
                with azure_errors(f"endpoint {name}"):
                    found: Any = ground.clients.workspace.online_endpoints.get(name)
            except AzureError as error:
                if error.status != 404:
                    raise
                unmade.append(name)
                continue
            owner = (found.tags or {}).get("mlops_model")
            if owner != model:
                yield Finding(
                    "error",
                    f"environment {environment.name}",
                    f"endpoint {name} is there, made by {owner or 'somebody else'}",
                    "choose another name in endpoint.json",
                )
        if unmade:
            yield Finding(
                "unknown",
                f"environment {environment.name}",
                f"whether {', '.join(unmade)} is free in the region: Azure says so only when it "
                "is made",
            )


def images_are_there(ground: Ground) -> Iterator[Finding]:
    """Whether the images that endpoints name can be pulled."""
    for image, place in sorted(set(images(ground.profile, ground.environments, ground.models))):
        server = image.partition("/")[0]
        if not server.endswith(SUFFIX):
            yield Finding(
                "unknown", place, f"image {image}: not checked: {server} is no registry of Azure"
            )
            continue
        try:
            with azure_errors(f"image {image}"):
                there = has_image(ground.clients, image)
        except AzureError as error:
            yield Finding("unknown", place, f"not checked: {error.said}", error.mend or "")
            continue
        if not there:
            yield Finding(
                "error",
                place,
                f"image {image} is not in the registry",
                "push it (docs/containers.md), and put its digest here",
            )
