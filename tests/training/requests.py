"""Requests for the training process, as the platform writes them, and their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mlops_assets.files import digest_bytes, digest_file, read_json, to_json
from mlops_assets.spec import parse_model
from tests.repository import MODEL_YAML, TRAIN_PY, rows

REPOSITORY = Path(__file__).parents[2]
FOLDER = "mlops_assets/models/rent"

#: Two classes, text and missing values.
CLASSIFIER_YAML = MODEL_YAML.replace("task: regression", "task: binary").replace(
    "rent: {type: float}", "rent: {type: string, categories: [dear, cheap]}"
).replace("quality: {r2: {minimum: 0.5}}", "quality: {accuracy: {minimum: 0.5}}").replace(
    "metric: r2", "metric: accuracy"
)  # fmt: skip
CLASSIFIER_PY = TRAIN_PY.replace('Ridge(alpha=params["alpha"])', "LogisticRegression()").replace(
    "import Ridge", "import LogisticRegression"
)


def flats(count: int = 120) -> pa.Table:
    """The rent of flats, nulls for missing districts."""
    text = pa.py_buffer(rows(count).encode())
    options = pa_csv.ConvertOptions(strings_can_be_null=True)
    return pa_csv.read_csv(text, convert_options=options)


def dear_or_cheap(count: int = 120) -> pa.Table:
    """The same with a label for the rent."""
    table = flats(count)
    middle = sorted(table["rent"].to_pylist())[count // 2]
    labels = ["dear" if value > middle else "cheap" for value in table["rent"].to_pylist()]
    return with_target(table, labels)


def with_target(table: pa.Table, values: list[Any]) -> pa.Table:
    """Another target column."""
    return table.set_column(table.schema.get_field_index("rent"), "rent", pa.array(values))


@dataclass(frozen=True)
class Case:
    """One request, in a folder of its own."""

    folder: Path
    request: dict[str, Any]

    @property
    def output(self) -> Path:
        """Where the training process writes."""
        return self.folder / "output"

    @property
    def error(self) -> dict[str, Any]:
        """What went wrong."""
        return read_json(self.output / "error.json")

    @property
    def evidence(self) -> dict[str, Any]:
        """What was measured."""
        return read_json(self.output / "evidence.json")

    def process(self, **environment: str) -> subprocess.Popen[str]:
        """Start the training process."""
        path = self.folder / "request.json"
        path.write_text(json.dumps(self.request))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "mlops_assets.training.runner", str(path)],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def bundle(self) -> dict[str, Any]:
        """Register what was trained: the manifest that a version would have; a champion."""
        spec = self.request["spec"]
        outside = {*spec["data"]["key"], spec["data"]["target"]}
        columns = spec["data"]["columns"]
        features = [{"name": n, **c} for n, c in columns.items() if n not in outside]
        manifest = to_json(
            {
                "model": "rent",
                "task": spec["task"],
                "target": spec["data"]["target"],
                "features": features,
                "labels": read_json(self.output / "estimator.json")["labels"],
                "files": {p.name: digest_file(p) for p in self.output.iterdir() if p.is_file()},
            }
        )
        (self.output / "manifest.json").write_text(manifest)
        digest = digest_bytes(manifest.encode())
        return {"bundle": str(self.output), "digest": digest, "version": 1}


def make_case(
    folder: Path,
    files: dict[str, str],
    *,
    yaml: str = MODEL_YAML,
    table: pa.Table | None = None,
    champion: dict[str, Any] | None = None,
    repository: Path = REPOSITORY,
) -> Case:
    """Write a model's files (paths below its folder, or ``/`` and a path of the tree) and data."""
    root = folder / "source"
    for name, text in files.items():
        path = root / name.lstrip("/") if name.startswith("/") else root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "output").mkdir(parents=True)
    snapshot = folder / "data.parquet"
    pq.write_table(flats() if table is None else table, snapshot)
    request = {
        "mode": "train",
        "model": "rent",
        "spec": parse_model(yaml, "rent", "model.yaml").model_dump(mode="json"),
        "source": str(root),
        "folder": FOLDER,
        "repository": str(repository),
        "snapshot": str(snapshot),
        "output": str(folder / "output"),
        "champion": champion,
    }
    return Case(folder, request)
