"""What an endpoint's ``/metrics`` says about each of its deployments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from resources.endpoints.base import Counts, EndpointError, Observation

#: Deployment -> value of the sample's other label -> count.
_Family = defaultdict[str, dict[str, int]]


def observations(text: str, oldest: str) -> dict[str, Observation]:
    """Read a Prometheus text.

    Args:
        text: what ``GET /metrics`` answers.
        oldest: the deployment by whose buckets the others' predictions are compared.

    Raises:
        EndpointError: it is no Prometheus text.
    """
    found: defaultdict[str, _Family] = defaultdict(lambda: defaultdict(dict))
    try:
        for name, deployment, value, count in _samples(text):
            found[name][deployment][value] = count
    except ValueError as error:
        raise EndpointError(f"/metrics: not a Prometheus text: {error}") from None
    requests, copies = found["mlops_requests_total"], found["mlops_mirrored_total"]
    result: dict[str, Observation] = {}
    for name in requests.keys() | copies.keys():
        family = "mlops_predictions_total" if name == oldest else "mlops_compared_predictions_total"
        statuses, outcomes = requests[name], copies[name]
        served = Counts(
            answered=_starting(statuses, "2"),
            refused=_starting(statuses, "4"),
            failed=_starting(statuses, "5"),
            seconds=_intervals(found["mlops_request_seconds_bucket"][name]),
            predictions=found[family][name],
        )
        mirrored = Counts(
            answered=outcomes.get("answered", 0),
            refused=outcomes.get("refused", 0),
            failed=outcomes.get("failed", 0),
            seconds=_intervals(found["mlops_mirrored_seconds_bucket"][name]),
            predictions=found["mlops_mirrored_predictions_total"][name],
        )
        result[name] = Observation(served, mirrored)
    return result


def _starting(statuses: dict[str, int], digit: str) -> int:
    return sum(count for status, count in statuses.items() if status.startswith(digit))


def _samples(text: str) -> Iterator[tuple[str, str, str, int]]:
    """Name, deployment, the other label's value, count."""
    from prometheus_client.parser import text_string_to_metric_families  # imports a web server

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            deployment = labels.pop("deployment", None)
            if deployment is not None and len(labels) == 1:
                yield sample.name, deployment, next(iter(labels.values())), int(sample.value)


def _intervals(cumulated: dict[str, int]) -> dict[float, int]:
    """Requests per interval from requests up to its bound."""
    below, found = 0, dict[float, int]()
    for bound, count in sorted((float(bound), count) for bound, count in cumulated.items()):
        found[bound] = count - below
        below = count
    return found
