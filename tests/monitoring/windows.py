"""Captured files and references of tests, as the server and the platform write them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from mlops_assets.evidence import Evidence
from mlops_assets.monitoring.labels import Labelled
from mlops_assets.monitoring.monitor import Span, monitor
from mlops_assets.monitoring.report import Report
from mlops_assets.scoring.capture.settings import OWN_REQUEST
from mlops_assets.spec import ModelSpec, load_model, parse_model
from mlops_assets.training.export import distribution
from mlops_assets.training.metrics import Judged

ROOT = Path(__file__).parents[2]
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
TYPES = {
    "float": pa.float64(),
    "integer": pa.int64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}


def sample(model: str) -> tuple[ModelSpec, pa.Table]:
    """A model of the repository and all rows of its sample data, in the contract's types."""
    spec = load_model(ROOT / "mlops_assets/models" / model)
    types = {name: TYPES[column.type] for name, column in spec.data.columns.items()}
    options = pa_csv.ConvertOptions(
        column_types=types, null_values=["", "NA"], strings_can_be_null=True
    )
    files = sorted((ROOT / "samples/data" / model).glob("*.csv"))
    return spec, pa.concat_tables([pa_csv.read_csv(f, convert_options=options) for f in files])


def model(columns: Mapping[str, str], extra: str = "", task: str = "regression") -> ModelSpec:
    """A model of columns ``name -> contract``, beside the key id and the target y."""
    target = "float" if task == "regression" else "string"
    metric = "mean_absolute_error" if task == "regression" else "accuracy"
    limit = "maximum: 100" if task == "regression" else "minimum: 0"
    described = "\n".join(f"    {name}: {contract}" for name, contract in columns.items())
    text = f"""
owner: team:x
task: {task}
data:
  location: x
  key: [id]
  target: y
  columns:
    id: {{type: integer}}
    y: {{type: {target}}}
{described}
gates:
  quality: {{{metric}: {{{limit}}}}}
  champion: {{metric: {metric}, tolerance: 0.02}}
{extra}
"""
    return parse_model(text, "x", "model.yaml")


def reference(folder: Path, table: pa.Table | Mapping[str, Any]) -> Path:
    """A snapshot."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "data.parquet"
    table = table if isinstance(table, pa.Table) else pa.table(dict(table))
    pq.write_table(table, path)
    return path


def captured(
    path: Path,
    table: pa.Table | Mapping[str, Any],
    predictions: Sequence[Any] | None = None,
    requests: Sequence[int] | None = None,
    version: int = 1,
    at: dt.datetime = NOW - dt.timedelta(hours=1),
    failed: int = 0,
    own: bool = False,
) -> Path:
    """A captured file: one request per row, unless ``requests`` numbers them.

    ``own`` ones are the platform's, by their ids.
    """
    table = table if isinstance(table, pa.Table) else pa.table(dict(table))
    n = table.num_rows
    of = np.arange(n) if requests is None else np.asarray(requests)
    first = np.unique(of, return_index=True)[1]
    starts = np.zeros(n, int)
    starts[first] = first
    rows = np.arange(n) - np.maximum.accumulate(starts) if n else np.arange(0)
    values = pa.nulls(n, pa.string()) if predictions is None else pa.array(predictions)
    name = f"{OWN_REQUEST if own else ''}{path.stem}"
    meta = pa.table(
        {
            "mlops_time": pa.array([at] * n, pa.timestamp("us", tz="UTC")),
            "mlops_request": pa.array([f"{name}-{i}" for i in of], pa.string()),
            "mlops_row": pa.array(rows, pa.int32()),
            "mlops_deployment": pa.array(["blue"] * n, pa.string()),
            "mlops_version": pa.array([version] * n, pa.int32()),
            "mlops_status": pa.array([200] * n, pa.int16()),
            "mlops_seconds": pa.array([0.002] * n, pa.float64()),
            "mlops_prediction": values,
        }
    )
    for column in table.column_names:
        meta = meta.append_column(column, table.column(column))
    if failed:
        lost = {
            "mlops_time": [at] * failed,
            "mlops_request": [f"failed-{i}" for i in range(failed)],
            "mlops_status": [500] * failed,
            "mlops_seconds": [0.5] * failed,
        }
        rest = pa.table(
            {
                f.name: pa.array(lost[f.name], f.type)
                if f.name in lost
                else pa.nulls(failed, f.type)
                for f in meta.schema
            }
        )
        meta = pa.concat_tables([meta, rest])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(meta, path)
    return path


def without(table: pa.Table, *names: str) -> pa.Table:
    """A table as requests hold it, without the target."""
    return table.drop_columns(list(names))


def halves(
    table: pa.Table, random: np.random.Generator, share: float = 0.6
) -> tuple[pa.Table, pa.Table]:
    """A random part of the rows, and the others."""
    order = random.permutation(table.num_rows)
    cut = round(share * table.num_rows)
    return table.take(pa.array(order[:cut])), table.take(pa.array(order[cut:]))


def evidence(judged: Judged) -> Evidence:
    """Of a version whose holdout was predicted so; without metrics."""
    return Evidence.model_validate(
        {
            "task": judged.task,
            "metrics": {},
            "holdout": {"rows": len(judged.target), "training_rows": 1, "digest": ""},
            "slices": [],
            "importance": [],
            "predictions": distribution(judged),
            "seconds": {},
        }
    )


def look(
    files: Path | Sequence[Path],
    snapshot: Path,
    spec: ModelSpec,
    release: Evidence | None = None,
    labelled: Labelled | None = None,
) -> Report:
    """A report as of NOW."""
    files = [files] if isinstance(files, Path) else files
    return monitor(Span(files, NOW, 1), snapshot, spec, release, labelled)


def moved(report: Report) -> set[str]:
    """Names of all that alarms."""
    return {column.column for column in report.moved}


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    """A table with another column in one's place."""
    return table.set_column(
        table.column_names.index(name), name, pa.chunked_array([pa.array(values)])
    )


def where(table: pa.Table, name: str, value: Any) -> pa.Table:
    """The rows where a column has a value."""
    return table.filter(pc.equal(table.column(name), value))
