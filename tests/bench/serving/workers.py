"""`make bench-workers`: what a second worker of an endpoint brings, and what it holds in memory.

wrk runs on the same CPUs: on a machine with two of them a second worker has no CPU of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench.serving import report
from tests.bench.serving.plan import arguments, heading, plan_of
from tests.bench.serving.releases import release
from tests.bench.serving.rounds import expected, in_turn
from tests.bench.serving.servers import ours

WORKERS = (1, 2)


def main() -> None:
    options = _options()
    plan = plan_of(options)
    print(heading(plan), flush=True)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for released in release(folder, options.models):
            servers = []
            for count in WORKERS:
                place = folder / f"{released.name}-{count}"
                place.mkdir()
                server = ours(released, place, plan.rows, count)
                servers.append(replace(server, name=f"{count} of {server.name}"))
            measured = in_turn(servers, expected(released, plan.rows), folder, plan)
            print("\n" + report.tables(released.name, measured, plan, "1 / this"), flush=True)
            failures += report.failures(released.name, measured)
    report.fail_on(failures)


def _options() -> argparse.Namespace:
    parser = arguments("python -m tests.bench.serving.workers")
    parser.set_defaults(rows=[1, 100], connections=[64])
    return parser.parse_args()


if __name__ == "__main__":
    main()
