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
from tests.bench.serving.servers import Server, ours

WORKERS = (1, 2)


def main() -> None:
    options = _options()
    plan = plan_of(options)
    print(heading(plan), flush=True)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        released = release(folder, options.models)
        for model in options.models:
            servers: list[Server] = []
            for count in WORKERS:
                place = folder / f"{model}-{count}"
                place.mkdir()
                server = ours(released[model], place, plan.rows, count)
                name = f"{count} {'worker' if count == 1 else 'workers'}"
                servers.append(replace(server, name=name))
            measured = in_turn(servers, expected(released[model], plan.rows), folder, plan)
            print("\n" + report.tables(model, measured, plan, "1 worker / this"), flush=True)
            failures += report.failures(model, measured)
    report.fail_on(failures)


def _options() -> argparse.Namespace:
    parser = arguments("python -m tests.bench.serving.workers")
    parser.set_defaults(rows=[1, 100], connections=[64])
    return parser.parse_args()


if __name__ == "__main__":
    main()
