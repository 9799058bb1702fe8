from __future__ import annotations

from pathlib import Path

from mlops_assets.files import digest_file
from mlops_assets.packaging.schema import describe
from tests.bundles import classifier, exported_classifier
from tests.packages import registered


def test_all_that_a_program_needs_to_ask_the_model(tmp_path: Path) -> None:
    version = registered(exported_classifier(tmp_path, ranges="warn"))
    assert describe(version) == {
        "model": "tiny",
        "version": 1,
        "digest": version.digest,
        "task": "multiclass",
        "target": "y",
        "labels": ["high", "low", "mid"],
        "probabilities": True,
        "ranges": "warn",
        "features": [
            {
                "name": "size",
                "type": "float",
                "nullable": False,
                "minimum": 0,
                "maximum": 100,
                "categories": None,
                "tensor": {"name": "size", "type": "float32", "shape": [None, 1], "missing": None},
            },
            {
                "name": "colour",
                "type": "string",
                "nullable": True,
                "minimum": None,
                "maximum": None,
                "categories": ["red", "blue"],
                "tensor": {"name": "colour", "type": "string", "shape": [None, 1], "missing": ""},
            },
        ],
        "onnx": {
            "sha256": digest_file(version.bundle / "model.onnx"),
            "ir_version": 8,
            "opsets": {"ai.onnx": 16, "ai.onnx.ml": 1},
            "outputs": [
                {
                    "name": "label",
                    "type": "string",
                    "shape": [None],
                    "values": ["high", "low", "mid"],
                },
                {"name": "probabilities", "type": "float32", "shape": [None, 3]},
            ],
        },
    }


def test_a_version_that_is_served_from_its_pickle_has_no_tensors(tmp_path: Path) -> None:
    version = registered(classifier(tmp_path))
    described = describe(version)
    assert described["onnx"] is None
    assert all("tensor" not in feature for feature in described["features"])
