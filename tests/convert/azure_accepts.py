"""Whether Azure's own tools take the documents of a conversion."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

GROUPS = Path(
    "specification/containerinstance/resource-manager/Microsoft.ContainerInstance/stable/"
    "2023-05-01/containerInstance.json"
)
#: azure-ai-ml's own, at its import and with every load.
quiet = pytest.mark.filterwarnings(
    "ignore::marshmallow.warnings.RemovedInMarshmallow4Warning",
    "ignore::marshmallow.warnings.ChangedInMarshmallow4Warning",
)
needs_specifications = pytest.mark.skipif(
    "AZURE_SPECS_DIR" not in os.environ,
    reason="AZURE_SPECS_DIR names no checkout of Microsoft's azure-rest-api-specs",
)


def load_documents(folder: Path) -> tuple[Any, Any]:
    """The endpoint and the deployment in a folder, as `az ml ... create -f` reads and sends them.

    Returns:
        The client's entities; making the request's body checks names and durations too.
    """
    from azure.ai.ml import load_online_deployment, load_online_endpoint
    from azure.ai.ml.entities import KubernetesOnlineDeployment, KubernetesOnlineEndpoint

    endpoint = load_online_endpoint(folder / "endpoint.json")
    deployment = load_online_deployment(folder / "deployment.json")
    assert type(endpoint) is KubernetesOnlineEndpoint
    assert type(deployment) is KubernetesOnlineDeployment
    assert deployment.endpoint_name == endpoint.name
    endpoint._to_rest_online_endpoint("westeurope")
    for part in ("request_settings", "liveness_probe", "scale_settings", "resources"):
        getattr(deployment, part)._to_rest_object()
    deployment._validate()
    return endpoint, deployment


@functools.cache
def group_validator() -> jsonschema.Draft202012Validator:
    """Azure's specification of a container group; unlike it, closed to unknown keys."""
    specification = json.loads((Path(os.environ["AZURE_SPECS_DIR"]) / GROUPS).read_text())
    definitions = specification["definitions"]
    halves = ("Resource", "ContainerGroupProperties")
    for name, definition in definitions.items():
        if "properties" in definition and name not in halves and "allOf" not in definition:
            definition.setdefault("additionalProperties", False)
    definitions["ContainerGroup"]["unevaluatedProperties"] = False
    inner = definitions["ContainerGroupProperties"]["properties"]["properties"]
    inner["additionalProperties"] = False
    schema = {"$ref": "#/definitions/ContainerGroup", "definitions": definitions}
    return jsonschema.Draft202012Validator(schema)
