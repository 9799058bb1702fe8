"""What Dagster's page shows of a report."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.decision import Decision
from mlops_assets.markdown import code, table
from mlops_assets.monitoring.report import Report


def page_metadata(
    report: Report, decision: Decision, told: Sequence[str], pictures: Sequence[Path]
) -> dict[str, Any]:
    """Verdicts, decision, a table of the columns, pictures, and numbers that the page plots."""
    verdicts = [[v.name, v.status.replace("_", " "), v.reason] for v in report.verdicts]
    return {
        "version": str(report.version),
        "verdicts": dg.MetadataValue.md(
            table(["question", "answer", "why"], [[n, s, code(r, 400)] for n, s, r in verdicts])
        ),
        "decision": "; ".join([decision.reason, *told]),
        "columns": dg.MetadataValue.table(_column_records(report), _COLUMNS),
        **({"pictures": dg.MetadataValue.md(_images(pictures))} if pictures else {}),
        **_plotted(report),
    }


#: As many as fit into the page without scrolling sideways; the reports have the other numbers.
_COLUMNS = dg.TableSchema(
    [
        dg.TableColumn(name, kind)
        for name, kind in (
            ("column", "string"), ("answer", "string"), ("psi", "float"), ("by chance", "float"),
            ("why", "string"),
        )
    ]
)  # fmt: skip


def _column_records(report: Report) -> list[dg.TableRecord]:
    found = [*report.columns, report.prediction, *([report.target] if report.target else [])]
    found.sort(key=lambda column: column not in report.moved)
    return [
        dg.TableRecord(
            {
                "column": column.column,
                "answer": column.outcome.replace("_", " "),
                "psi": _number(column.psi, 3),
                "by chance": _number(column.psi_noise, 3),
                "why": column.reason,
            }
        )
        for column in found
    ]


def _images(pictures: Sequence[Path]) -> str:
    return "\n\n".join(
        f"![{path.stem}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"
        for path in pictures
    )


def _plotted(report: Report) -> dict[str, Any]:
    """Numbers that the page draws over time."""
    service, found = report.service, report.performance
    numbers: dict[str, float | None] = {
        "requests": service.requests,
        "rows": report.rows,
        "columns_moved": len(report.moved),
        "error_rate": service.error_rate,
        "p95_milliseconds": service.p95_ms,
        "psi_of_predictions": report.prediction.psi,
        "labelled_rows": found.joined if found else None,
    }
    for metric in found.metrics if found else []:
        numbers[f"live_{metric.metric}"] = metric.live.value
    return {name: _number(value) for name, value in numbers.items() if value is not None}


def _number(value: float | None, digits: int = 6) -> float | int | None:
    """Plain, and as short as people read it: Dagster takes none of numpy's."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{float(value):.{digits}g}")
