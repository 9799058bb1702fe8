"""Azure Container Instances: v1's deployment configuration as an ARM container group.

The group's shape is api-version 2023-05-01. What v1 read is
``azureml._model_management._util.deploy_config_dict_to_obj``.
"""

from __future__ import annotations

from typing import Any

from mlops_assets.convert import values
from mlops_assets.convert.book import Book

_DOCUMENT = "container_group.json"
#: A group has no mapping of ports: what is asked outside is what the server listens on.
_PORT = 80
_IMAGE = "REGISTRY.azurecr.io/IMAGE:TAG"
_GATEWAY = (
    "a container group speaks HTTP alone; put an Application Gateway before it, or use a managed "
    "endpoint, which has TLS"
)


def container_group(book: Book, variables: dict[str, str]) -> dict[str, Any]:
    """The container group that does what v1 did.

    Args:
        book: the file's account.
        variables: environment variables from the inference configuration.
    """
    location = book.take("location", values.region)
    resources = {
        key: book.setting(
            f"containerResourceRequirements.{key}",
            values.number,
            f"{_DOCUMENT}: properties.containers[0].properties.resources.requests.{key}",
            default,
        )
        for key, default in (("cpu", 0.1), ("memoryInGB", 0.5))
    }
    container: dict[str, Any] = {
        "image": _IMAGE,
        "ports": [{"port": _PORT, "protocol": "TCP"}],
        "resources": {"requests": resources},
    }
    if variables:
        container["environmentVariables"] = [
            {"name": name, "value": value} for name, value in variables.items()
        ]
    properties: dict[str, Any] = {
        "containers": [{"name": "model", "properties": container}],
        "osType": "Linux",
        "restartPolicy": "Always",
    }
    properties |= _network(book) | _encryption(book)
    _access(book)
    book.open_ends += [
        f"{_DOCUMENT}: properties.containers[0].properties.image: v1 built an image of its own; "
        "name the one that serves here",
        f"{_DOCUMENT}: properties.ipAddress.ports: {_PORT}, where v1's clients ask; the server in "
        "the image must listen there",
    ]
    group: dict[str, Any] = {"properties": properties}
    if location.value is None:
        book.lose(location, "v1 took it as absent")
        book.open_ends.append(f"{_DOCUMENT}: location: v1 took the workspace's region")
        return group
    book.keep(location, f'{_DOCUMENT}: location = "{location.value}"')
    return {"location": location.value, **group}


def _network(book: Book) -> dict[str, Any]:
    address: dict[str, Any] = {"ports": [{"port": _PORT, "protocol": "TCP"}]}
    label = book.take("dnsNameLabel", values.name(63))
    vnet, subnet = book.take("vnetName", values.text), book.take("subnetName", values.text)
    if (vnet.value is None) != (subnet.value is None):
        found, other = (vnet, "subnetName") if vnet.value is not None else (subnet, "vnetName")
        book.problem(found.entry, f"needs {other} beside it; v1 refused one alone")
    if vnet.value is None or subnet.value is None:
        book.lose(vnet, "v1 took it as absent")
        book.lose(subnet, "v1 took it as absent")
        address["type"] = "Public"
        place = f"{_DOCUMENT}: properties.ipAddress.dnsNameLabel"
        if label.value is None:
            book.change(label, "", f"v1 made up a label; write {place}, or there is an IP alone")
        else:
            address["dnsNameLabel"] = label.value
            book.keep(label, f'{place} = "{label.value}"')
        return {"ipAddress": address}
    address["type"] = "Private"
    book.lose(label, "inside a virtual network there is no public name")
    place = f"{_DOCUMENT}: properties.subnetIds[0].id"
    book.keep(vnet, place)
    book.keep(subnet, place)
    book.open_ends.append(f"{place}: put your subscription and resource group into it")
    network = (
        "/subscriptions/SUBSCRIPTION/resourceGroups/RESOURCE_GROUP/providers/Microsoft.Network"
        f"/virtualNetworks/{vnet.value}/subnets/{subnet.value}"
    )
    return {"ipAddress": address, "subnetIds": [{"id": network}]}


def _encryption(book: Book) -> dict[str, Any]:
    keys = ("vaultBaseUrl", "keyName", "keyVersion")
    found = [book.take(key, values.text) for key in keys]
    given = [one for one in found if one.value is not None]
    if len(given) == len(keys):
        place = f"{_DOCUMENT}: properties.encryptionProperties"
        for one in found:
            book.keep(one, f"{place}.{one.key}")
        return {"encryptionProperties": {one.key: one.value for one in found}}
    for one in found:
        book.lose(one, "v1 took it as absent")
    if given:
        book.problem(given[0].entry, f"needs all of {', '.join(keys)}; v1 refused some alone")
    return {}


def _access(book: Book) -> None:
    auth = book.take("authEnabled", values.boolean)
    if auth.value:
        book.keep(auth, "the scoring server", "it asks for one of its two keys, always")
    else:
        book.change(
            auth,
            "the scoring server",
            "v1 answered everybody; the server asks for a key, always: give it to the clients",
        )
    ssl = book.take("sslEnabled", values.boolean)
    insights = book.take("appInsightsEnabled", values.boolean)
    for found, reason in (
        (ssl, _GATEWAY),
        (insights, "the server has GET /metrics; logs go to properties.diagnostics.logAnalytics"),
    ):
        if found.value:
            book.lose(found, reason)
        else:
            book.keep(found, "", "off, as without it")
    for key in ("sslCertificate", "cname"):
        book.lose(book.take(key, values.anything), _GATEWAY)
    book.lose(
        book.take("sslKey", values.anything),
        "a secret, or the path to one; it belongs in a key vault, for what ends TLS",
    )
    lose_keys(book)


def lose_keys(book: Book) -> None:
    """Keys of the service itself, which no document may hold."""
    for key in ("primaryKey", "secondaryKey"):
        book.lose(
            book.take(f"keys.{key}", values.anything),
            "a secret; the endpoint makes its own two keys. Take this one out of git, and replace "
            "it wherever it is used",
        )
