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

#: Upper bounds of the latency histogram, in seconds.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip
#: Folder of the workers' files.
COUNTS = "counts"
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
    #: What became of mirrored requests -> how many.
    mirrored: Counter[str] = field(default_factory=Counter[str])

    def record(self, status: int, seconds: float) -> None:
        """Count an answer."""
        self.statuses[str(status)] += 1
        self.latencies[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds

    def predicted(self, values: Iterable[Any], schema: Schema) -> None:
        """Count predictions by label, or by the interval that a number falls into."""
        counts = self.predictions
        if schema.labels is not None:
            for value in values:
                counts[value if type(value) is str else json.dumps(value)] += 1
        elif schema.edges:
            edges = schema.edges
            for value in values:
                counts[str(bisect_left(edges, value))] += 1

    def add(self, other: Tally) -> None:
        """Add another worker's sums."""
        for mine, theirs in (
            (self.statuses, other.statuses),
            (self.predictions, other.predictions),
            (self.outside, other.outside),
            (self.mirrored, other.mirrored),
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
            Counter(value["mirrored"]),
        )


class Metrics:
    """The sums of one worker, and those of all."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin to count.

        Args:
            folder: the endpoint's; None for a server without other workers.
        """
        self.tallies: dict[str, Tally] = {}
        self.refused: Counter[str] = Counter()
        self._folder = None if folder is None else folder / COUNTS
        # Another worker may one day have this one's pid.
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}.json"
        self._written = ""

    def tally(self, deployment: str) -> Tally:
        """The sums of a deployment."""
        return self.tallies.setdefault(deployment, Tally())

    def refuse(self, reason: str) -> None:
        """Count a request that no deployment saw, or a connection that was cut off."""
        self.refused[reason] += 1

    def write(self) -> None:
        """Let the other workers see this one's sums, if they changed."""
        text = json.dumps(
            {
                "tallies": {name: tally.to_dict() for name, tally in [*self.tallies.items()]},
                "refused": self.refused,
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
        for tallies, refused in [(self.tallies, self.refused), *self._others()]:
            for name, tally in [*tallies.items()]:
                total.tally(name).add(tally)
            total.refused.update(refused)
        return total

    def _others(self) -> Iterator[tuple[dict[str, Tally], dict[str, int]]]:
        if self._folder is None:
            return
        for path in sorted(self._folder.glob("[0-9]*.json")):
            if path.name == self._name:
                continue
            value = json.loads(path.read_bytes())
            tallies = {name: Tally.from_dict(tally) for name, tally in value["tallies"].items()}
            yield tallies, value["refused"]


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

        tallies = sorted(self._total.tallies.items())
        yield counter(
            "mlops_requests", "Answers by HTTP status.", "status",
            [(n, t.statuses) for n, t in tallies],
        )  # fmt: skip
        latency = HistogramMetricFamily(
            "mlops_request_seconds", "Time within the server.", labels=["deployment"]
        )
        for name, tally in tallies:
            latency.add_metric([name], _cumulated(tally.latencies), tally.seconds)
        yield latency
        yield counter(
            "mlops_predictions", "Rows by label, or by interval of the predicted number.", "bucket",
            [(n, t.predictions) for n, t in tallies],
        )  # fmt: skip
        yield counter(
            "mlops_out_of_contract", "Values outside the contract that were let through.", "column",
            [(n, t.outside) for n, t in tallies],
        )  # fmt: skip
        yield counter(
            "mlops_mirrored", "Mirrored requests by what became of them.", "outcome",
            [(n, t.mirrored) for n, t in tallies],
        )  # fmt: skip
        refused = CounterMetricFamily(
            "mlops_refused", "Requests refused before a deployment saw them.", labels=["reason"]
        )
        for reason, count in sorted(self._total.refused.items()):
            refused.add_metric([reason], count)
        yield refused


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
    total, found = 0, list[tuple[str, float]]()
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        found.append((bound, total))
    return found
