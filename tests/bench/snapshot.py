"""`make bench-data`: time and memory of taking a snapshot of a large CSV file.

``python -m tests.bench.snapshot [GIGABYTES]``, 2 by default; the file is made first.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from upath import UPath

from mlops_assets.snapshots import take_snapshot
from mlops_assets.spec import Data
from resources.storage import StoredFile

NUMBERS = [f"x{i}" for i in range(8)]
CHUNK = 100_000


def write(path: Path, size: float) -> None:
    """Rows of a key, eight numbers, a text and a target, until the file has ``size`` bytes."""
    random = np.random.default_rng(0)
    start = 0
    with path.open("w") as file:
        file.write(",".join(["id", *NUMBERS, "name", "y"]) + "\n")
        while file.tell() < size:
            numbers = random.normal(size=(CHUNK, len(NUMBERS) + 1))
            names = random.integers(0, 5000, CHUNK)
            for offset, (row, name) in enumerate(zip(numbers.tolist(), names, strict=True)):
                values = ",".join(f"{value:.15g}" for value in row[:-1])
                file.write(f"{start + offset},{values},name-{name},{row[-1]:.15g}\n")
            start += CHUNK


def main(gigabytes: float) -> None:
    columns: dict[str, object] = {"id": {"type": "integer"}, "name": {"type": "string"}}
    columns |= {name: {"type": "float", "minimum": -100, "maximum": 100} for name in NUMBERS}
    columns["y"] = {"type": "float"}
    data = Data.model_validate(
        {"location": "big", "key": ["id"], "target": "y", "columns": columns}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.csv"
        write(path, gigabytes * 1e9)
        (Path(folder) / "out").mkdir()
        started = time.perf_counter()
        file = StoredFile(UPath(path), path.stat().st_size)
        taken = take_snapshot([file], data, "regression", Path(folder) / "out")
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{file.size / 1e9:.2f} GB, {taken.rows} rows: {seconds:.1f} s, at most {peak:.0f} MB")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
