"""`make bench-capture`: what it costs an endpoint to keep all that it is asked and answers.

The same version behind two servers of one worker each, one that captures nothing and one that
captures every request, asked in turn. wrk, the worker and who writes the files share the CPUs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from mlops_assets.scoring.capture.settings import CaptureSettings
from tests.bench.serving import report
from tests.bench.serving.plan import arguments, heading, plan_of
from tests.bench.serving.releases import release
from tests.bench.serving.report import Measured
from tests.bench.serving.rounds import expected, in_turn
from tests.bench.serving.servers import ours

#: Of the requests per second, what capturing all of them may cost.
MOST = 0.05


def main() -> None:
    options = _options()
    plan = plan_of(options)
    print(heading(plan), flush=True)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        released = release(folder, options.models)
        for model in options.models:
            captured = folder / "captured" / model
            on = CaptureSettings(str(captured), rotate_seconds=options.rotate_seconds)
            servers = [
                replace(
                    ours(released[model], folder / label, plan.rows, capture=capture), name=label
                )
                for label, capture in (("capture off", None), ("capture 100 %", on))
                if not (folder / label).mkdir(exist_ok=True)
            ]
            measured = in_turn(servers, expected(released[model], plan.rows), folder, plan)
            print("\n" + report.tables(model, measured, plan, "off / this"), flush=True)
            for rows in plan.rows:
                for connections in plan.connections:
                    failures += _compare(model, measured, (rows, connections))
            _show_kept(measured[1], captured)
            failures += report.failures(model, measured)
    report.fail_on(failures)


def _compare(model: str, measured: list[Measured], key: tuple[int, int]) -> list[str]:
    """Round by round: a change of the machine's speed meets both."""
    off, on = (one.rounds[key] for one in measured)
    lost = [1 - b.rate / a.rate for a, b in zip(off, on, strict=True)]
    cpu = [1000 * (b.cpu - a.cpu) for a, b in zip(off, on, strict=True)]
    found = statistics.median(lost)
    print(
        f"{model}, {key[0]} rows, {key[1]} connections: {100 * found:+.1f} % fewer requests/s "
        f"(rounds {', '.join(f'{100 * x:+.1f}' for x in lost)}), "
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
    parser.set_defaults(models=["diabetes"], rows=[1], connections=[8, 64], rounds=15, seconds=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
