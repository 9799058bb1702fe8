"""The block ``monitoring`` of model.yaml; loaded with the definitions, so without numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field

from mlops_assets.strict import Strict

#: A year: no look reaches further back, and no date leaves the calendar.
LONGEST_HOURS = 24 * 366


class MinimumEffect(Strict):
    """Moves smaller than all of these are no alarm, however sure many rows make them."""

    psi: float = Field(
        default=0.1, ge=0, description="Population stability index beyond its own noise."
    )
    shift: float = Field(
        default=0.25, ge=0, description="Difference of the means, in standard deviations."
    )
    share: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Difference of a share: missing or new values, rows out of contract, rows "
        "where one in a hundred lay.",
    )


class Labels(Strict):
    """Where labelled rows arrive: the key's columns and the target."""

    location: str = Field(min_length=1, description="Folder under the storage root, or a URL.")
    format: Literal["csv", "parquet"] = "csv"


class LivePerformance(Strict):
    """How much worse than at release a version may predict labelled rows."""

    metric: str | None = Field(
        default=None,
        description="One that predictions alone allow, without probabilities; default: the gate "
        "champion's if it is such a one, else accuracy's or the error's.",
    )
    tolerance: float | None = Field(
        default=None,
        ge=0,
        description="Loss allowed, in the metric's unit; default: the gate champion's.",
    )
    minimum_rows: int = Field(
        default=50, ge=10, description="Labelled rows, of a slice too, below which none is judged."
    )


class Monitoring(Strict):
    """What is watched after a release, and when it alarms."""

    window_hours: float = Field(
        default=24, gt=0, le=LONGEST_HOURS, description="Span of time judged at once."
    )
    minimum_rows: int = Field(
        default=200, ge=20, description="Independent rows below which no window is judged."
    )
    false_alarm_rate: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="Chance of any false alarm in one window, over all columns together.",
    )
    effect: MinimumEffect = Field(default_factory=MinimumEffect)
    freshness_hours: float = Field(
        default=48,
        gt=0,
        le=LONGEST_HOURS,
        description="Without a request, or without new data, for longer: alarm.",
    )
    ignore: list[str] = Field(
        default_factory=list, description="Columns that move by themselves, such as a year."
    )
    rows: Literal["by_request", "independent"] = Field(
        default="by_request",
        description="by_request: rows of one request count for less the more alike they are. "
        "independent: each counts as one, as when a request is a random batch.",
    )
    labels: Labels | None = None
    performance: LivePerformance = Field(default_factory=LivePerformance)


#: Metrics that need probabilities, which no answer holds.
OF_PROBABILITIES = ("roc_auc", "roc_auc_ovr", "log_loss")


def live_metric_problems(task: str, metrics: Iterable[str], monitoring: Any) -> Iterator[str]:
    """What is wrong with the metric that an unparsed block ``monitoring`` names."""
    performance = monitoring.get("performance") if isinstance(monitoring, dict) else None
    metric = performance.get("metric") if isinstance(performance, dict) else None
    if not isinstance(metric, str):
        return  # reported by the parser
    allowed = [name for name in metrics if name not in OF_PROBABILITIES]
    if metric in OF_PROBABILITIES and metric in metrics:
        yield (
            f"monitoring.performance.metric: {metric} needs probabilities, which no captured "
            f"answer holds; allowed are {', '.join(allowed)}"
        )
    elif metric not in allowed:
        yield (
            f"monitoring.performance.metric: no metric '{metric}'; task {task} has "
            f"{', '.join(allowed)}"
        )
