"""Azure ML's data collector: what goes through an online deployment, written to blob storage.

Events are appended to ``<data asset>/YYYY/MM/DD/HH/<instance>.jsonl``, as
"Collect production data from models deployed for real-time inferencing" has them.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
import uuid
from typing import Any

from azure.core.exceptions import ResourceNotFoundError

from tests.azure.arm.base import Cloud, Resource
from tests.azure.arm.deployments import place
from tests.azure.messages import Request, Response

SIDES = ("request", "response")
_writing = threading.Lock()


def collect(cloud: Cloud, deployment: Resource, asked: Request, found: Response) -> None:
    """Write both sides of a request, as far as the deployment says so."""
    collections = (deployment.properties.get("dataCollector") or {}).get("collections") or {}
    chance, key = random.random(), str(uuid.uuid4())
    for side, body in zip(SIDES, (asked.body, found.body), strict=True):
        collection = collections.get(side)
        if collection is None or collection["dataCollectionMode"].lower() != "enabled":
            continue
        rate = collection.get("samplingRate")
        if chance < (1.0 if rate is None else rate):
            event = _event(deployment, side, key, asked, body)
            _append(cloud, deployment, collection["dataId"], event)


def _event(
    deployment: Resource, side: str, key: str, asked: Request, body: bytes
) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError:
        data = body.decode("utf-8", "replace")
    now = dt.datetime.now(dt.UTC)
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": deployment.id,
        "type": f"azureml.inference.{side}",
        "datacontenttype": "application/json",
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "data": data,
        "path": "/score",
        "method": "POST",
        "contentrange": f"bytes 0-{max(len(body) - 1, 0)}/{len(body)}",
        "correlationid": key,
        "xrequestid": asked.headers.get("x-request-id", key),
    }


def _append(cloud: Cloud, deployment: Resource, asset: str, event: dict[str, Any]) -> None:
    data = cloud.find(asset)
    assert data is not None, f"{deployment.name}: there is no data asset {asset}"
    workspace = deployment.id.partition("/onlineEndpoints/")[0]
    container, path = place(cloud, workspace, data.properties["dataUri"])
    hour = dt.datetime.now(dt.UTC)
    name = f"{path}/{hour:%Y/%m/%d/%H}/{deployment.name}-instance.jsonl"
    blob = cloud.blob.client().get_blob_client(container, name)
    with _writing:
        try:
            before = blob.download_blob().readall()
        except ResourceNotFoundError:
            before = b""
        blob.upload_blob(before + json.dumps(event).encode() + b"\n", overwrite=True)
