"""Causes of failed deployments: the texts are Azure's, from its documentation and from reports."""

from __future__ import annotations

import pytest

from resources.azure.explain import CAUSES, CHARACTERS, LINES, cause_of, explain

TEXTS = {
    "out of memory": [
        "ResourceNotReady: User container has crashed or terminated: OOMKilled. Please see "
        "troubleshooting guide",
        "Container scoring terminated, exit code: 137",
    ],
    "image platform": ["User container has crashed: exec /bin/sh: exec format error"],
    "image access": [
        "InaccessibleImage: The image 'contoso.azurecr.io/scoring:1' in container group 'a' is not "
        "accessible. Please check the image and registry credential.",
        'Failed to pull image "contoso.azurecr.io/scoring:1": rpc error: code = Unknown desc = '
        "failed to authorize: unauthorized: authentication required",
    ],
    "image": [
        "BadArgument: Unable to download user container image.",
        'Failed to pull image "contoso.azurecr.io/scoring:1": not there',
        "Back-off pulling image, ImagePullBackOff",
        "RegistryErrorResponse: An error response is received from the docker registry "
        "'index.docker.io'. Please retry later.",
        "manifest unknown: manifest tagged by '2' is not found",
    ],
    "image build": ["ImageBuildFailure: There's an error when building the environment"],
    "size not available": [
        "BadRequest: The requested VM size Standard_NC6 is not supported.",
        "SkuNotAvailable: The requested size for resource is currently not available in location",
        "Specified InstanceType is not supported: Standard_X",
    ],
    "no capacity": [
        "ServiceUnavailable: The requested resource is not available in the location 'westus' at "
        "this moment. Please retry with a different resource request or in another location.",
        "OutOfCapacity: not now",
    ],
    "no room in the cluster": [
        "OutOfQuota: Kubernetes unschedulable. Details:0/1 nodes are available: 1 Too many pods.",
        "0/3 nodes are available: 3 Insufficient cpu.",
    ],
    "quota": [
        "OutOfQuota: Not enough quota available for Standard_DS3_v2 in SubscriptionId x. Current "
        "usage/limit: 48/50. Additional needed: 8",
        "ContainerGroupQuotaReached: Resource type 'Microsoft.ContainerInstance/containerGroups' "
        "container group quota 'StandardCores' exceeded in region 'westus'. Limit: '10'",
    ],
    "provider": [
        "MissingSubscriptionRegistration: The subscription is not registered to use namespace "
        "'Microsoft.ContainerInstance'."
    ],
    "role": [
        "AuthorizationFailed: The client 'x' with object id 'y' does not have authorization to "
        "perform action 'Microsoft.MachineLearningServices/workspaces/onlineEndpoints/write'",
        "BadArgument: Startup task failed due to authorization error",
    ],
    "name taken": ["The DnsNameLabel 'diabetes' in container group 'a' is already taken."],
    "liveness probe": [
        "ResourceNotReady: User container has crashed or terminated: Liveness probe failed: HTTP "
        "probe failed with statuscode: 502",
    ],
    "readiness probe": ["Readiness probe failed: HTTP probe failed with statuscode: 503"],
    "model download": ["BadArgument: Unable to download user model."],
    "crash": [
        "ResourceNotReady: User container has crashed or terminated. Please see troubleshooting "
        "guide, available here: https://aka.ms/oe-tsg#error-resourcenotready",
        "CrashLoopBackOff: Back-off restarting failed container",
    ],
    "timeout": ["The deployment did not finish within 1800 seconds", "OperationTimedOut"],
    "throttled": ["TooManyRequests: Rate limit is exceeded."],
    "Azure's own": ["InternalServerError: An internal error has occurred."],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts]
)
def test_says_why_and_how_to_mend_it(name: str, text: str):
    found = cause_of(text)
    assert found is not None
    assert found.name == name
    assert explain(text, "").startswith(f"{found.cause}; {found.mend}. Azure says: ")


def test_no_cause_in_the_table_is_without_a_text():
    assert {cause.name for cause in CAUSES} == set(TEXTS)


def test_the_log_says_more_than_azure():
    crashed = "ResourceNotReady: User container has crashed or terminated."
    found = explain(crashed, "loading\nMemoryError\n")
    assert "more memory than it has" in found
    assert found.endswith("The log ends with:\n  loading\n  MemoryError")


def test_the_unknown_stays_in_azures_words():
    assert explain("NeverSeen: something else") == "Azure says: NeverSeen: something else"
    assert explain("") == "Azure does not say why"


def test_only_the_end_of_a_log_is_shown():
    found = explain("NeverSeen", "\n".join(f"line {i}" for i in range(1000)))
    assert found.endswith("line 999")
    assert len(found.splitlines()) == 2 + LINES
    long = explain("NeverSeen", "x" * 100_000)
    assert len(long) < CHARACTERS + 200


@pytest.mark.parametrize(
    "secret",
    [
        "https://a.blob.core.windows.net/b?sv=1&sig=s3cr3tvalue%3D&se=2",
        "AccountKey=s3cr3tvalue==;EndpointSuffix=core.windows.net",
        "Authorization: Bearer s3cr3tvalue",
        "AZURE_CLIENT_SECRET=s3cr3tvalue",
        '{"primaryKey": "s3cr3tvalue"}',
        "password: s3cr3tvalue",
    ],
)
def test_no_secret_is_shown(secret: str):
    found = explain(secret, f"before\n{secret}\nafter")
    assert "s3cr3tvalue" not in found
    assert "after" in found


def test_a_token_is_no_secret_that_is_shown():
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    assert "c2ln" not in explain(f"refused {token}", token)


def test_nothing_in_a_log_moves_the_cursor():
    assert "\x1b" not in explain("NeverSeen", "\x1b[2Jgone")
