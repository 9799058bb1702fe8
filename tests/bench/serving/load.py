"""Load on one server: wrk, and what it measured."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
#: Seconds after which wrk counts an answer as lost; its own two would count slow peers' as such.
PATIENCE = 20


class LoadError(Exception):
    """wrk did not measure; the message is its own."""


@dataclass(frozen=True)
class Load:
    """One measurement, or the medians of several."""

    #: Answered, in all of them.
    requests: int
    #: Requests answered per second.
    rate: float
    #: Milliseconds until the answer: half of the requests, and 99 in 100, had theirs sooner.
    p50: float
    p99: float
    #: Answers that were not 2xx, and errors of the sockets by kind.
    errors: dict[str, int]
    #: Milliseconds that the server's processes computed per request; what else runs on the machine
    #: moves it less than the other figures.
    cpu: float = math.nan


def measure(
    url: str,
    body: Path,
    headers: dict[str, str],
    connections: int,
    seconds: int,
    cpu: Callable[[], float],
) -> Load:
    """Send one request again and again over so many connections.

    Args:
        url: where to.
        body: the file to post.
        headers: beside what HTTP itself needs.
        connections: how many requests are under way at any time.
        seconds: for how long.
        cpu: seconds of CPU that the server has used so far.

    Raises:
        LoadError: wrk failed, or had no answer.
    """
    sent = [f"{name}: {value}" for name, value in headers.items()]
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", f"{PATIENCE}s", "--script", str(SCRIPT)]
    before = cpu()
    done = subprocess.run(
        [*command, url, "--", str(body), *sent], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise LoadError(f"wrk on {url}: {done.stderr or done.stdout}")
    load = parse(done.stdout)
    if not load.requests:
        raise LoadError(f"{url} answered nothing within {seconds} s, {load.errors}")
    return replace(load, cpu=1000 * (cpu() - before) / load.requests)


def parse(output: str) -> Load:
    """Read what wrk.lua printed as the last line; raises LoadError."""
    try:
        found = json.loads(output.strip().splitlines()[-1])
        errors = {name: count for name, count in found["errors"].items() if count}
        rate = 1e6 * found["requests"] / found["microseconds"]
        p50, p99 = found["p50"] / 1000, found["p99"] / 1000
        return Load(found["requests"], rate, p50, p99, errors)
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        raise LoadError(f"wrk printed no figures: {output[-2000:]}") from None


def median(loads: Sequence[Load]) -> Load:
    """The median of each figure; all requests and all errors together."""
    errors: dict[str, int] = {}
    for load in loads:
        for name, count in load.errors.items():
            errors[name] = errors.get(name, 0) + count
    return Load(
        sum(load.requests for load in loads),
        statistics.median(load.rate for load in loads),
        statistics.median(load.p50 for load in loads),
        statistics.median(load.p99 for load in loads),
        errors,
        statistics.median(load.cpu for load in loads),
    )
