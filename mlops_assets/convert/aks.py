"""Azure Kubernetes Service: v1's deployment configuration as Azure ML CLI v2 documents.

``az ml online-endpoint create -f`` and ``az ml online-deployment create -f`` read what is made
here. Every default of v1 that differs from v2's is written out, so that the service behaves as it
did. What v1 read is ``azureml._model_management._util.deploy_config_dict_to_obj``, what it refused
``AksServiceDeploymentConfiguration.validate_configuration``.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from mlops_assets.convert import values
from mlops_assets.convert.aci import lose_keys
from mlops_assets.convert.book import Book, Found
from mlops_assets.convert.report import plain_name

_SCHEMAS = "https://azuremlschemas.azureedge.net/latest"
_CLUSTER = "azureml:CLUSTER"
_RESOURCES = "containerResourceRequirements"
_VERSIONS = "v1 read it for AKSENDPOINT alone"

_POSITIVE = values.integer(1)

# v1's key -> v2's field, v1's default, v2's default.
_REQUESTS = {
    "scoringTimeoutMs": ("request_timeout_ms", 60000, 5000),
    "maxConcurrentRequestsPerContainer": ("max_concurrent_requests_per_instance", 1, 1),
    "maxQueueWaitMs": ("max_queue_wait_ms", 500, 500),
}
_PROBE = {
    "initialDelaySeconds": ("initial_delay", 310, 10),
    "periodSeconds": ("period", 10, 10),
    "timeoutSeconds": ("timeout", 2, 2),
    "successThreshold": ("success_threshold", 1, 1),
    "failureThreshold": ("failure_threshold", 3, 30),
}
_SCALE = {
    "minReplicas": ("min_instances", 1, 1),
    "maxReplicas": ("max_instances", 10, 1),
    "targetUtilization": ("target_utilization_percentage", 70, 70),
    "refreshPeriodInSeconds": ("polling_interval", 1, 1),
}


def online_endpoint(book: Book, name: str) -> dict[str, Any]:
    """The document of a Kubernetes online endpoint."""
    place = "endpoint.json: compute"
    found = book.take("computeTargetName", values.compute)
    if found.value is None:
        book.lose(found, "v1 took it as absent")
        book.open_ends.append(f"{place}: the attached cluster; v1's `--compute-target`")
    else:
        book.keep(found, f'{place} = "{found.value}"')
    book.open_ends.append(f"endpoint.json: name: v1's `--name`; '{name}' until then")
    lose_keys(book)
    return {
        "$schema": f"{_SCHEMAS}/kubernetesOnlineEndpoint.schema.json",
        "name": name,
        "compute": found.value or _CLUSTER,
        "auth_mode": _auth_mode(book),
    }


def online_deployment(book: Book, endpoint: str) -> dict[str, Any]:
    """The document of a Kubernetes online deployment, without code and environment."""
    versions = plain_name(str(book.source.group("computeType"))) == "aksendpoint"
    name = book.take("versionName", values.name(32))
    if name.value is not None:
        unread = "" if versions else _VERSIONS
        book.keep(name, f'deployment.json: name = "{name.value}"', unread)
    else:
        book.lose(name, "v1 took it as absent")
    deployment: dict[str, Any] = {
        "$schema": f"{_SCHEMAS}/kubernetesOnlineDeployment.schema.json",
        "type": "kubernetes",
        "name": name.value or "blue",
        "endpoint_name": endpoint,
        "app_insights_enabled": book.setting(
            "appInsightsEnabled",
            values.boolean,
            "deployment.json: app_insights_enabled",
            default=False,
            v2=False,
        ),
        **_scale(book),
        "request_settings": _settings(book, "", "request_settings", _REQUESTS),
        "liveness_probe": _settings(book, "livenessProbeRequirements.", "liveness_probe", _PROBE),
        "resources": _resources(book),
        **_data_collector(book),
    }
    _elsewhere(book, deployment["name"], versions=versions)
    book.open_ends.append("deployment.json: model: v1's `--model`, as azureml:NAME:VERSION")
    return deployment


def _settings(
    book: Book, prefix: str, group: str, fields: dict[str, tuple[str, int, int]]
) -> dict[str, int]:
    return {
        field: book.setting(
            prefix + key, _POSITIVE, f"deployment.json: {group}.{field}", default, v2
        )
        for key, (field, default, v2) in fields.items()
    }


def _auth_mode(book: Book) -> str:
    place = "endpoint.json: auth_mode"
    key = book.take("authEnabled", values.boolean)
    token = book.take("tokenAuthEnabled", values.boolean)
    if key.value and token.value:
        book.problem(
            token.entry, "true beside authEnabled: true, which v1 refused; set one of them to false"
        )
    if token.value:
        book.keep(token, f'{place} = "aml_token"')
        book.keep(key, "", "off, for the token")
        return "aml_token"
    book.keep(token, f'{place} = "key"', "off, as without it")
    if key.value is False:
        book.change(
            key,
            f'{place} = "key"',
            "v1 answered everybody; v2 always asks for a key: give it to the clients",
        )
    else:
        book.keep(key, f'{place} = "key"')
    return "key"


def _scale(book: Book) -> dict[str, Any]:
    """Fixed replicas or an autoscaler; v1's default is the autoscaler, v2's one replica."""
    enabled = book.take("autoScaler.autoscaleEnabled", values.boolean)
    replicas = book.take("numReplicas", values.integer(0))
    bounds = {
        key: book.take(f"autoScaler.{key}", values.integer(1, 100) if "Util" in key else _POSITIVE)
        for key in _SCALE
    }
    given = [found for found in bounds.values() if found.value is not None]
    if enabled.value and replicas.value:
        book.problem(
            replicas.entry,
            "beside an autoscaler, which v1 refused; remove it, or set autoscaleEnabled to false",
        )
    if enabled.value is None and replicas.value and given:
        book.problem(
            replicas.entry,
            "beside bounds of an autoscaler, which v1 refused; write autoscaleEnabled: true "
            "without it, or false",
        )
    if enabled.value is False and not replicas.value:
        book.problem(
            enabled.entry, "false without numReplicas, which v1 refused; write numReplicas"
        )
    if replicas.value and not enabled.value:
        return _fixed(book, enabled, replicas, list(bounds.values()))
    return _autoscaler(book, enabled, replicas, bounds)


def _fixed(book: Book, enabled: Found, replicas: Found, bounds: list[Found]) -> dict[str, Any]:
    scale = 'deployment.json: scale_settings.type = "default"'
    book.keep(replicas, f"deployment.json: instance_count = {replicas.value}")
    book.keep(enabled, scale)
    for found in bounds:
        book.lose(found, "the autoscaler is off")
    return {"instance_count": replicas.value, "scale_settings": {"type": "default"}}


def _autoscaler(
    book: Book, enabled: Found, replicas: Found, bounds: dict[str, Found]
) -> dict[str, Any]:
    place = "deployment.json: scale_settings"
    scale: dict[str, Any] = {"type": "target_utilization"}
    written = f'{place}.type = "target_utilization"'
    if enabled.value is None:
        book.change(
            enabled,
            written,
            "without numReplicas v1 ran an autoscaler, v2 one replica; written out",
        )
    else:
        book.keep(enabled, written)
    if replicas.value == 0:
        note = "v1's documentation says that the autoscaler runs then, its parser refused it"
        book.keep(replace(replicas, note=note), written)
    elif replicas.value is None:
        book.lose(replicas, "v1 took it as absent")
    for key, (field, default, v2) in _SCALE.items():
        found = bounds[key]
        scale[field] = default if found.value is None else found.value
        if found.value is None:
            book.default(found, f"{place}.{field}", default, v2)
        else:
            if not enabled.value:
                found = replace(found, note="v1 refused it without autoscaleEnabled: true")
            book.keep(found, f"{place}.{field} = {found.value}")
    if scale["min_instances"] > scale["max_instances"]:
        found = bounds["minReplicas"] if bounds["minReplicas"].entry else bounds["maxReplicas"]
        book.problem(
            found.entry,
            f"from {scale['min_instances']} to {scale['max_instances']} replicas (v1's defaults "
            "are 1 and 10); write maxReplicas of at least minReplicas",
        )
    return {"scale_settings": scale}


def _resources(book: Book) -> dict[str, dict[str, str]]:
    place = "deployment.json: resources"
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    for key, field, default, unit in (("cpu", "cpu", 0.1, ""), ("memoryInGB", "memory", 0.5, "Gi")):
        found = book.take(f"{_RESOURCES}.{key}", values.number)
        limit = book.take(f"{_RESOURCES}.{key}Limit", values.number)
        requests[field] = _quantity(found.value or default, unit)
        written = f'{place}.requests.{field} = "{requests[field]}"'
        if found.value is None:
            book.change(found, written, f"v1's default is {default}, v2's is the cluster's")
        else:
            book.keep(found, written)
        if limit.value is not None:
            limits[field] = _quantity(limit.value, unit)
            book.keep(limit, f'{place}.limits.{field} = "{limits[field]}"')
            if limit.value < (found.value or default):
                book.problem(limit.entry, f"below {key}, {found.value or default}; write more")
        else:
            book.lose(limit, "v1 took it as absent")
    gpu = book.take("gpuCores", values.integer(0, 64))
    if gpu.value:
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = str(gpu.value)
        book.keep(gpu, f'{place}.requests and .limits["nvidia.com/gpu"] = "{gpu.value}"')
    else:
        book.keep(gpu, "", "none, as without it")
    return {"requests": requests} | ({"limits": limits} if limits else {})


def _quantity(value: float, unit: str) -> str:
    """A Kubernetes quantity without exponent: 0.5 -> 0.5Gi."""
    text = format(Decimal(str(value)), "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


def _data_collector(book: Book) -> dict[str, Any]:
    found = book.take("dataCollection.storageEnabled", values.boolean)
    if not found.value:
        book.keep(found, "", "off, as without it")
        return {}
    book.keep(
        found,
        "deployment.json: data_collector.collections",
        "a score.py of your own must call azureml-ai-monitoring's Collector, not "
        "ModelDataCollector",
    )
    collections = {name: {"enabled": "true"} for name in ("model_inputs", "model_outputs")}
    return {"data_collector": {"collections": collections}}


def _elsewhere(book: Book, deployment: str, *, versions: bool) -> None:
    book.lose(
        book.take("namespace", values.anything),
        "a namespace belongs to the cluster: `az ml compute attach --namespace`",
    )
    share = book.take("trafficPercentile", values.integer(0, 100))
    book.lose(
        share,
        "Azure refuses a share before the deployment stands; afterwards: az ml online-endpoint "
        f'update --name NAME --traffic "{deployment}={share.value}", all together 100'
        if versions
        else _VERSIONS,
    )
    for key in ("sslEnabled", "sslCertificate", "sslKey", "cname", "dnsNameLabel", "location"):
        book.lose(
            book.take(key, values.anything),
            "v1 read it for ACI alone; on AKS it belongs to the cluster and its extension",
        )
