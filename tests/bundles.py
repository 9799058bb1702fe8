"""Small bundles, as a registry would keep them."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlops_assets.files import digest_bytes, digest_file, to_json
from mlops_assets.scoring.frame import to_frame
from mlops_assets.scoring.schema import Feature
from resources.endpoints.base import VersionRef
from tests.onnx_models import total

# What is defined here goes into the pickles by value, as a model's own classes do.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NUMBERS = (
    Feature("a", "float", nullable=False, minimum=-10, maximum=10),
    Feature("b", "integer", nullable=False, minimum=0, maximum=10),
)
MIXED = (
    Feature("size", "float", nullable=False, minimum=0, maximum=100),
    Feature("colour", "string", nullable=True, categories=("red", "blue")),
)


def write_bundle(
    folder: Path,
    estimator: Any,
    features: Sequence[Feature],
    records: list[dict[str, Any]],
    *,
    labels: list[Any] | None = None,
) -> str:
    """Write a whole bundle of a fitted estimator; returns its digest."""
    folder.mkdir(parents=True)
    frame = to_frame({f.name: [r[f.name] for r in records] for f in features}, features)
    sample = {
        "input": records,
        "output": np.asarray(estimator.predict(frame)).tolist(),
        "probabilities": estimator.predict_proba(frame).tolist() if labels else None,
    }
    (folder / "model.pkl").write_bytes(cloudpickle.dumps(estimator, protocol=5))
    (folder / "sample.json").write_text(json.dumps(sample))
    return write_manifest(folder, features, labels)


def write_manifest(
    folder: Path,
    features: Sequence[Feature],
    labels: list[Any] | None,
    ranges: str = "ignore",
    edges: Sequence[float] | None = None,
    keys: Sequence[Feature] = (),
) -> str:
    """Write the manifest of the files that lie in a folder; returns its digest."""
    exported = (folder / "model.onnx").is_file()
    files = {p.name: digest_file(p) for p in folder.iterdir() if p.name != "manifest.json"}
    manifest = to_json(
        {
            "format": 1,
            "model": "tiny",
            "task": "multiclass" if labels else "regression",
            "target": "y",
            "features": [feature.to_dict() for feature in features],
            "keys": [key.to_dict() for key in keys],
            "labels": labels,
            "predictions": edges,
            "serving": {
                "format": "onnx" if exported else "pickle",
                "reason": "",
                "ranges": ranges,
            },
            "files": files,
        }
    )
    (folder / "manifest.json").write_text(manifest)
    return digest_bytes(manifest.encode())


def regression(root: Path, version: int) -> VersionRef:
    """Version n predicts a + b + 1000 n, so that an answer tells who gave it."""
    records = [{"a": float(i), "b": i % 7} for i in range(20)]
    bundle = root / f"v{version}"
    digest = write_bundle(bundle, Sum(1000.0 * version), NUMBERS, records[:5])
    return VersionRef("tiny", version, digest, bundle)


def exported(root: Path, version: int) -> VersionRef:
    """Version n predicts a + b + 1000 n from ONNX; it has its pickle too."""
    found = regression(root, version)
    (found.bundle / "model.onnx").write_bytes(total(NUMBERS, 1000.0 * version))
    digest = write_manifest(found.bundle, NUMBERS, None)
    return VersionRef("tiny", version, digest, found.bundle)


KEYS = (Feature("patient", "integer", nullable=True), Feature("visit", "string", nullable=True))


def keyed(root: Path, version: int) -> VersionRef:
    """As ``exported``; a request may have KEYS."""
    found = exported(root, version)
    digest = write_manifest(found.bundle, NUMBERS, None, keys=KEYS)
    return VersionRef("tiny", version, digest, found.bundle)


def constant(root: Path, version: int) -> VersionRef:
    """Version n always predicts 1000 n + 3, and quickly: for tests of what is around a model."""
    records = [{"a": 1.0, "b": 2}]
    bundle = root / f"constant{version}"
    digest = write_bundle(bundle, Constant(1000.0 * version + 3), NUMBERS, records)
    return VersionRef("tiny", version, digest, bundle)


def classifier(root: Path, version: int = 1) -> VersionRef:
    """A text column with missing values, three labels."""
    records = [
        {"size": float(i), "colour": ("red", "blue", None)[i % 3]} for i in range(60)
    ]  # fmt: skip
    labels = ["high" if i > 40 else "low" if i < 20 else "mid" for i in range(60)]
    frame = to_frame({n: [r[n] for r in records] for n in ("size", "colour")}, MIXED)
    steps = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour"]), remainder="passthrough"
    )
    estimator = make_pipeline(steps, LogisticRegression(max_iter=2000)).fit(frame, labels)
    bundle = root / f"classifier{version}"
    names = [str(name) for name in estimator.classes_]
    digest = write_bundle(bundle, estimator, MIXED, records[:5], labels=names)
    return VersionRef("tiny", version, digest, bundle)


def exported_classifier(root: Path, ranges: str = "ignore") -> VersionRef:
    """The classifier, served from ONNX."""
    from mlops_assets.training.onnx_export import convert

    made = classifier(root)
    estimator = pickle.loads((made.bundle / "model.pkl").read_bytes())
    model = convert(estimator, MIXED, classifies=True, precision="float")
    (made.bundle / "model.onnx").write_bytes(model)
    labels = [str(name) for name in estimator.classes_]
    digest = write_manifest(made.bundle, MIXED, labels, ranges)
    return VersionRef("tiny", 1, digest, made.bundle)


class Sum:
    """Predicts a + b + an offset. Without scikit-learn a server starts three times as fast."""

    def __init__(self, offset: float) -> None:
        self.offset = offset

    def predict(self, frame: Any) -> Any:
        """n x (a, b) -> n floats."""
        return frame["a"].to_numpy() + frame["b"].to_numpy() + self.offset


class Constant(Sum):
    """Predicts the offset."""

    def predict(self, frame: Any) -> Any:
        """n rows -> n floats."""
        return np.full(len(frame), self.offset)


class Wordy(Constant):
    """A classifier of one label, which is long."""

    def predict(self, frame: Any) -> Any:
        """n rows -> n times the label."""
        return np.full(len(frame), LONG)

    def predict_proba(self, frame: Any) -> Any:
        """n rows -> n x 1 ones."""
        return np.ones((len(frame), 1))


LONG = "y" * 60


def wordy(root: Path, version: int) -> VersionRef:
    """A version whose answer to 50,000 rows, 6.5 MB, no system's buffers take."""
    bundle = root / f"wordy{version}"
    digest = write_bundle(bundle, Wordy(0), NUMBERS, [{"a": 1.0, "b": 2}], labels=[LONG])
    return VersionRef("tiny", version, digest, bundle)


WIDE = (
    Feature("size", "float", nullable=False, minimum=0, maximum=100),
    Feature("rooms", "integer", nullable=True, minimum=1, maximum=9),
    Feature("new", "boolean", nullable=False),
    Feature("colour", "string", nullable=True, categories=("red", "blue")),
    Feature("seen", "timestamp", nullable=True),
)


class Halves(Constant):
    """A classifier of two labels."""

    def predict(self, frame: Any) -> Any:
        """Whether the size is above 50."""
        return frame["size"].to_numpy() > 50

    def predict_proba(self, frame: Any) -> Any:
        """Certain of it."""
        above = self.predict(frame)
        return np.column_stack([~above, above]).astype(float)


def wide(root: Path, version: int) -> VersionRef:
    """A column of every type, labels that are no texts; what its contract forbids is refused."""
    record = {"size": 1.5, "rooms": None, "new": True, "colour": "red", "seen": None}
    bundle = root / f"wide{version}"
    write_bundle(bundle, Halves(0), WIDE, [record], labels=[False, True])
    return VersionRef(
        "tiny", version, write_manifest(bundle, WIDE, [False, True], "refuse"), bundle
    )


class Broken:
    """An estimator that answers only as long as nothing special is asked."""

    def predict(self, frame: Any) -> Any:
        """Zeros; raises for a == 7 and is NaN for a == 8."""
        values = frame["a"].to_numpy()
        if (values == 7).any():
            raise RuntimeError(f"secret detail {values.tolist()}")
        return np.where(values == 8, np.nan, 0.0)


class Tried(Sum):
    """Predicts a + an offset, after a while; raises where b is too great for it."""

    def __init__(self, offset: float, seconds: float, greatest: float) -> None:
        super().__init__(offset)
        self.seconds = seconds
        self.greatest = greatest

    def predict(self, frame: Any) -> Any:
        """n x (a, b) -> n floats."""
        time.sleep(self.seconds)
        if (frame["b"] > self.greatest).any():
            raise RuntimeError("b is too great")
        return frame["a"].to_numpy() + self.offset


def tried(
    root: Path, version: int, *, offset: float = 0.0, seconds: float = 0.0, greatest: float = 10.0
) -> VersionRef:
    """A version to compare with another one: what it predicts, how fast, and where it fails.

    Each counts its predictions by edges of its own, as a version trained on other data does.
    """
    bundle = root / f"tried{version}"
    estimator = Tried(offset, seconds, greatest)
    write_bundle(bundle, estimator, NUMBERS, [{"a": 1.0, "b": 1}])
    edges = [offset + 2.0 * step - 8.0 + version / 8 for step in range(9)]
    digest = write_manifest(bundle, NUMBERS, None, edges=edges)
    return VersionRef("tiny", version, digest, bundle)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        """Unpickling calls this."""
        return (os._exit, (9,))


def deadly(root: Path, version: int) -> VersionRef:
    """A version that kills whoever loads it; nobody can have tried it before."""
    bundle = regression(root, version).bundle
    (bundle / "model.pkl").write_bytes(cloudpickle.dumps(Deadly()))
    return VersionRef("tiny", version, write_manifest(bundle, NUMBERS, None), bundle)


def broken(root: Path, version: int = 1) -> VersionRef:
    """A version whose model fails on values inside its contract."""
    bundle = root / f"broken{version}"
    digest = write_bundle(bundle, Broken(), NUMBERS, [{"a": 1.0, "b": 1}])
    return VersionRef("tiny", version, digest, bundle)
