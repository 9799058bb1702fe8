from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlops_assets.drift import drift

RANDOM = np.random.default_rng(0)


def table(path: Path, n: int, shift: float = 0.0, north: float = 0.5) -> Path:
    names = np.where(RANDOM.random(n) < north, "north", "south").tolist()
    names[0] = None
    values = RANDOM.normal(shift, 1, n)
    columns = {
        "x": values,
        "missing": np.where(RANDOM.random(n) < 0.1, np.nan, values),
        "count": RANDOM.poisson(3, n),
        "seen": np.datetime64("2024-01-01", "us") + RANDOM.integers(0, 10**12, n),
        "district": names,
    }
    pq.write_table(pa.table(columns), path)
    return path


def moved(reference: Path, current: Path) -> set[str]:
    columns = ["x", "missing", "count", "seen", "district", "not there"]
    return {column.column for column in drift(reference, current, columns) if column.moved}


@pytest.mark.parametrize("rows", [120, 2000])
def test_samples_of_one_distribution_raise_few_alarms(tmp_path: Path, rows: int) -> None:
    reference = table(tmp_path / "reference.parquet", rows)
    alarms = sum(bool(moved(reference, table(tmp_path / "c.parquet", rows))) for _ in range(100))
    # Stated: one in a hundred; the probability of more than six is 0.01 %.
    assert alarms <= 6


def test_the_columns_that_moved_are_found(tmp_path: Path) -> None:
    reference = table(tmp_path / "reference.parquet", 600)
    shifted = table(tmp_path / "shifted.parquet", 600, shift=1.0)
    fewer = table(tmp_path / "fewer.parquet", 600, north=0.2)
    assert moved(reference, shifted) == {"x", "missing"}
    assert moved(reference, fewer) == {"district"}


def test_a_change_too_small_to_matter_is_none(tmp_path: Path) -> None:
    reference = table(tmp_path / "reference.parquet", 200_000)
    assert moved(reference, table(tmp_path / "c.parquet", 200_000, shift=0.03)) == set()
