"""Checks on a live endpoint, which ask it as an application would."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from mlops_assets.references import Endpoint
from mlops_assets.samples import Ask, Sample, run_samples
from resources.endpoints.base import Answer, EndpointError, Request
from resources.environment import Environment
from resources.serving import Serving

#: Checks on a live endpoint. They judge a deployment; no gate reads them.
LIVE_CHECKS = {
    "samples": "Every sample of the environment is answered as it expects.",
    "latency": "95 % of one-row requests are answered within the environment's latency_ms.",
    "refuses_without_key": "A request without a key gets 401.",
    "serves_version": "The version that answers is the one that the asset says.",
}

#: How many requests the latency check sends.
LATENCY_REQUESTS = 40


def live_checks(
    key: dg.AssetKey,
    endpoint: Endpoint,
    serving: Serving,
    environment: Environment,
    samples: list[Sample],
) -> list[dg.AssetCheckResult]:
    """The results of all of them."""
    judged: dict[str, Callable[[], Judged]] = {
        "samples": lambda: _samples_check(serving, endpoint, samples),
        "latency": lambda: _latency_check(serving, endpoint, samples, environment),
        "refuses_without_key": lambda: _key_check(serving, endpoint, samples),
        "serves_version": lambda: _version_check(serving, endpoint, samples),
    }
    found: list[dg.AssetCheckResult] = []
    for name in LIVE_CHECKS:
        passed, description, metadata = _answered(judged[name])
        found.append(
            dg.AssetCheckResult(
                passed=passed,
                check_name=name,
                asset_key=key,
                description=description,
                metadata={"version": str(endpoint.version), **metadata},
            )
        )
    return found


Judged = tuple[bool, str, dict[str, Any]]


def _answered(check: Callable[[], Judged]) -> Judged:
    """An endpoint that does not answer fails its checks, not the run."""
    try:
        return check()
    except EndpointError as error:
        return False, str(error), {}


def _asker(serving: Serving, endpoint: Endpoint, *, authorized: bool = True) -> Ask:
    def ask(payload: Any) -> Answer:
        request = Request.sample(payload, authorized=authorized)
        return serving.ask(endpoint.model, endpoint.environment, request)

    return ask


def _samples_check(serving: Serving, endpoint: Endpoint, samples: list[Sample]) -> Judged:
    results = run_samples(_asker(serving, endpoint), samples)
    wrong = [str(result) for result in results if result.problems]
    return not wrong, "; ".join(wrong) or f"{len(samples)} samples passed", {}


def _latency_check(
    serving: Serving, endpoint: Endpoint, samples: list[Sample], environment: Environment
) -> Judged:
    sample = next((s for s in samples if s.expect.status == 200), samples[0])
    ask = _asker(serving, endpoint)
    seconds = sorted(ask(sample.request).seconds for _ in range(LATENCY_REQUESTS))
    p95 = 1000 * seconds[int(0.95 * LATENCY_REQUESTS) - 1]
    description = f"95 % within {p95:.1f} ms, limit {environment.latency_ms:g} ms"
    return p95 <= environment.latency_ms, description, {"p95_milliseconds": p95}


def _key_check(serving: Serving, endpoint: Endpoint, samples: list[Sample]) -> Judged:
    status = _asker(serving, endpoint, authorized=False)(samples[0].request).status
    return status == 401, f"answers {status} to a request without a key", {}


def _version_check(serving: Serving, endpoint: Endpoint, samples: list[Sample]) -> Judged:
    answer = _asker(serving, endpoint)(samples[0].request)
    found = answer.headers.get("x-mlops-version", "none")
    wanted = str(endpoint.version)
    return found == wanted, f"version {found} answers, the asset says {wanted}", {}
