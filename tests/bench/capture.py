"""`make bench-capture`: what it costs an endpoint to keep all that it is asked and answers.

The same version behind two servers of one worker each, one that captures nothing and one that
captures every request, asked in turn. wrk, the worker and who writes the files share the CPUs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from mlops_assets.scoring.capture.settings import CaptureSettings
from tests.bench.serving import report
from tests.bench.serving.plan import Plan, arguments, heading, plan_of
from tests.bench.serving.releases import Released, release
from tests.bench.serving.report import Measured
from tests.bench.serving.rounds import expected, in_turn
from tests.bench.serving.servers import Server, ours

#: Of the requests per second, what capturing all of them may cost.
MOST = 0.05


def main() -> None:
    options = _options()
    plan = plan_of(options)
    print(f"{heading(plan)}, of each of {options.starts} starts", flush=True)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        released = release(folder, options.models)
        for model in options.models:
            captured = folder / "captured" / model
            settings = CaptureSettings(str(captured), rotate_seconds=options.rotate_seconds)
            measured = _measured(released[model], settings, folder, plan, options.starts)
            print("\n" + report.tables(model, measured, plan, "off / this"), flush=True)
            for rows in plan.rows:
                for connections in plan.connections:
                    failures += _compare(model, measured, (rows, connections))
            _show_kept(measured[1], captured)
            failures += report.failures(model, measured)
    report.fail_on(failures)


def _measured(
    released: Released, settings: CaptureSettings, folder: Path, plan: Plan, starts: int
) -> list[Measured]:
    """Without and with capture, the rounds of all starts together.

    Of two servers that are the same one is up to two hundredths quicker than the other for as
    long as both run, by where their memory happens to lie; hence more than one start of each.
    """
    answers = expected(released, plan.rows)

    def servers(start: int) -> Iterable[Server]:
        for label, capture in (("capture off", None), ("capture 100 %", settings)):
            own = folder / f"{label} {start}"
            own.mkdir(exist_ok=True)
            yield replace(ours(released, own, plan.rows, capture=capture), name=label)

    first, *others = (in_turn([*servers(n)], answers, folder, plan) for n in range(starts))
    for other in others:
        for one, more in zip(first, other, strict=True):
            for key, loads in more.rounds.items():
                one.rounds[key] += loads
    return first


def _compare(model: str, measured: list[Measured], key: tuple[int, int]) -> list[str]:
    """Round by round: a change of the machine's speed meets both."""
    off, on = (one.rounds[key] for one in measured)
    lost = [1 - b.rate / a.rate for a, b in zip(off, on, strict=True)]
    cpu = [1000 * (b.cpu - a.cpu) for a, b in zip(off, on, strict=True)]
    found = statistics.median(lost)
    quarters = statistics.quantiles(lost, n=4) if len(lost) > 1 else lost * 3
    print(
        f"{model}, {key[0]} rows, {key[1]} connections: {100 * found:+.1f} % fewer requests/s "
        f"(median of {len(lost)} rounds; half of them from {100 * quarters[0]:+.1f} to "
        f"{100 * quarters[2]:+.1f}), "
        f"{statistics.median(cpu):+.1f} microseconds of CPU per request in all processes"
    )
    return [f"{model}, {key}: capture costs {100 * found:.1f} %"] if found > MOST else []


def _show_kept(on: Measured, captured: Path) -> None:
    answered = sum(load.requests for loads in on.rounds.values() for load in loads)
    files = [*captured.rglob("*.parquet")]
    kept = sum(pq.read_metadata(path).num_rows for path in files)
    size = sum(path.stat().st_size for path in files)
    print(
        f"{kept} rows kept, {answered} requests answered while measured; "
        f"{size / max(kept, 1):.0f} bytes of Parquet per row"
    )


def _options() -> argparse.Namespace:
    parser = arguments("python -m tests.bench.capture")
    parser.add_argument("--rotate-seconds", type=float, default=5.0)
    parser.add_argument("--starts", type=int, default=4, help="of each server")
    parser.set_defaults(models=["diabetes"], rows=[1], connections=[8, 64], rounds=24, seconds=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
