"""Online endpoints, by azure-ai-ml: what answers is the platform's own server, in processes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    KubernetesCompute,
    KubernetesOnlineDeployment,
    KubernetesOnlineEndpoint,
    ManagedOnlineEndpoint,
    Model,
    TargetUtilizationScaleSettings,
)
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.azure.clients import (
    VARIABLES,
    ask,
    managed_deployment,
    managed_endpoint,
    ml_client,
    move_traffic,
    serving_environment,
)
from tests.azure.messages import Request
from tests.azure.scoring import DEPLOYMENT
from tests.azure.server import AzureServer
from tests.bundles import broken, regression
from tests.local_servers import eventually, processes_of


@pytest.fixture
def client(azure: AzureServer, tmp_path: Path) -> MLClient:
    """Two versions of ``tiny`` are registered: n predicts 1000 n + 3."""
    found = ml_client(azure)
    serving_environment(found)
    for number in (1, 2):
        bundle = regression(tmp_path, number).bundle
        found.models.create_or_update(Model(name="tiny", path=str(bundle)))
    return found


def _key(client: MLClient, name: str = "tiny-staging") -> str:
    return client.online_endpoints.get_keys(name).primary_key


def test_a_version_is_staged_tried_and_promoted(client: MLClient, azure: AzureServer) -> None:
    url = managed_endpoint(client)
    assert url == "https://tiny-staging.eastus2.inference.ml.azure.com/score"
    managed_deployment(client, "blue", 1)
    key = _key(client)
    assert ask(url, key).status_code == 404  # nobody has traffic yet
    answer = ask(url, key, **{DEPLOYMENT: "blue"})
    assert (answer.status_code, answer.json()) == (200, {"predictions": [1003.0]})
    assert answer.headers[DEPLOYMENT] == "blue"
    move_traffic(client, {"blue": 100})
    assert ask(url, key).json() == {"predictions": [1003.0]}


def test_traffic_is_shared_as_asked(client: MLClient) -> None:
    url = managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    managed_deployment(client, "green", 2)
    move_traffic(client, {"blue": 70, "green": 30})
    key = _key(client)
    seen = Counter(ask(url, key).headers[DEPLOYMENT] for _ in range(120))
    assert 55 <= seen["blue"] <= 110  # within four standard deviations
    assert ask(url, key, **{DEPLOYMENT: "green"}).json() == {"predictions": [2003.0]}


def test_mirrored_traffic_reaches_the_other_deployment(
    client: MLClient, azure: AzureServer
) -> None:
    url = managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    managed_deployment(client, "green", 2)
    move_traffic(client, {"blue": 100}, {"green": 50})
    key = _key(client)
    assert {ask(url, key).headers[DEPLOYMENT] for _ in range(30)} == {"blue"}
    green = azure.cloud.find(f"{azure.workspace_id}/onlineEndpoints/tiny-staging/deployments/green")
    assert green

    def counted() -> bool:
        text = green.hidden["container"].ask(Request("GET", "", "/metrics", {})).body.decode()
        return re.search(r'mlops_requests_total{[^}]*status="200"} [1-9]', text) is not None

    eventually(counted)


def test_only_keys_let_in_and_they_can_be_replaced(client: MLClient) -> None:
    url = managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    move_traffic(client, {"blue": 100})
    old = client.online_endpoints.get_keys("tiny-staging")
    assert ask(url, "wrong").status_code == 401
    client.online_endpoints.begin_regenerate_keys("tiny-staging", key_type="primary").wait()
    assert ask(url, old.primary_key).status_code == 401
    assert ask(url, old.secondary_key).status_code == 200
    assert ask(url, _key(client)).status_code == 200


def test_an_error_of_the_model_has_a_status_of_its_own(client: MLClient) -> None:
    url = managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    move_traffic(client, {"blue": 100})
    answer = ask(url, _key(client), {"data": [{"a": "x"}]})
    assert answer.status_code == 424
    assert answer.headers["ms-azureml-model-error-statuscode"] == "400"


def test_a_container_that_ends_fails_the_deployment_and_leaves_its_log(client: MLClient) -> None:
    url = managed_endpoint(client)
    with pytest.raises(HttpResponseError, match="User container has crashed"):
        managed_deployment(client, "blue", 1, variables={"A": "b"})
    assert client.online_deployments.get("blue", "tiny-staging").provisioning_state == "Failed"
    assert "no keys" in client.online_deployments.get_logs("blue", "tiny-staging", lines=5)
    managed_deployment(client, "blue", 2)
    assert ask(url, _key(client), **{DEPLOYMENT: "blue"}).json() == {"predictions": [2003.0]}


def test_a_replaced_deployment_serves_on_until_the_new_one_does(
    client: MLClient, tmp_path: Path
) -> None:
    url = managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    bad = broken(tmp_path).bundle
    (bad / "model.pkl").write_bytes(b"changed")
    client.models.create_or_update(Model(name="tiny", version="3", path=str(bad)))
    with pytest.raises(HttpResponseError):
        managed_deployment(client, "blue", 3)
    key = _key(client)
    assert ask(url, key, **{DEPLOYMENT: "blue"}).json() == {"predictions": [1003.0]}
    managed_deployment(client, "blue", 2)
    assert ask(url, key, **{DEPLOYMENT: "blue"}).json() == {"predictions": [2003.0]}


def test_a_deployment_with_traffic_is_not_removed(client: MLClient, azure: AzureServer) -> None:
    managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    move_traffic(client, {"blue": 100})
    with pytest.raises(HttpResponseError, match="gets traffic"):
        client.online_deployments.begin_delete("blue", "tiny-staging")
    move_traffic(client, {"blue": 0})
    client.online_deployments.begin_delete("blue", "tiny-staging").wait()
    assert list(client.online_deployments.list("tiny-staging")) == []
    eventually(lambda: not processes_of(azure.folder))


@pytest.mark.parametrize(
    ("traffic", "mirrored", "message"),
    [
        ({"blue": 90}, {}, "0 or 100"),
        ({"blue": 50, "red": 50}, {}, "red in the traffic does not exist"),
        ({"blue": 100}, {"green": 60}, "at most 50"),
        ({"blue": 50, "green": 50}, {"green": 10}, "live or mirrored"),
    ],
)
def test_traffic_that_cannot_be_is_refused(
    client: MLClient, traffic: dict[str, int], mirrored: dict[str, int], message: str
) -> None:
    managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    managed_deployment(client, "green", 2)
    with pytest.raises(HttpResponseError, match=message):
        move_traffic(client, traffic, mirrored)
    assert set(client.online_endpoints.get("tiny-staging").traffic.values()) == {0}


def test_an_endpoint_takes_its_deployments_with_it(client: MLClient, azure: AzureServer) -> None:
    managed_endpoint(client)
    managed_deployment(client, "blue", 1)
    client.online_endpoints.begin_delete("tiny-staging").wait()
    with pytest.raises(ResourceNotFoundError):
        client.online_endpoints.get("tiny-staging")
    eventually(lambda: not processes_of(azure.folder))


def test_tokens_of_azure_ml(client: MLClient) -> None:
    endpoint = ManagedOnlineEndpoint(name="with-tokens", auth_mode="aml_token")
    url = client.online_endpoints.begin_create_or_update(endpoint).result().scoring_uri
    managed_deployment(client, "blue", 1, endpoint="with-tokens")
    token = client.online_endpoints.get_keys("with-tokens").access_token
    assert ask(url, token, **{DEPLOYMENT: "blue"}).status_code == 200
    assert ask(url, "other", **{DEPLOYMENT: "blue"}).status_code == 401


def test_kubernetes_serves_too_and_passes_errors_on(client: MLClient) -> None:
    cluster = f"{'/subscriptions/s/resourceGroups/g/providers'}/Microsoft.ContainerService"
    aks = KubernetesCompute(
        name="aks", resource_id=f"{cluster}/managedClusters/aks", namespace="n", properties={}
    )
    client.compute.begin_create_or_update(aks).wait()
    endpoint = KubernetesOnlineEndpoint(name="on-aks", compute="aks", auth_mode="key")
    url = client.online_endpoints.begin_create_or_update(endpoint).result().scoring_uri
    deployment = KubernetesOnlineDeployment(
        name="blue",
        endpoint_name="on-aks",
        model="azureml:tiny:1",
        environment="azureml:serving:1",
        environment_variables=VARIABLES,
        scale_settings=TargetUtilizationScaleSettings(min_instances=1, max_instances=3),
    )
    client.online_deployments.begin_create_or_update(deployment).wait()
    endpoint = client.online_endpoints.get("on-aks")
    endpoint.traffic = {"blue": 100}
    client.online_endpoints.begin_create_or_update(endpoint).wait()
    key = _key(client, "on-aks")
    assert ask(url, key).json() == {"predictions": [1003.0]}
    assert ask(url, key, {"data": [{"a": "x"}]}).status_code == 400
    endpoint.mirror_traffic = {"blue": 10}
    endpoint.traffic = {}
    with pytest.raises(HttpResponseError, match="not mirrored on Kubernetes"):
        client.online_endpoints.begin_create_or_update(endpoint).wait()
