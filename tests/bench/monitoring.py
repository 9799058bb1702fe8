"""`make bench-monitoring`: time and memory of judging a window of 10 million captured rows.

``python -m tests.bench.monitoring [ROWS]``; the rows are made first, in a temporary folder.
"""

import sys
from pathlib import Path

import duckdb

from tests.bench.beside import compare

ROWS, FILES, REFERENCE = 10_000_000, 40, 1_000_000
NUMBERS, WHOLE, NAMES, FLAGS = 20, 3, 6, 1
#: Rows of one request.
TOGETHER = 4

_COLUMNS = {
    **{f"x{i}": "{type: float, minimum: -1000, maximum: 1000}" for i in range(NUMBERS)},
    **{f"k{i}": "{type: integer}" for i in range(WHOLE)},
    **{f"t{i}": "{type: string, nullable: true}" for i in range(NAMES)},
    **{f"b{i}": "{type: boolean}" for i in range(FLAGS)},
}


def make(folder: Path, rows: int) -> None:
    """A snapshot of a million rows, and captured files, some values missing in each column."""
    values = [
        *(f"sqrt(-2 * ln(random())) * cos(6.283 * random()) + {i} AS x{i}" for i in range(NUMBERS)),
        *(f"CAST(random() * random() * 1000 AS BIGINT) AS k{i}" for i in range(WHOLE)),
        *(
            f"CASE WHEN random() < 0.02 THEN NULL ELSE "
            f"'name-' || CAST(random() * {5 * 4**i} AS INT) END AS t{i}"
            for i in range(NAMES)
        ),
        *(f"random() < 0.3 AS b{i}" for i in range(FLAGS)),
    ]
    columns = ", ".join(values)
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as database:
        database.execute(
            f"COPY (SELECT range AS id, random() AS y, {columns} FROM range({REFERENCE})) "
            f"TO '{folder}/data.parquet' (COMPRESSION zstd)"
        )
        each = rows // FILES
        for file in range(FILES):
            database.execute(
                "COPY (SELECT CAST(now() AS TIMESTAMPTZ) AS mlops_time, "
                f"'{file}-' || (range // {TOGETHER}) AS mlops_request, "
                f"CAST(range % {TOGETHER} AS INT) AS mlops_row, 'blue' AS mlops_deployment, "
                "CAST(1 AS INT) AS mlops_version, CAST(200 AS SMALLINT) AS mlops_status, "
                f"random() / 100 AS mlops_seconds, random() AS mlops_prediction, {columns} "
                f"FROM range({each})) TO '{folder}/window-{file}.parquet' (COMPRESSION zstd)"
            )


def ours(folder: Path) -> None:
    """The report of the platform."""
    import datetime as dt

    from mlops_assets.monitoring.monitor import Span, monitor
    from tests.monitoring.windows import model

    files = sorted(folder.glob("window-*.parquet"))
    span = Span(files, dt.datetime.now(dt.UTC), version=1)
    report = monitor(span, folder / "data.parquet", model(_COLUMNS), None)
    assert report.verdict("drift").status == "ok", report.verdict("drift").reason
    assert len([c for c in report.columns if c.outcome == "same"]) == len(_COLUMNS)


def pandas(folder: Path) -> None:
    """The least that a reading with pandas does: all rows in memory, a stability index each."""
    import numpy as np
    import pandas as pd

    before = pd.read_parquet(folder / "data.parquet")
    after = pd.read_parquet(sorted(folder.glob("window-*.parquet")))
    for name in _COLUMNS:
        if name[0] in "xk":
            edges = np.unique(before[name].quantile(np.linspace(0.1, 0.9, 9)))
            p, q = (np.bincount(np.searchsorted(edges, f[name])) / len(f) for f in (before, after))
        else:
            p, q = (f[name].value_counts(normalize=True, dropna=False) for f in (before, after))
            p, q = p.align(q, fill_value=0)
        np.nansum((p - q) * np.log(p / q))


def filled(folder: Path) -> str:
    """Make the rows."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    make(folder, rows)
    size = sum(file.stat().st_size for file in folder.glob("window-*")) / 1e9
    return f"{rows:,} captured rows, {len(_COLUMNS)} columns, {size:.2f} GB"


if __name__ == "__main__":
    compare("tests.bench.monitoring", filled, {"ours": ours, "pandas": pandas})
