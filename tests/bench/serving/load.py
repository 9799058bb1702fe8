"""Load on one server: wrk, and what it measured."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
#: Seconds after which wrk counts an answer as lost; its own two would count slow peers' as such.
PATIENCE = 20


class LoadError(Exception):
    """wrk did not measure; the message is its own."""


@dataclass(frozen=True)
class Load:
    """One measurement, or the median of several."""

    #: Requests answered per second.
    rate: float
    #: Milliseconds until the answer: half of the requests, and 99 in 100, had theirs sooner.
    p50: float
    p99: float
    #: Answers that were not 2xx, and errors of the sockets by kind.
    errors: dict[str, int]


def measure(url: str, body: Path, headers: dict[str, str], connections: int, seconds: int) -> Load:
    """Send one request again and again over so many connections.

    Raises:
        LoadError: wrk failed.
    """
    sent = [f"{name}: {value}" for name, value in headers.items()]
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", f"{PATIENCE}s", "--script", str(SCRIPT)]
    done = subprocess.run(
        [*command, url, "--", str(body), *sent], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise LoadError(f"wrk on {url}: {done.stderr or done.stdout}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Read what wrk.lua printed as the last line; raises LoadError."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
        errors = {name: count for name, count in found["errors"].items() if count}
        rate = 1e6 * found["requests"] / found["microseconds"]
        return Load(rate, found["p50"] / 1000, found["p99"] / 1000, errors)
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        raise LoadError(f"wrk printed no figures: {output[-2000:]}") from None


def median(loads: Sequence[Load]) -> Load:
    """The median of each figure; all errors together."""
    errors: dict[str, int] = {}
    for load in loads:
        for name, count in load.errors.items():
            errors[name] = errors.get(name, 0) + count
    return Load(
        statistics.median(load.rate for load in loads),
        statistics.median(load.p50 for load in loads),
        statistics.median(load.p99 for load in loads),
        errors,
    )
