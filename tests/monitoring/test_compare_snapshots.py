from pathlib import Path

import numpy as np

from mlops_assets.monitoring.monitor import compare_snapshots
from tests.monitoring.windows import model, reference

RANDOM = np.random.default_rng(0)
SPEC = model(
    {
        "x": "{type: float}",
        "missing": "{type: float, nullable: true}",
        "count": "{type: integer}",
        "seen": "{type: timestamp}",
        "district": "{type: string, nullable: true}",
        "not_there": "{type: float}",
    }
)


def table(folder: Path, n: int, shift: float = 0.0, north: float = 0.5) -> Path:
    names = np.where(RANDOM.random(n) < north, "north", "south").tolist()
    names[0] = None
    values = RANDOM.normal(shift, 1, n)
    columns = {
        "x": values,
        "missing": np.where(RANDOM.random(n) < 0.1, np.nan, values),
        "count": RANDOM.poisson(3, n),
        "seen": np.datetime64("2024-01-01", "us") + RANDOM.integers(0, 10**12, n),
        "district": names,
        "y": RANDOM.normal(size=n),
    }
    return reference(folder, columns)


def moved(then: Path, now: Path) -> set[str]:
    return {column.column for column in compare_snapshots(then, now, SPEC) if column.moved}


def test_the_columns_that_moved_are_found(tmp_path: Path) -> None:
    then = table(tmp_path / "then", 600)
    assert moved(then, table(tmp_path / "same", 600)) == set()
    assert moved(then, table(tmp_path / "shifted", 600, shift=1.0)) == {"x", "missing"}
    assert moved(then, table(tmp_path / "fewer", 600, north=0.2)) == {"district"}


def test_a_change_too_small_to_matter_is_none(tmp_path: Path) -> None:
    then = table(tmp_path / "then", 200_000)
    assert moved(then, table(tmp_path / "now", 200_000, shift=0.03)) == set()
