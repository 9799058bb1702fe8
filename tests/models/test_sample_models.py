from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from upath import UPath

from mlops_assets.snapshots import take_snapshot
from mlops_assets.spec import METRICS, load_model
from resources.storage import StoredFile
from tests.training.requests import REPOSITORY, Case

MODELS = REPOSITORY / "mlops_assets" / "models"


@pytest.mark.parametrize("name", ["diabetes", "penguins"])
def test_a_sample_model_passes_its_own_gates(tmp_path: Path, name: str) -> None:
    spec = load_model(MODELS / name)
    assert (MODELS / name / "README.md").read_text().startswith(f"# {name}\n")
    files = sorted((REPOSITORY / "samples" / "data" / name).glob("*.csv"))
    stored = [StoredFile(UPath(path), path.stat().st_size) for path in files]
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "output").mkdir()
    shutil.copytree(MODELS / name, tmp_path / "source" / spec.folder)
    snapshot = take_snapshot(stored, spec.data, spec.task, tmp_path / "snapshot")
    request = {
        "mode": "train",
        "model": name,
        "spec": spec.model_dump(mode="json"),
        "source": str(tmp_path / "source"),
        "folder": spec.folder,
        "repository": str(REPOSITORY),
        "snapshot": str(snapshot.path),
        "output": str(tmp_path / "output"),
        "champion": None,
    }
    case = Case(tmp_path, request)
    process = case.process()
    assert process.wait(120) == 0, case.error
    metrics = case.evidence["metrics"]
    assert set(metrics) == set(METRICS[spec.task])
    for metric, gate in spec.gates.quality.items():
        end = "lower" if gate.minimum is not None else "upper"
        value = metrics[metric][end if gate.on == "pessimistic" else "value"]
        assert gate.minimum is None or value >= gate.minimum
        assert gate.maximum is None or value <= gate.maximum
    assert len(case.evidence["importance"]) == len(spec.features)
    parity = case.evidence["parity"]
    assert (parity["status"], parity["precision"]) == ("onnx", "double")
    assert parity["max_difference"] < 1e-6
    assert (case.output / "model.onnx").is_file()
