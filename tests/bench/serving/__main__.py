"""`make bench-serving`: this server beside what others serve the same model with.

One machine, one worker each, one thread for OpenMP and BLAS, wrk on 127.0.0.1. Ours has
everything on: it checks keys and every value against the contract, counts, gives each request an
id, and answers a classifier's probabilities too; the others do what their users have, and answer
predictions alone. All give the same predictions for the same rows, or nothing is measured. In
each round every server is measured in turn, in alternating order, so that a change of the
machine's speed meets all of them; the medians of the rounds are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.serving import report
from tests.bench.serving.plan import arguments, heading, plan_of
from tests.bench.serving.releases import PICKLED, release
from tests.bench.serving.rounds import expected, in_turn
from tests.bench.serving.servers import FASTAPI, PEERS, REQUIREMENTS, line_up


def main() -> None:
    options = _options()
    plan = plan_of(options)
    begin = time.perf_counter()
    print(f"{heading(plan)}; one worker each\n{_versions()}", flush=True)
    found: list[dict[str, Any]] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        released = release(folder, options.models)
        for model in options.models:
            place = folder / model
            place.mkdir()
            versions = [released[name] for name in (model, PICKLED.get(model)) if name]
            servers = line_up(versions, place, plan.rows)
            measured = in_turn(servers, expected(released[model], plan.rows), place, plan)
            print("\n" + report.tables(model, measured, plan, "ours / this"), flush=True)
            if len(versions) > 1:
                pickled = servers[1].name
                print("\n" + report.ratios(measured, pickled, FASTAPI, plan), flush=True)
            found += report.as_json(model, measured)
            failures += report.failures(model, measured)
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    report.fail_on(failures)


def _versions() -> str:
    lines = [
        line for peer in PEERS for line in (REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
    ]
    pins = dict(line.split("==") for line in lines if line.count("==") == 1)
    named = ("azureml-inference-server-http", "mlflow", "fastapi", "uvicorn", "scikit-learn")
    return ", ".join(f"{name} {pins[name]}" for name in named)


def _options() -> argparse.Namespace:
    parser = arguments("python -m tests.bench.serving")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 100])
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


if __name__ == "__main__":
    main()
