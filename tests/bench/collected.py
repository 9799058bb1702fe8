"""`make bench-collected`: time and memory of reading what Azure ML's data collector has kept.

``python -m tests.bench.collected [REQUESTS]``; a day of requests with one row of 10 columns is made
first, in a temporary folder.
"""

import sys
from pathlib import Path

import duckdb

from tests.bench.beside import compare

REQUESTS, HOURS, COLUMNS = 1_000_000, 24, 10
DEPLOYMENT = "v7-3ac66b21"


def make(folder: Path) -> str:
    """Files of each hour and side."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    row = ", ".join(f"c{i}: round(random(), 4)" for i in range(COLUMNS))
    data = {
        "request": f"{{data: [{{{row}}}]}}",
        "response": "{predictions: [round(random(), 5)]}",
    }
    each = requests // HOURS
    for hour in range(HOURS):
        for side, content in data.items():
            place = folder / DEPLOYMENT / side / f"2026/03/01/{hour:02d}"
            place.mkdir(parents=True)
            duckdb.sql(
                f"COPY (SELECT '1.0' AS specversion, '{side}' || range AS id, "
                f"'azureml.inference.{side}' AS type, 'application/json' AS datacontenttype, "
                f"strftime(TIMESTAMP '2026-03-01 {hour:02d}:00:00' + to_microseconds("
                f"range * 3600000000 // {each}), '%Y-%m-%dT%H:%M:%SZ') AS time, "
                f"{content} AS data, 'h{hour}-' || range AS correlationid, "
                f"'x{hour}-' || range AS xrequestid "
                f"FROM range({each})) TO '{place}/one.jsonl' (FORMAT json)"
            )
    size = sum(path.stat().st_size for path in folder.rglob("*.jsonl")) / 1e9
    return f"{each * HOURS:,} requests, {COLUMNS} columns, {size:.2f} GB"


def ours(folder: Path) -> None:
    """As rows of a captured file."""
    import pyarrow.parquet as pq

    from mlops_assets.scoring.schema import Feature, Schema
    from resources.azure.collected import read_collected

    features = tuple(Feature(f"c{i}", "float", True) for i in range(COLUMNS))
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl")]
    path = folder / "rows.parquet"
    schema = Schema("tiny", "regression", "y", features)
    assert read_collected(folder, names, DEPLOYMENT, schema, path) == 0
    assert pq.read_metadata(path).num_rows > 0


def pandas(folder: Path) -> None:
    """Both sides as frames, and joined; their data are still not rows."""
    import pandas as pd

    asked, answered = (
        pd.concat(
            pd.read_json(path, lines=True) for path in sorted(folder.rglob(f"{side}/**/*.jsonl"))
        )
        for side in ("request", "response")
    )
    asked.merge(answered, on="correlationid").to_parquet(folder / "joined.parquet")


if __name__ == "__main__":
    compare("tests.bench.collected", make, {"ours": ours, "pandas": pandas})
