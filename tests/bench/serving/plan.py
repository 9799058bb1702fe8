"""What is measured, and for how long: the options that both benchmarks of serving have."""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import dataclass

from tests.bench.serving.releases import MODELS


@dataclass(frozen=True)
class Plan:
    """Every server is asked for so many rows over so many connections."""

    rows: list[int]
    connections: list[int]
    rounds: int
    #: Of one measurement.
    seconds: int


def arguments(program: str) -> argparse.ArgumentParser:
    """The options that both have."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of one measurement")
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options ask for."""
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    return Plan(options.rows, options.connections, rounds, seconds)


def heading(plan: Plan) -> str:
    """Where and how it is measured."""
    return (
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}, one thread for OpenMP and "
        f"BLAS; medians of {plan.rounds} x {plan.seconds} s"
    )
