"""Whether an image is in a container registry of Azure, asked as the identity that runs this.

The registry's own interface: a token of Azure is exchanged for one of the registry.
"""

from __future__ import annotations

from typing import Any

from resources.azure.arm import SERVER
from resources.azure.clients import AzureClients

SUFFIX = ".azurecr.io"
_KINDS = ", ".join(
    f"application/{kind}+json"
    for kind in (
        "vnd.oci.image.index.v1",
        "vnd.oci.image.manifest.v1",
        "vnd.docker.distribution.manifest.list.v2",
        "vnd.docker.distribution.manifest.v2",
    )
)


def has_image(clients: AzureClients, image: str) -> bool:
    """Whether the registry has the image.

    Args:
        clients: whose identity asks.
        image: ``SERVER/REPOSITORY@sha256:…``, or with a tag.

    Raises:
        HttpResponseError: the registry lets nobody in, or this identity not.
        ServiceRequestError: it cannot be reached.
    """
    from azure.core import PipelineClient
    from azure.core.exceptions import HttpResponseError
    from azure.core.pipeline.policies import RetryPolicy

    server, _, name = image.partition("/")
    repository, reference = _parts(name)
    base = f"https://{server}"
    client: Any = PipelineClient(base, policies=[RetryPolicy(retry_total=1)])
    token = clients.credential.get_token(f"{SERVER}/.default").token
    refresh = _post(
        client,
        f"{base}/oauth2/exchange",
        {"grant_type": "access_token", "service": server, "access_token": token},
    )["refresh_token"]
    access = _post(
        client,
        f"{base}/oauth2/token",
        {
            "grant_type": "refresh_token",
            "service": server,
            "scope": f"repository:{repository}:pull",
            "refresh_token": refresh,
        },
    )["access_token"]
    headers = {"Authorization": f"Bearer {access}", "Accept": _KINDS}
    manifest = f"{base}/v2/{repository}/manifests/{reference}"
    response = _send(client, "HEAD", manifest, headers=headers)
    if response.status_code not in (200, 404):
        raise HttpResponseError(response=response)
    return response.status_code == 200


def _parts(name: str) -> tuple[str, str]:
    """Repository and what is meant in it."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository.partition(":")[0], digest
    repository, _, tag = name.partition(":")
    return repository, tag or "latest"


def _post(client: Any, url: str, form: dict[str, str]) -> dict[str, Any]:
    from azure.core.exceptions import HttpResponseError

    response = _send(client, "POST", url, data=form)
    if response.status_code != 200:
        raise HttpResponseError(response=response)
    found: dict[str, Any] = response.json()
    return found


def _send(client: Any, method: str, url: str, **given: Any) -> Any:
    from azure.core.rest import HttpRequest

    return client.send_request(HttpRequest(method, url, **given))
