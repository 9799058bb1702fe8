"""What an endpoint counts, and ``/metrics``, which sums it over the endpoint's workers.

A request costs a few additions here. Each worker writes its sums to a file of its own now and
then; whichever is asked adds up the files, also those of workers that are gone, so that no counter
ever falls. prometheus-client writes the text; its own counters, with a lock or a mapped file
behind each, would cost a tenth of a request.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.scoring.schema import Schema

#: Upper bounds of the latency histogram, in seconds: so close that a version half as slow again
#: as another falls into another interval.
SECONDS = (
    0.0001, 0.00015, 0.00022, 0.00033, 0.00047, 0.00068, 0.001, 0.0015, 0.0022, 0.0033, 0.0047,
    0.0068, 0.01, 0.015, 0.022, 0.033, 0.047, 0.068, 0.1, 0.15, 0.22, 0.33, 0.47, 0.68, 1.0, 1.5,
    2.2, 3.3, 4.7, 6.8, 10.0,
)  # fmt: skip
#: Folder of the workers' files.
COUNTS = "counts"
#: Stands for a status where a copy of a request was not scored.
DROPPED = "dropped"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Tally:
    """The sums of one deployment."""

    #: HTTP status -> answers.
    statuses: Counter[str] = field(default_factory=Counter[str])
    #: Answers per interval of SECONDS, one more for all above.
    latencies: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    seconds: float = 0.0
    #: Label, or number of the interval among the schema's edges -> rows.
    predictions: Counter[str] = field(default_factory=Counter[str])
    #: Column -> values outside the contract that were let through.
    outside: Counter[str] = field(default_factory=Counter[str])
    #: The same rows as ``predictions``, by the buckets of the deployment on whose side it is tried.
    compared: Counter[str] = field(default_factory=Counter[str])

    def record(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.statuses[str(status)] += 1
        self.latencies[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    def predicted(self, values: Iterable[Any], schema: Schema) -> None:
        """Count predictions by label, or by the interval that a number falls into."""
        _count(self.predictions, values, schema)

    def compare(self, values: Iterable[Any], reference: Schema) -> None:
        """Count predictions by the labels or intervals of another deployment."""
        _count(self.compared, values, reference)

    def add(self, other: Tally) -> None:
        """Add another worker's sums."""
        for mine, theirs in (
            (self.statuses, other.statuses),
            (self.predictions, other.predictions),
            (self.outside, other.outside),
            (self.compared, other.compared),
        ):
            mine.update(theirs)
        self.latencies = [a + b for a, b in zip(self.latencies, other.latencies, strict=True)]
        self.seconds += other.seconds

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the inverse of ``from_dict``."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Tally:
        """Read a worker's file."""
        return cls(
            Counter(value["statuses"]),
            list(value["latencies"]),
            float(value["seconds"]),
            Counter(value["predictions"]),
            Counter(value["outside"]),
            Counter(value["compared"]),
        )


def _count(counts: Counter[str], values: Iterable[Any], schema: Schema) -> None:
    if schema.labels is not None:
        for value in values:
            counts[value if type(value) is str else json.dumps(value)] += 1
    elif schema.edges:
        edges = schema.edges
        for value in values:
            counts[str(bisect_left(edges, value))] += 1


class Metrics:
    """The sums of one worker, and those of all."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin to count.

        Args:
            folder: the endpoint's; None for a server without other workers.
        """
        self.tallies: dict[str, Tally] = {}
        #: The same for copies of requests, which nobody waits for.
        self.mirrored: dict[str, Tally] = {}
        self.refused: Counter[str] = Counter()
        #: Requests that are captured, and by reason those that were to be and are not.
        self.captured: Counter[str] = Counter()
        self.not_captured: Counter[str] = Counter()
        self._folder = None if folder is None else folder / COUNTS
        # Another worker may one day have this one's pid.
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}.json"
        self._written = ""

    def tally(self, deployment: str) -> Tally:
        """The sums of a deployment."""
        return self.tallies.setdefault(deployment, Tally())

    def mirror(self, deployment: str) -> Tally:
        """The sums of what was copied to a deployment."""
        return self.mirrored.setdefault(deployment, Tally())

    def refuse(self, reason: str) -> None:
        """Count a request that no deployment saw, or a connection that was cut off."""
        self.refused[reason] += 1

    def capture(self, requests: int) -> None:
        """Count requests that are kept."""
        self.captured[_CAPTURED] += requests

    def drop(self, reason: str, requests: int = 1) -> None:
        """Count requests that were to be kept and are not."""
        self.not_captured[reason] += requests

    def write(self) -> None:
        """Let the other workers see this one's sums, if they changed."""
        text = json.dumps(
            {
                "tallies": {name: tally.to_dict() for name, tally in [*self.tallies.items()]},
                "mirrored": {name: tally.to_dict() for name, tally in [*self.mirrored.items()]},
                "refused": self.refused,
                "captured": self.captured,
                "not_captured": self.not_captured,
            }
        )
        if self._folder is None or text == self._written:
            return
        self._folder.mkdir(exist_ok=True)
        # A count that a power cut takes is no loss: renamed, not synchronised.
        scratch = self._folder / f".{self._name}"
        scratch.write_text(text)
        scratch.replace(self._folder / self._name)
        self._written = text

    def render(self) -> bytes:
        """The Prometheus text of all workers' sums."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Families(self._total()))  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)

    def _total(self) -> Metrics:
        total = Metrics()
        for one in [self, *self._others()]:
            for name, tally in [*one.tallies.items()]:
                total.tally(name).add(tally)
            for name, tally in [*one.mirrored.items()]:
                total.mirror(name).add(tally)
            total.refused.update(one.refused)
            total.captured.update(one.captured)
            total.not_captured.update(one.not_captured)
        return total

    def _others(self) -> Iterator[Metrics]:
        if self._folder is None:
            return
        for path in sorted(self._folder.glob("[0-9]*.json")):
            if path.name == self._name:
                continue
            value = json.loads(path.read_bytes())
            other = Metrics()
            other.tallies = {n: Tally.from_dict(tally) for n, tally in value["tallies"].items()}
            other.mirrored = {n: Tally.from_dict(tally) for n, tally in value["mirrored"].items()}
            other.refused = Counter(value["refused"])
            other.captured = Counter(value["captured"])
            other.not_captured = Counter(value["not_captured"])
            yield other


class _Families:
    """Sums as the families of metrics that prometheus-client writes."""

    def __init__(self, total: Metrics) -> None:
        self._total = total

    def collect(self) -> Iterator[Any]:
        """What prometheus-client asks a collector for."""
        from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

        def counter(
            name: str, text: str, label: str, values: Sequence[tuple[str, Counter[str]]]
        ) -> CounterMetricFamily:
            family = CounterMetricFamily(name, text, labels=["deployment", label])
            for deployment, counts in values:
                for value, count in sorted(counts.items()):
                    family.add_metric([deployment, value], count)
            return family

        def latency(
            name: str, text: str, values: Sequence[tuple[str, Tally]]
        ) -> HistogramMetricFamily:
            family = HistogramMetricFamily(name, text, labels=["deployment"])
            for deployment, tally in values:
                family.add_metric([deployment], _cumulated(tally.latencies), tally.seconds)
            return family

        tallies = sorted(self._total.tallies.items())
        yield counter(
            "mlops_requests", "Answers by HTTP status.", "status",
            [(n, t.statuses) for n, t in tallies],
        )  # fmt: skip
        yield latency("mlops_request_seconds", "Time within the server.", tallies)
        yield counter(
            "mlops_predictions", "Rows by label, or by interval of the predicted number.", "bucket",
            [(n, t.predictions) for n, t in tallies],
        )  # fmt: skip
        yield counter(
            "mlops_compared_predictions", "The same rows of a deployment on trial, by the labels "
            "or intervals of the one it is compared with.", "bucket",
            [(n, t.compared) for n, t in tallies],
        )  # fmt: skip
        yield counter(
            "mlops_out_of_contract", "Values outside the contract that were let through.", "column",
            [(n, t.outside) for n, t in tallies],
        )  # fmt: skip
        mirrored = sorted(self._total.mirrored.items())
        yield counter(
            "mlops_mirrored", "Copies of requests by what became of them.", "outcome",
            [(n, _outcomes(t.statuses)) for n, t in mirrored],
        )  # fmt: skip
        yield latency("mlops_mirrored_seconds", "Processor time of a copy.", mirrored)
        yield counter(
            "mlops_mirrored_predictions", "Rows of copies, by the labels or intervals of the "
            "deployment that they were copied from.", "bucket",
            [(n, t.predictions) for n, t in mirrored],
        )  # fmt: skip
        refused = CounterMetricFamily(
            "mlops_refused", "Requests refused before a deployment saw them.", labels=["reason"]
        )
        for reason, count in sorted(self._total.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        captured = CounterMetricFamily("mlops_captured", "Requests that were kept.")
        captured.add_metric([], self._total.captured[_CAPTURED])
        yield captured
        dropped = CounterMetricFamily(
            "mlops_capture_dropped", "Requests that were to be kept and are not.", labels=["reason"]
        )
        for reason, count in sorted(self._total.not_captured.items()):
            dropped.add_metric([reason], count)
        yield dropped


def _outcomes(statuses: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for status, count in statuses.items():
        found[_OUTCOMES.get(status[0], status)] += count
    return found


_CAPTURED = "requests"
_OUTCOMES = {"2": "answered", "4": "refused", "5": "failed"}


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
    total, found = 0, list[tuple[str, float]]()
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        found.append((bound, total))
    return found
