"""Servers side by side: checked, then measured in turn."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from mlops_assets.scoring.predictor import Predictor
from tests.bench.serving.load import Load, measure
from tests.bench.serving.plan import Plan
from tests.bench.serving.releases import Released
from tests.bench.serving.report import Measured
from tests.bench.serving.running import Running, started
from tests.bench.serving.servers import FLOOR, Server

WARM_UP_CONNECTIONS, WARM_UP_SECONDS = 8, 1
#: Servers that were started once: their files are in the disk's cache, their byte code is written.
_known: set[str] = set()


def expected(released: Released, rows: list[int]) -> dict[int, list[Any]]:
    """Number of rows -> what the estimator itself, as it was trained, predicts for them."""
    predictor = Predictor.load(released.version.bundle, released.version.digest, "pickle")
    return {n: predictor.predict(released.records[:n]).values for n in rows}


def in_turn(
    servers: list[Server], answers: dict[int, list[Any]], folder: Path, plan: Plan
) -> list[Measured]:
    """Start all servers, check their answers, and measure one at a time.

    Every other round is in the opposite order: a change of the machine's speed meets all of them.

    Args:
        servers: none of them running.
        answers: number of rows -> the right predictions.
        folder: for their logs.
        plan: what to measure.

    Raises:
        ServerError: one does not start, or its answers are wrong.
    """
    with contextlib.ExitStack() as stack:
        running = [_start(stack, server, folder, answers) for server in servers]
        measured = [Measured(one.server.name, one.first_answer) for one in running]
        pairs = list(zip(running, measured, strict=True))
        for number in range(plan.rounds):
            _round(pairs if number % 2 == 0 else pairs[::-1], plan)
            _say(f"round {number + 1} of {plan.rounds} done")
        for one, found in pairs:
            found.memory = one.memory()
    return measured


def _start(
    stack: contextlib.ExitStack, server: Server, folder: Path, answers: dict[int, list[Any]]
) -> Running:
    """Start a server, check its answers, and warm it up."""
    right = {n: [0.0] for n in answers} if server.name == FLOOR else answers
    least = min(right)
    if server.name not in _known:
        with started(server, folder, least, right[least]):
            _known.add(server.name)
    running = stack.enter_context(started(server, folder, least, right[least]))
    for rows, predictions in right.items():
        running.check(rows, predictions)
    _ask(running, least, WARM_UP_CONNECTIONS, WARM_UP_SECONDS)
    _say(f"{server.name}: first answer after {running.first_answer:.2f} s")
    return running


def _round(pairs: list[tuple[Running, Measured]], plan: Plan) -> None:
    for rows in plan.rows:
        for connections in plan.connections:
            for one, found in pairs:
                load = _ask(one, rows, connections, plan.seconds)
                found.rounds.setdefault((rows, connections), []).append(load)


def _ask(one: Running, rows: int, connections: int, seconds: int) -> Load:
    server = one.server
    return measure(
        server.url, server.bodies[rows], server.headers, connections, seconds, one.cpu_seconds
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
