"""The rows of a window, counted by DuckDB in the reference's bins, in bounded memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.monitoring.bins import Bins
from mlops_assets.monitoring.report import NewValue, Service
from mlops_assets.monitoring.requests import Requests
from mlops_assets.scoring.capture.settings import OWN_REQUEST
from mlops_assets.spec import Column

Array = np.ndarray[Any, Any]

#: DuckDB spills to disk beyond this.
MEMORY_LIMIT = "300MB"
#: Rows whose requests are looked at, or more, if so many requests have more.
TOGETHER, SOME = 50_000, 100
#: New values that are named, and how much of each.
NAMED, LETTERS = 10, 80
#: Columns that capture adds to each row; no model's own column has such a name, so that names in
#: queries that are not a column's begin so, too.
OWN = "mlops_"
_OF_SERVICE = ("mlops_time", "mlops_request", "mlops_row", "mlops_status", "mlops_seconds")


@dataclass(frozen=True)
class Counts:
    """One column of the window."""

    rows: int
    missing: int
    #: Rows per bin of the reference.
    bins: Array
    mean: float | None = None
    new_values: tuple[NewValue, ...] = ()
    #: Rows with a value that the reference never has.
    new_rows: int = 0
    #: Rows outside of the contract.
    violations: int = 0


@dataclass
class Window:
    """Captured rows that one query can be asked of."""

    database: duckdb.DuckDBPyConnection
    #: Those that may hold rows of the version; a column has one type in all of them.
    files: list[Path]
    #: Names and types of each file's columns, the same object where they are the same; of the
    #: files of other versions too.
    schemas: dict[Path, pa.Schema]
    where: str
    unreadable: list[str] = field(default_factory=list[str])
    #: Name of the table that holds each different row once; None where the files are read.
    table: str | None = None
    #: The rows of the window among those of the files: of its span, asked by an application.
    within: str = "true"

    def holding(self, column: str) -> list[Path]:
        """The files in which a column was captured."""
        return [file for file in self.files if column in self.schemas[file].names]

    def source(self, files: Sequence[Path]) -> str:
        """What follows FROM: the rows of some files that were scored."""
        if self.table is not None and len(files) == len(self.files):
            return self.table
        return f"{self.rows_of(files)} WHERE {self.where}"

    def rows_of(self, files: Sequence[Path], columns: str = "*") -> str:
        """What follows FROM: all rows of some files; NULL where one has no such column.

        Files of the same columns are read together: looking for those of each file by itself costs
        memory for every file.
        """
        alike: dict[int, list[Path]] = {}
        for file in files:
            alike.setdefault(id(self.schemas[file]), []).append(file)
        parts = (f"SELECT {columns} FROM read_parquet({_list(some)})" for some in alike.values())
        return f"({' UNION ALL BY NAME '.join(parts)})"

    def one(self, query: str) -> tuple[Any, ...]:
        """The only row of an answer."""
        return self.database.execute(query).fetchall()[0]

    def arrow(self, query: str) -> pa.Table:
        """All rows of an answer."""
        return self.database.sql(query).to_arrow_table()

    @property
    def rows(self) -> int:
        """Rows that are judged."""
        return self.one(f"SELECT count(*) FROM {self.source(self.files)}")[0] if self.files else 0


@contextmanager
def open_window(
    files: Sequence[Path],
    scratch: Path,
    version: int | None = None,
    captured: bool = True,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
) -> Generator[Window]:
    """Open captured files, or a snapshot's.

    Args:
        files: Parquet; one that cannot be read is passed over, and named.
        scratch: an existing folder, where DuckDB may spill.
        version: of the rows that are judged; None takes all.
        captured: whether the files have the columns that capture adds.
        since: rows before that moment are of another window; aware.
        until: likewise those from that moment on.
    """
    schemas: dict[Path, pa.Schema] = {}
    known: dict[pa.Schema, pa.Schema] = {}
    judged: list[Path] = []
    unreadable: list[str] = []
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow.remove_metadata()
                schemas[file] = known.setdefault(schema, schema)
                if version is None or _may_hold(opened.metadata, version):
                    judged.append(file)
        except (pa.ArrowInvalid, OSError) as error:
            unreadable.append(f"{file.name}: {str(error).splitlines()[0]}")
    within = f"NOT starts_with(mlops_request, {literal(OWN_REQUEST)})" if captured else "true"
    within += "" if since is None else f" AND mlops_time >= {_timestamp(since)}"
    within += "" if until is None else f" AND mlops_time < {_timestamp(until)}"
    where = f"mlops_row IS NOT NULL AND {within}" if captured else "true"
    if version is not None:
        where += f" AND mlops_version = {version:d}"
    with duckdb.connect(
        config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(scratch), "threads": 2}
    ) as database:
        # Parquet's least and greatest values leave NaN out, and DuckDB concludes from them that
        # there is none: isnan() would be false for each.
        database.execute("SET disabled_optimizers = 'statistics_propagation'")
        database.execute("SET TimeZone = 'UTC'")
        yield Window(database, judged, schemas, where, unreadable, within=within)


def _may_hold(metadata: pq.FileMetaData, version: int) -> bool:
    """Whether a file may have rows of a version; its columns may be of other types if not."""
    names = metadata.schema.names
    if "mlops_version" not in names:
        return True
    place = names.index("mlops_version")
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group).column(place).statistics
        if found is None or not found.has_min_max or found.min <= version <= found.max:
            return True
    return False


def _timestamp(moment: dt.datetime) -> str:
    return f"TIMESTAMPTZ '{moment.astimezone(dt.UTC).isoformat()}'"


# -- how the endpoint answered


def service(window: Window) -> Service:
    """Requests, errors and latencies; a request is told by its first row, or by having none."""
    if not window.schemas:
        return Service(
            requests=0, rows=0, failed=0, refused=0, error_rate=None, p50_ms=None, p95_ms=None,
            first=None, last=None,
        )  # fmt: skip
    rows_of = window.rows_of([*window.schemas], ", ".join(_OF_SERVICE))
    source = f"{rows_of} WHERE {window.within} AND coalesce(mlops_row, 0) = 0"
    requests, failed, refused, first, last = window.one(
        "SELECT count(*), coalesce(count_if(mlops_status >= 500), 0), "
        "coalesce(count_if(mlops_status >= 400 AND mlops_status < 500), 0), "
        f"epoch_us(min(mlops_time)), epoch_us(max(mlops_time)) FROM {source}"
    )
    p50, p95 = window.one(
        "SELECT quantile_cont(mlops_seconds, 0.5), quantile_cont(mlops_seconds, 0.95) "
        f"FROM {source} AND isfinite(mlops_seconds)"
    )
    (rows,) = window.one(
        f"SELECT count(*) FROM {rows_of} WHERE {window.within} AND mlops_row IS NOT NULL"
    )
    return Service(
        requests=requests,
        rows=rows,
        failed=failed,
        refused=refused,
        error_rate=failed / requests if requests else None,
        p50_ms=None if p50 is None else 1000 * p50,
        p95_ms=None if p95 is None else 1000 * p95,
        first=_moment(first),
        last=_moment(last),
    )


def last_request(files: Sequence[Path], scratch: Path, until: dt.datetime) -> dt.datetime | None:
    """When an application asked last before a moment; None if the files have no such request."""
    with open_window(files, scratch, until=until) as window:
        if not window.files:
            return None
        rows_of = window.rows_of(window.files, ", ".join(_OF_SERVICE))
        query = f"SELECT epoch_us(max(mlops_time)) FROM {rows_of}"
        return _moment(window.one(f"{query} WHERE {window.within}")[0])


# -- columns


def count(
    window: Window, bins: Mapping[str, Bins], contract: Mapping[str, Column]
) -> dict[str, Counts]:
    """Count columns in the bins of the reference, each in the files in which it was captured."""
    groups: dict[tuple[Path, ...], list[str]] = {}
    for name in bins:
        groups.setdefault(tuple(window.holding(name)), []).append(name)
    found: dict[str, Counts] = {}
    for files, names in groups.items():
        if files:
            found |= _count_group(window, files, names, bins, contract)
    return found


def _count_group(
    window: Window,
    files: Sequence[Path],
    names: Sequence[str],
    bins: Mapping[str, Bins],
    contract: Mapping[str, Column],
) -> dict[str, Counts]:
    source = window.source(files)
    inner = ", ".join(f"{_value(name, bins[name])} AS {quoted(name)}" for name in names)
    # What a cast to a number loses is no missing value but one of another type.
    inner += "".join(
        f", {quoted(name)} IS NOT NULL AND TRY_CAST({quoted(name)} AS DOUBLE) IS NULL "
        f"AS {quoted(OWN + 'misfit_' + name)}"
        for name in names
        if bins[name].edges is not None
    )
    wanted = ["count(*)"]
    for name in names:
        wanted += _aggregates(name, bins[name], contract.get(name))
    row = iter(window.one(f"SELECT {', '.join(wanted)} FROM (SELECT {inner} FROM {source})"))
    rows = next(row)
    found: dict[str, Counts] = {}
    for name in names:
        present, misfits, violations, mean, histogram = (next(row) for _ in range(5))
        one, misfits = bins[name], misfits or 0  # of no rows DuckDB counts NULL
        counts = _histogram(histogram or {}, one, present)
        new: tuple[NewValue, ...] = ()
        new_rows = 0
        if one.edges is None and counts[-1]:
            new, new_rows = _new_values(window, source, name, one)
        found[name] = Counts(
            rows=rows,
            missing=rows - present - misfits,
            bins=counts,
            mean=None if mean is None or not np.isfinite(mean) else mean,
            new_values=new,
            new_rows=new_rows,
            violations=(violations or 0) + misfits,
        )
    return found


def _aggregates(name: str, bins: Bins, column: Column | None) -> list[str]:
    """Present rows, rows of another type, rows out of contract, mean, and rows per bin."""
    value, misfit = quoted(name), quoted(OWN + "misfit_" + name)
    rules: list[str] = []
    if column is not None and bins.edges is not None:
        if column.minimum is not None:
            rules.append(f"{value} < {column.minimum!r}")
        if column.maximum is not None:
            rules.append(f"{value} > {column.maximum!r}")
        rules.append(f"isinf({value})")
    elif column is not None and column.categories is not None:
        rules.append(f"{value} NOT IN ({', '.join(literal(str(c)) for c in column.categories)})")
    misfits = f"count_if({misfit})" if bins.edges is not None else "0"
    if bins.edges is None:
        names = ", ".join(literal(name) for name in bins.names)
        histogram = f"histogram_exact({value}, [{names}])" if bins.names else "NULL"
        mean = "NULL"
    else:
        edges = ", ".join(f"{float(edge)!r}::DOUBLE" for edge in _finite(bins.edges))
        histogram = f"histogram({value}, [{edges}])" if len(edges) else "NULL"
        mean = f"avg({value}) FILTER (abs({value}) < 1e300)"
    violations = f"count_if({' OR '.join(rules)})" if rules else "0"
    return [f"count({value})", misfits, violations, mean, histogram]


def _histogram(found: Mapping[Any, int], bins: Bins, present: int) -> Array:
    counts = np.zeros(len(bins.counts))
    if bins.edges is None:
        counts[: len(bins.names)] = [found.get(name, 0) for name in bins.names]
    else:
        # Edges that are infinite themselves have no rows between them and the last bin.
        finite = _finite(bins.edges)
        start = int(np.searchsorted(bins.edges, finite[0])) if len(finite) else 0
        counts[start : start + len(finite)] = [found.get(float(edge), 0) for edge in finite]
    counts[-1] = present - counts[:-1].sum()
    return counts


def _finite(edges: Array) -> Array:
    return edges[np.isfinite(edges)]


def _value(name: str, bins: Bins) -> str:
    """A column as a number without NaN, or as a text that is not empty."""
    column = quoted(name)
    if bins.edges is None:
        return f"nullif(CAST({column} AS VARCHAR), '')"
    number = f"TRY_CAST({column} AS DOUBLE)"
    return f"CASE WHEN isnan({number}) THEN NULL ELSE {number} END"


def _new_values(
    window: Window, source: str, name: str, bins: Bins
) -> tuple[tuple[NewValue, ...], int]:
    """Values that the reference never has, the most frequent first, and rows with any of them."""
    known = pa.table({"known": pa.array([*bins.names, *bins.known], pa.string())})
    window.database.register("known_values", known)
    query = (
        "SELECT value, times, sum(times) OVER () FROM (SELECT value, count(*) AS times FROM "
        f"(SELECT {_value(name, bins)} AS value FROM {source}) WHERE value IS NOT NULL GROUP BY "
        "value) WHERE value NOT IN (SELECT known FROM known_values) "
        f"ORDER BY times DESC, value LIMIT {NAMED}"
    )
    found = window.database.execute(query).fetchall()
    window.database.unregister("known_values")
    values = tuple(NewValue(value=shortened(value), rows=times) for value, times, _ in found)
    return values, int(found[0][2]) if found else 0


# -- requests


def requests(window: Window, bins: Mapping[str, Bins]) -> tuple[Requests, dict[str, Array]] | None:
    """The requests of a sample of rows, and each column's bins in it; None if each has one row."""
    names = [name for name in bins if len(window.holding(name)) == len(window.files)]
    source = window.source(window.files)
    rows, about = window.one(f"SELECT count(*), approx_count_distinct(mlops_request) FROM {source}")
    # Enough requests to tell how alike their rows are, however large each of them is.
    every = max(1, min(rows // TOGETHER, about // SOME))
    # All rows of a request are in the sample, or none.
    seen, different = window.one(
        "SELECT count(*), count(DISTINCT mlops_asked) FROM (SELECT hash(mlops_request) AS "
        f"mlops_asked FROM {source}) WHERE mlops_asked % {every} = 0"
    )
    if different >= seen or not names:
        return None
    total = round(rows * different / seen)
    values = ", ".join(f"{_value(name, bins[name])} AS {quoted(name)}" for name in names)
    table = window.arrow(
        f"SELECT mlops_asked, {values} FROM (SELECT *, hash(mlops_request) AS mlops_asked FROM "
        f"{source}) WHERE mlops_asked % {every} = 0"
    )
    _, of_row = np.unique(table.column("mlops_asked").to_numpy(), return_inverse=True)
    codes = {name: bins[name].codes(_array(table.column(name))) for name in names}
    return Requests(of_row, int(of_row.max(initial=-1)) + 1, total), codes


def _array(column: pa.ChunkedArray) -> Array:
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=object)
    return column.cast(pa.float64(), safe=False).to_numpy()


# -- SQL


def quoted(name: str) -> str:
    """A column's name in a query."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in a query."""
    return "'" + text.replace("'", "''") + "'"


def shortened(value: str) -> str:
    """A captured value as it is shown."""
    return value if len(value) <= LETTERS else value[: LETTERS - 1] + "…"


def _list(files: Sequence[Path]) -> str:
    return f"[{', '.join(literal(str(file)) for file in files)}]"


def _moment(microseconds: int | None) -> dt.datetime | None:
    if microseconds is None:
        return None
    return dt.datetime.fromtimestamp(microseconds / 1e6, dt.UTC)
