"""What is around the resources: the providers, the resource group, quotas and sizes."""

from __future__ import annotations

from tests.azure.arm.base import ACI, ML, Call, routes
from tests.azure.messages import Response

#: Machine sizes that can be asked for: name, family, cores, GB, GPUs.
SIZES = (
    ("Standard_DS1_v2", "standardDSv2Family", 1, 3.5, 0),
    ("Standard_DS2_v2", "standardDSv2Family", 2, 7.0, 0),
    ("Standard_DS3_v2", "standardDSv2Family", 4, 14.0, 0),
    ("Standard_F2s_v2", "standardFSv2Family", 2, 4.0, 0),
    ("Standard_F4s_v2", "standardFSv2Family", 4, 8.0, 0),
    ("Standard_NC6s_v3", "standardNCSv3Family", 6, 112.0, 1),
)
_SUBSCRIPTION = "/subscriptions/{subscription}"
_LOCATION = f"{_SUBSCRIPTION}/providers/{ML}/locations/{{location}}"


@routes.on("GET", f"{_SUBSCRIPTION}/providers/{{provider}}")
def provider(call: Call) -> Response:
    """Whether a service can be used."""
    name = call.names["provider"]
    types = {
        ML.lower(): ("workspaces", "registries"),
        ACI.lower(): ("containerGroups",),
        "microsoft.storage": ("storageAccounts",),
    }.get(name.lower(), ())
    off = name.lower() in call.cloud.unregistered
    body = {
        "id": call.id,
        "namespace": name,
        "registrationState": "NotRegistered" if off else "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [
            {"resourceType": kind, "locations": [call.cloud.location], "apiVersions": []}
            for kind in types
        ],
    }
    return Response.of(200, body)


@routes.on("GET", f"{_SUBSCRIPTION}/resourcegroups/{{group}}")
def resource_group(call: Call) -> Response:
    """The resource group."""
    body = {
        "id": call.id,
        "name": call.names["group"],
        "type": "Microsoft.Resources/resourceGroups",
        "location": call.cloud.location,
        "properties": {"provisioningState": "Succeeded"},
    }
    return Response.of(200, body)


@routes.on("GET", f"{_LOCATION}/vmSizes")
def sizes(call: Call) -> Response:
    """The machine sizes of a region."""
    found = [
        {
            "name": name,
            "family": family,
            "vCPUs": cores,
            "memoryGB": memory,
            "gpus": gpus,
            "lowPriorityCapable": True,
            "premiumIO": True,
            "osVhdSizeMB": 1047552,
            "maxResourceVolumeMB": int(memory * 2048),
            "supportedComputeTypes": ["AmlCompute", "ComputeInstance"],
        }
        for name, family, cores, memory, gpus in SIZES
    ]
    return Response.of(200, {"value": found})


@routes.on("GET", f"{_LOCATION}/usages")
def usages(call: Call) -> Response:
    """How much of the quota is used: nothing."""
    return _per_family(call, "usages", currentValue=0)


@routes.on("GET", f"{_LOCATION}/quotas")
def quotas(call: Call) -> Response:
    """The quota of the workspaces."""
    return _per_family(call, "vmFamily/quotas")


def _per_family(call: Call, kind: str, **more: int) -> Response:
    """The same for each family of machines."""
    families = dict.fromkeys(family for _, family, *_ in SIZES)
    found = [
        {
            "id": f"{call.id}/{family}",
            "type": f"{ML}/{kind}",
            "unit": "Count",
            "limit": 100,
            "name": {"value": family, "localizedValue": family},
            **more,
        }
        for family in families
    ]
    return Response.of(200, {"value": found})


@routes.on("GET", f"{_SUBSCRIPTION}/providers/{ACI}/locations/{{location}}/usages")
def container_usages(call: Call) -> Response:
    """How much of the quota of container instances is used."""
    name = {"value": "ContainerGroups", "localizedValue": "Container Groups"}
    count = len(call.cloud.every("/containerGroups"))
    found = {"name": name, "unit": "Count", "currentValue": count, "limit": 100}
    return Response.of(200, {"value": [found]})
