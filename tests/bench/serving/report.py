"""What was measured, as tables for people and as JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.serving.load import Load, median
from tests.bench.serving.plan import Plan
from tests.bench.serving.running import Memory

NAME, WIDTH, HEAD = 26, 7, 17


@dataclass
class Measured:
    """One server with one model."""

    name: str
    #: Seconds from the start of its process to its first right answer.
    first_answer: float
    #: (rows, connections) -> one load per round.
    rounds: dict[tuple[int, int], list[Load]] = field(default_factory=dict)
    #: After all rounds.
    memory: Memory | None = None

    def load(self, rows: int, connections: int) -> Load:
        """The median of the rounds."""
        return median(self.rounds[rows, connections])

    def cpu(self, rows: int) -> float:
        """Milliseconds of CPU per request, whatever the number of connections."""
        found = [load for key, loads in self.rounds.items() if key[0] == rows for load in loads]
        return median(found).cpu


def failures(model: str, servers: list[Measured]) -> list[str]:
    """Every measurement in which something else than right answers came."""
    return [
        f"{model}, {server.name}, {rows} rows, {connections} connections: {found}"
        for server in servers
        for rows, connections in server.rounds
        if (found := server.load(rows, connections).errors)
    ]


def fail_on(failures: list[str]) -> None:
    """End the program if there are any."""
    if failures:
        sys.exit("not as it should be:\n" + "\n".join(failures))


def tables(model: str, servers: list[Measured], plan: Plan, ratio: str) -> str:
    """One table per number of rows, and one of the processes.

    Args:
        model: its name.
        servers: the first one is what the others are compared with.
        plan: what was measured.
        ratio: what to call the first one's requests/s divided by another's.
    """
    parts = [_loads(model, servers, rows, plan.connections, ratio) for rows in plan.rows]
    return "\n\n".join([*parts, _processes(model, servers, plan.rows)])


def ratios(servers: list[Measured], one: str, other: str, plan: Plan) -> str:
    """Requests/s of one server divided by another's, a line per number of rows."""
    named = {server.name: server for server in servers}
    lines: list[str] = []
    for rows in plan.rows:
        found = [
            f"{named[one].load(rows, c).rate / named[other].load(rows, c).rate:.2f} at {c}"
            for c in plan.connections
        ]
        lines.append(f"{one} / {other}, rows {rows}, by connections: {', '.join(found)}")
    return "\n".join(lines)


def _loads(
    model: str, servers: list[Measured], rows: int, connections: list[int], ratio: str
) -> str:
    first = servers[0]
    columns: list[tuple[str, Callable[[Measured, int], str]]] = [
        ("requests/s", lambda s, c: f"{s.load(rows, c).rate:.0f}"),
        ("p50, ms", lambda s, c: _short(s.load(rows, c).p50)),
        ("p99, ms", lambda s, c: _short(s.load(rows, c).p99)),
        (ratio, lambda s, c: _short(first.load(rows, c).rate / s.load(rows, c).rate)),
    ]
    width = max(WIDTH, HEAD // len(connections))
    wide = width * len(connections)
    title = f"{model}, {rows} {'row' if rows == 1 else 'rows'}"
    heads = "".join(f"{head:>{wide}}" for head, _ in columns)
    numbers = "".join(f"{count:{width}}" for count in connections) * len(columns)
    lines = [f"{title:{NAME}}{heads}", f"{'connections':{NAME}}{numbers}"]
    for server in servers:
        cells = (f"{show(server, c):>{width}}" for _, show in columns for c in connections)
        lines.append(f"{server.name:{NAME}}{''.join(cells)}")
    return "\n".join(lines)


def _processes(model: str, servers: list[Measured], rows: list[int]) -> str:
    lines = [
        f"{model + ', processes':{NAME}}{'first answer, s':>16}{'worker RSS, MB':>16}"
        f"{'USS, MB':>10}{'all, USS, MB':>14}"
        + "".join(f"{f'CPU ms, rows {count}':>18}" for count in rows)
    ]
    for server in servers:
        assert server.memory is not None
        m = server.memory
        lines.append(
            f"{server.name:{NAME}}{server.first_answer:16.2f}{m.rss:16.0f}{m.uss:10.0f}"
            f"{m.all_uss:14.0f}" + "".join(f"{server.cpu(count):18.3f}" for count in rows)
        )
    return "\n".join(lines)


def _short(number: float) -> str:
    return f"{number:.{2 if number < 10 else 1 if number < 100 else 0}f}"


def as_json(model: str, servers: list[Measured]) -> list[dict[str, Any]]:
    """One object per server: medians, and each round by itself."""
    return [
        {
            "model": model,
            "server": server.name,
            "first_answer_seconds": server.first_answer,
            "memory_megabytes": asdict(server.memory) if server.memory else None,
            "loads": [
                {
                    "rows": rows,
                    "connections": connections,
                    **asdict(median(loads)),
                    "rounds": [asdict(load) for load in loads],
                }
                for (rows, connections), loads in server.rounds.items()
            ],
        }
        for server in servers
    ]
