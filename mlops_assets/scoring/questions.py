"""What the scoring route answers beside scores, where nothing else of a server can be reached.

An online endpoint of Azure ML passes on requests to ``/score`` alone. The body ``{"metrics":
true}``, which is no payload, asks there for what ``/metrics`` answers.
"""

from __future__ import annotations

import json
from typing import Any

METRICS = b'{"metrics": true}'
#: No longer body is looked at.
_LONGEST = 64


def asks_for_metrics(body: bytes) -> bool:
    """Whether a body that is no payload is this question."""
    if len(body) > _LONGEST:
        return False
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() == {"metrics"} and found["metrics"] is True


def told(
    instance: str, deployment: str, edges: tuple[float, ...], metrics: bytes
) -> dict[str, Any]:
    """The answer.

    Args:
        instance: tells the counts of several servers of a deployment apart.
        deployment: its name inside the server, which is a label of its metrics.
        edges: by which it counts what it predicts.
        metrics: the Prometheus text.
    """
    return {
        "instance": instance,
        "deployment": deployment,
        "edges": list(edges),
        "metrics": metrics.decode(),
    }
