"""Pictures of a report, as PNG: what moved, then and now, and performance over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.dates import ConciseDateFormatter, date2num

from mlops_assets.monitoring.performance import primary_of
from mlops_assets.monitoring.report import ColumnReport, LiveMetric, Report
from mlops_assets.scoring.capture.settings import PREDICTION
from mlops_assets.training.pictures import BLUE, GREY, new_axes

#: Columns that are drawn, and reports of a series: a picture stays below 100 kB.
COLUMNS = 12
REPORTS = 200
#: Letters of a bin's name.
LETTERS = 18


def draw(folder: Path, report: Report, earlier: Sequence[Report] = ()) -> list[Path]:
    """Write the pictures of a report.

    Args:
        folder: made if it is missing.
        report: the newest report.
        earlier: reports before it, in any order.

    Returns:
        the files: ``<number>-drift.png`` for each column that moved, the surest first, and
        ``performance.png`` where labels have been judged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    for number, column in enumerate(report.moved[:COLUMNS], start=1):
        # Numbered, since a column may have any name.
        path = folder / f"{number}-drift.png"
        _then_and_now(path, column)
        found.append(path)
    series = performance_series([*earlier, report])
    if series:
        path = folder / "performance.png"
        _over_time(path, series)
        found.append(path)
    return found


def performance_series(reports: Sequence[Report]) -> list[tuple[Report, LiveMetric]]:
    """Reports with a primary metric, oldest first, the last ones of many."""
    judged: list[tuple[Report, LiveMetric]] = []
    for report in sorted(reports, key=lambda r: r.time):
        metric = None if report.performance is None else primary_of(report.performance)
        if metric is not None:
            judged.append((report, metric))
    return judged[-REPORTS:]


def _then_and_now(path: Path, column: ColumnReport) -> None:
    title = "prediction" if column.column == PREDICTION else _short(column.column, 40)
    figure, axes = new_axes(f"{title}, then and now", "", "share of rows", (5.6, 3.4))
    places = np.arange(len(column.bars))
    axes.bar(places - 0.2, [bar.then for bar in column.bars], 0.4, color=GREY, label="then")
    axes.bar(places + 0.2, [bar.now for bar in column.bars], 0.4, color=BLUE, label="now")
    axes.set_xticks(places, [_short(b.name, LETTERS) for b in column.bars], rotation=40, ha="right")
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def _over_time(path: Path, series: Sequence[tuple[Report, LiveMetric]]) -> None:
    name = series[-1][1].metric
    shown = [(report, metric) for report, metric in series if metric.metric == name]
    figure, axes = new_axes("Performance since release", "", name, (5.6, 3.4))
    times = [date2num(report.time) for report, _ in shown]
    values = np.array([metric.live.value for _, metric in shown])
    lower = values - [metric.live.lower for _, metric in shown]
    upper = [metric.live.upper for _, metric in shown] - values
    # The bootstrap's interval may lie beside the value itself.
    error = np.maximum(0, [lower, upper])
    axes.errorbar(times, values, yerr=error, color=BLUE, marker="o", markersize=4, linewidth=1)
    release = [np.nan if m.release is None else m.release.value for _, m in shown]
    axes.step(times, release, color=GREY, linewidth=1, where="mid", label="at release")
    if len(shown) == 1:  # a step of one point cannot be seen
        axes.axhline(release[0], color=GREY, linewidth=1)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.xaxis_date()
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def _short(text: str, letters: int) -> str:
    # Control characters have no glyph.
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= letters else clean[: letters - 1] + "…"
