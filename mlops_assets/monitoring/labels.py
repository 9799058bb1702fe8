"""Labelled rows that arrive later, read by the contract, and the predictions that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from mlops_assets.contract import MISSING
from mlops_assets.monitoring.window import Window, literal, quoted
from mlops_assets.scoring.capture.settings import PREDICTION
from mlops_assets.spec import ModelSpec

#: Labelled rows with a prediction that are judged; of more, a sample by key.
ROWS = 200_000
#: Columns of what is joined, beside those of the slices.
TARGET, PREDICTED = "mlops_target", "mlops_predicted"
_TYPES = {
    "float": "DOUBLE",
    "integer": "BIGINT",
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
}


@dataclass(frozen=True)
class Labelled:
    """Labelled rows, and where the predictions for them were captured.

    Labels arrive later than requests, so ``captured`` may reach back further than the window.
    """

    #: Of two labels of one row the one in the later file counts.
    files: Sequence[Path]
    captured: Sequence[Path]
    format: Literal["csv", "parquet"] = "csv"


@dataclass(frozen=True)
class Joined:
    """Labelled rows, each once, with the last prediction for their key."""

    labelled: int
    #: Columns TARGET, PREDICTED and the slices that are known; rows with a prediction.
    table: pa.Table
    problem: str = ""
    #: Files of labels that were left out, and why; without a value of theirs.
    unreadable: tuple[str, ...] = ()
    #: Labels that were left out: not of the target's type, range or categories.
    unfit: int = 0


def join(window: Window, labels: Labelled, spec: ModelSpec) -> Joined:
    """Join labelled rows with captured predictions by key.

    Args:
        window: opened on ``labels.captured``.
        labels: the labelled rows.
        spec: names the key, the target and the slices.
    """
    unreadable = tuple(_read(window, labels, spec))
    labelled, unfit = window.one(
        f"SELECT count({TARGET}), count_if(mlops_given AND {TARGET} IS NULL) FROM mlops_labels"
    )
    empty = pa.table({name: pa.array([], pa.string()) for name in (TARGET, PREDICTED)})
    if len(unreadable) == len(labels.files):
        return Joined(0, empty, f"no labels can be read: {unreadable[0]}", unreadable)
    if not labelled:
        problem = f"none of {unfit} labels is as model.yaml describes {spec.data.target}"
        return Joined(0, empty, problem if unfit else "", unreadable, unfit)
    files = [f for f in window.files if all(n in window.schemas[f].names for n in spec.data.key)]
    files = [f for f in files if PREDICTION in window.schemas[f].names]
    if not files:
        keys = ", ".join(spec.data.key)
        problem = f"no request carried the key {keys}, so that no label finds its row"
        return Joined(labelled, empty, problem, unreadable, unfit)
    _join(window, files, spec)
    (rows,) = window.one("SELECT count(*) FROM mlops_joined")
    if labelled and not rows:
        problem = f"none of {labelled} labelled rows has the key of a request that was captured"
        return Joined(labelled, empty, problem, unreadable, unfit)
    names = ", ".join(_keys(spec))
    columns = ", ".join([TARGET, PREDICTED, *map(quoted, spec.slices)])
    table = window.arrow(
        f"SELECT {columns} FROM mlops_joined WHERE hash({names}) % {max(1, rows // ROWS)} = 0"
    )
    known = [name for name in spec.slices if table.column(name).null_count < table.num_rows]
    return Joined(labelled, table.select([TARGET, PREDICTED, *known]), "", unreadable, unfit)


def _read(window: Window, labels: Labelled, spec: ModelSpec) -> list[str]:
    """Fill the table ``mlops_labels``, each row once; returns the files that were left out."""
    data, database = spec.data, window.database
    names = {**_keys(spec), TARGET: data.target, **_slices(spec)}
    types = ", ".join(f"{own} {_type(name, spec)}" for own, name in names.items())
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE mlops_all_labels ({types}, mlops_given BOOLEAN, "
        "mlops_file INT, mlops_place BIGINT)"
    )
    unreadable: list[str] = []
    for number, file in enumerate(labels.files):
        try:
            _read_file(database, file, number, labels.format, names, spec)
        except (duckdb.Error, LookupError) as error:
            # Its text may quote a row.
            says = str(error.args[0]) if isinstance(error, LookupError) else type(error).__name__
            unreadable.append(f"{file.name}: {says}")
    # A label that is taken back is an empty one; a correction need not repeat the slices.
    chosen = {TARGET: "arg_max_null", "mlops_given": "arg_max_null"}
    chosen |= dict.fromkeys(_slices(spec), "arg_max")
    last = ", ".join(
        f"{which}({own}, (mlops_file, mlops_place)) AS {own}" for own, which in chosen.items()
    )
    keys = ", ".join(_keys(spec))
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE mlops_labels AS SELECT {keys}, {last} "
        f"FROM mlops_all_labels GROUP BY {keys}"
    )
    return unreadable


def _read_file(
    database: duckdb.DuckDBPyConnection,
    file: Path,
    number: int,
    kind: str,
    names: Mapping[str, str],
    spec: ModelSpec,
) -> None:
    """Add a file; raises duckdb.Error, or LookupError where it lacks a column."""
    path = literal(str(file))
    # A single thread reads a file from its beginning to its end.
    source = f"read_parquet({path})" if kind == "parquet" else (
        f"read_csv({path}, header = true, all_varchar = true, parallel = false, delim = ',', "
        "quote = '\"')"
    )  # fmt: skip
    there = [row[0] for row in database.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    missing = [name for name in [*spec.data.key, spec.data.target] if name not in there]
    if missing:
        raise LookupError(f"no column {', '.join(missing)}")
    values = [_typed(name, spec) if name in there else "NULL" for name in names.values()]
    values[len(spec.data.key)] = _fitting(spec)
    given = f"{_present(spec.data.target)} IS NOT NULL"
    database.execute(
        f"INSERT INTO mlops_all_labels SELECT {', '.join(values)}, {given}, {number}, "
        f"row_number() OVER () FROM {source}"
    )


def _join(window: Window, files: Sequence[Path], spec: ModelSpec) -> None:
    """Fill the table ``mlops_joined``: each labelled row with the last prediction for its key."""
    keys, slices = _keys(spec), _slices(spec)
    captured = {
        own: name
        for own, name in slices.items()
        if any(name in window.schemas[file].names for file in files)
    }
    given = ", ".join(
        f"{own} := {_typed(name, spec)}"
        for own, name in {PREDICTED: PREDICTION, **captured}.items()
    )
    shown = [TARGET, f"mlops_answer.{PREDICTED} AS {PREDICTED}"]
    for own, name in slices.items():
        table = "mlops_answer" if own in captured else "mlops_labels"
        shown.append(f"CAST({table}.{own} AS VARCHAR) AS {quoted(name)}")
    asked = ", ".join(f"{_typed(name, spec)} AS {own}" for own, name in keys.items())
    names = ", ".join(keys)
    window.database.execute(
        f"CREATE OR REPLACE TEMP TABLE mlops_joined AS SELECT {names}, {', '.join(shown)} "
        f"FROM mlops_labels JOIN (SELECT {asked}, arg_max(struct_pack({given}), mlops_time) AS "
        f"mlops_answer FROM {window.source(files)} AND {PREDICTION} IS NOT NULL "
        f"GROUP BY {names}) USING ({names}) "
        f"WHERE {TARGET} IS NOT NULL AND mlops_answer.{PREDICTED} IS NOT NULL"
    )


def _keys(spec: ModelSpec) -> dict[str, str]:
    """Names in queries -> the columns of the key."""
    return {f"mlops_key_{number}": name for number, name in enumerate(spec.data.key)}


def _slices(spec: ModelSpec) -> dict[str, str]:
    return {f"mlops_slice_{number}": name for number, name in enumerate(spec.slices)}


def _type(name: str, spec: ModelSpec) -> str:
    """A column's type in queries; a prediction is of the target's, as metrics compare them."""
    if name in (spec.data.target, PREDICTION):
        kind = spec.data.columns[spec.data.target].type
        # A class is told by its name.
        return _TYPES["float" if spec.task == "regression" else kind].replace("BOOLEAN", "VARCHAR")
    return _TYPES[spec.data.columns[name].type]


def _present(name: str) -> str:
    """A column; NULL where it is spelled as missing."""
    missing = ", ".join(literal(one) for one in MISSING)
    return f"CASE WHEN CAST({quoted(name)} AS VARCHAR) NOT IN ({missing}) THEN {quoted(name)} END"


def _fitting(spec: ModelSpec) -> str:
    """The target where it is what the contract allows, and else NULL."""
    name = spec.data.target
    column, value = spec.data.columns[name], _typed(name, spec)
    rules = [f"{value} >= {column.minimum!r}"] if column.minimum is not None else []
    rules += [f"{value} <= {column.maximum!r}"] if column.maximum is not None else []
    if column.categories is not None:
        allowed = ", ".join(literal(str(one)) for one in column.categories)
        rules.append(f"CAST({value} AS VARCHAR) IN ({allowed})")
    return f"CASE WHEN {' AND '.join(rules)} THEN {value} END" if rules else value


def _typed(name: str, spec: ModelSpec) -> str:
    """A column in the contract's type, as a snapshot would have it; NULL for any other value."""
    column, kind, present = quoted(name), _type(name, spec), _present(name)
    if name == spec.data.target and spec.data.columns[name].type == "boolean":
        return f"CAST(TRY_CAST({present} AS BOOLEAN) AS VARCHAR)"
    value = f"TRY_CAST({present} AS {kind})"
    if kind == "DOUBLE":
        return f"CASE WHEN isfinite({value}) THEN {value} END"
    if kind == "BIGINT":  # not rounded
        return f"CASE WHEN TRY_CAST({column} AS DOUBLE) = {value} THEN {value} END"
    return value
