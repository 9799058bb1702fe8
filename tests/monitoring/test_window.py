"""Which captured rows are a window's."""

from pathlib import Path

import numpy as np

from mlops_assets.evidence import Evidence
from mlops_assets.monitoring.performance import Labelled
from mlops_assets.training.metrics import Judged
from tests.monitoring.windows import captured, evidence, look, model, reference

SPEC = model({"a": "{type: float}"}, "monitoring: {minimum_rows: 20}")


def _release() -> Evidence:
    y = np.arange(200.0)
    return evidence(Judged("regression", y, y))


def test_what_the_platform_itself_asks_is_not_judged(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    snapshot = reference(
        tmp_path, {"id": range(500), "a": random.normal(size=500), "y": np.arange(500.0) % 200}
    )
    rows = {"id": range(200), "a": random.normal(size=200)}
    asked = captured(tmp_path / "asked.parquet", rows, np.arange(200.0))
    # Rows that would be drift, another prediction for keys that have labels, and failures.
    own = captured(
        tmp_path / "own.parquet",
        {"id": range(200), "a": np.full(200, 9.0)},
        np.full(200, 1e6),
        own=True,
    )
    labels = tmp_path / "labels.csv"
    labels.write_text("id,y\n" + "".join(f"{n},{n}.0\n" for n in range(200)))
    alone, beside = (
        look(files, snapshot, SPEC, _release(), Labelled([labels], files))
        for files in ([asked], [asked, own])
    )
    assert beside == alone
    assert beside.service.requests == beside.rows == 200
    assert beside.verdict("drift").status == "ok"
    assert look([own], snapshot, SPEC).service.requests == 0
