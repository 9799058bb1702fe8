"""What moved is found, in the right columns, within one window of moderate size."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mlops_assets.evidence import Predictions
from mlops_assets.training.metrics import Judged
from tests.monitoring.windows import (
    captured,
    evidence,
    halves,
    look,
    model,
    moved,
    reference,
    replaced,
    sample,
    where,
    without,
)


@pytest.fixture
def penguins(tmp_path: Path):
    """The model, a reference of half of the rows, and the other half as requests hold it."""
    spec, table = sample("penguins")
    spec = spec.model_copy(
        update={"monitoring": spec.monitoring.model_copy(update={"minimum_rows": 50})}
    )
    then, now = halves(table, np.random.default_rng(11), 0.5)
    return spec, reference(tmp_path / "r", then), without(now, "species")


def test_one_column_in_another_unit(tmp_path: Path, penguins) -> None:
    spec, snapshot, now = penguins
    kilograms = pc.divide(now.column("body_mass_g"), 1000.0)
    window = captured(tmp_path / "w.parquet", replaced(now, "body_mass_g", kilograms))
    report = look(window, snapshot, spec)
    assert moved(report) == {"body_mass_g"}
    verdict = report.verdict("drift")
    assert verdict.status == "alarm"
    assert verdict.reason.startswith("body_mass_g: mean 4.")
    assert "of the rows do not meet the contract" in verdict.reason


def test_one_island_only(tmp_path: Path, penguins) -> None:
    spec, snapshot, now = penguins
    window = captured(tmp_path / "w.parquet", where(now, "island", "Biscoe"))
    report = look(window, snapshot, spec)
    # The penguins of one island are also of other measures.
    assert "island" in moved(report)
    assert "sex" not in moved(report)
    assert "island: 'Biscoe' in 100.0% of the rows, 5" in report.verdict("drift").reason


@pytest.mark.parametrize("top", [True, False])
def test_a_mean_that_doubles_in_one_tail(tmp_path: Path, top: bool) -> None:
    """A twentieth of the rows moves far out: a stability index of tenths hardly sees it."""
    random = np.random.default_rng(2)
    spec = model({"a": "{type: float}", "b": "{type: float}"})
    sign = 1 if top else -1

    def rows(n: int) -> dict[str, np.ndarray]:
        return {"a": sign * random.lognormal(0, 1, n), "b": random.normal(size=n)}

    then = rows(2000)
    now = rows(1000)
    low = np.abs(now["a"]) > np.quantile(np.abs(now["a"]), 0.95)
    now["a"][low] *= 1 + np.abs(now["a"]).sum() / np.abs(now["a"][low]).sum()
    snapshot = reference(tmp_path, {**then, "id": range(2000), "y": [1.0] * 2000})
    report = look(captured(tmp_path / "w.parquet", now), snapshot, spec)
    assert moved(report) == {"a"}
    (column, _) = report.columns
    assert column.psi is not None
    assert column.psi < 0.1
    assert column.mean_now is not None
    assert column.mean_then is not None
    assert 1.6 < column.mean_now / column.mean_then < 2.6


def test_a_new_category_is_named_with_its_rows(tmp_path: Path, penguins) -> None:
    spec, snapshot, now = penguins
    islands = now.column("island").to_pylist()
    islands[:20] = ["Anvers"] * 20
    report = look(
        captured(tmp_path / "w.parquet", replaced(now, "island", islands)), snapshot, spec
    )
    assert moved(report) == {"island"}
    island = next(c for c in report.columns if c.column == "island")
    assert [(v.value, v.rows) for v in island.new_values] == [("Anvers", 20)]
    assert "'Anvers' (20 rows)" in report.verdict("drift").reason


def test_a_burst_of_missing_values(tmp_path: Path, penguins) -> None:
    spec, snapshot, now = penguins
    values = now.column("flipper_length_mm").to_pylist()
    values[10:50] = [None] * 40
    window = captured(tmp_path / "w.parquet", replaced(now, "flipper_length_mm", values))
    report = look(window, snapshot, spec)
    assert moved(report) == {"flipper_length_mm"}
    assert "flipper_length_mm: missing in 2" in report.verdict("drift").reason


def test_columns_that_come_empty_in_all_rows_are_found(tmp_path: Path, penguins) -> None:
    """Rows without any value are alike, but no repetition of one another."""
    spec, snapshot, now = penguins
    empty = pa.table({f.name: pa.nulls(150, f.type) for f in now.schema})
    report = look(captured(tmp_path / "w.parquet", empty), snapshot, spec)
    assert {"island", "bill_length_mm", "body_mass_g", "sex"} <= moved(report)
    assert report.repeated == 0


def test_predictions_that_move_while_no_column_does(tmp_path: Path, penguins) -> None:
    spec, snapshot, now = penguins
    random = np.random.default_rng(4)
    labels = np.array(["Adelie", "Chinstrap", "Gentoo"])
    target = random.choice(labels, 100, p=[0.45, 0.2, 0.35])
    release = evidence(Judged("multiclass", target, target, None, labels))
    same = random.choice(labels, now.num_rows, p=[0.45, 0.2, 0.35])
    other = np.where(random.random(now.num_rows) < 0.6, "Chinstrap", same)
    path = tmp_path / "w.parquet"
    assert not moved(look(captured(path, now, same.tolist()), snapshot, spec, release))
    report = look(captured(path, now, other.tolist()), snapshot, spec, release)
    assert moved(report) == {"mlops_prediction"}
    assert "the prediction: 'Chinstrap' in 6" in report.verdict("drift").reason


def test_predictions_of_a_regression(tmp_path: Path) -> None:
    spec, table = sample("diabetes")
    then, now = halves(table, np.random.default_rng(1), 0.4)
    random = np.random.default_rng(0)
    held = random.normal(150, 50, 132)
    release = evidence(Judged("regression", held, held))
    snapshot, path = reference(tmp_path, then), tmp_path / "w.parquet"
    now = without(now, "progression")
    same, other = random.normal(150, 50, now.num_rows), random.normal(190, 50, now.num_rows)
    assert not moved(look(captured(path, now, same), snapshot, spec, release))
    assert moved(look(captured(path, now, other), snapshot, spec, release)) == {"mlops_prediction"}


def test_evidence_of_earlier_versions_says_so(tmp_path: Path, penguins) -> None:
    spec, snapshot, now = penguins
    report = look(captured(tmp_path / "w.parquet", now), snapshot, spec, None)
    assert report.prediction.outcome == "unknown"
    assert "before" in report.prediction.reason
    assert Predictions(rows=3, labels={"a": 3}).counts == []


def test_rows_of_requests_keep_enough_power(tmp_path: Path) -> None:
    """Rows of one request that are not alike count for nearly as much as single ones."""
    random = np.random.default_rng(8)
    spec = model({"a": "{type: float}"})
    then = {"a": random.normal(size=2000), "id": range(2000), "y": [1.0] * 2000}
    snapshot = reference(tmp_path, then)
    requests = np.repeat(np.arange(60), 10)
    window = captured(tmp_path / "w.parquet", {"a": random.normal(0.5, 1, 600)}, None, requests)
    report = look(window, snapshot, spec)
    assert moved(report) == {"a"}
    assert report.columns[0].effective_rows > 200


def test_few_requests_are_few_rows_unless_model_yaml_says_otherwise(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    then = {"a": random.normal(size=2000), "id": range(2000), "y": [1.0] * 2000}
    snapshot = reference(tmp_path, then)
    window = captured(tmp_path / "w.parquet", {"a": random.normal(2, 1, 600)}, None, [0] * 600)
    columns = {"a": "{type: float}"}
    verdict = look(window, snapshot, model(columns)).verdict("drift")
    assert verdict.status == "too_few_rows"
    assert "600 rows, in 1 requests" in verdict.reason
    batches = model(columns, "monitoring: {rows: independent}")
    assert moved(look(window, snapshot, batches)) == {"a"}
