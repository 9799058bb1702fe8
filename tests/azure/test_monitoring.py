"""What serves on Azure is watched: requests of container groups and of online endpoints."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.monitoring.report import Report
from mlops_assets.watch import Reports
from mlops_assets.wiring import build_resources
from resources.azure.clients import AzureClients
from resources.endpoints.base import Request
from resources.environment import load_profile
from tests.azure.aci_groups import document
from tests.azure.online import attach, documents
from tests.azure.platforms import clients, on_azure, train_here
from tests.azure.server import AzureServer
from tests.conftest import RELEASE, Platform
from tests.local_servers import eventually
from tests.repository import MODEL_YAML, rows

WATCH = "production_monitoring"
MONITORING = "monitoring: {minimum_rows: 100, rows: independent, labels: {location: labels}}\n"
CAPTURES: dict[str, dict[str, Any]] = {
    "aci": {"rotate_seconds": 0.5, "exclude": ["rooms"]},
    "aks": {},
    "managed": {"share": 1.0},
}


@pytest.fixture(params=sorted(CAPTURES))
def served(
    request: pytest.FixtureRequest,
    azure: AzureServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Platform]:
    """Version 1 of ``rent`` serves production on a target of Azure, and what it gets is kept."""
    target: str = request.param
    train_here(monkeypatch)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        repository = on_azure(azure, tmp_path, instance).repository
        folder = "environments/azure"
        for name in ("development", "staging", "production"):
            (repository.path / folder / f"{name}.json").unlink()
        declared = {"name": "production", "target": target, "capture": CAPTURES[target]}
        repository.write(f"{folder}/production/environment.json", json.dumps(declared))
        found = {"container-group.json": document()} if target == "aci" else documents(target)
        for name, content in found.items():
            repository.write(f"{folder}/production/{name}", json.dumps(content))
        repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML + MONITORING)
        repository.commit("production on Azure")
        variables = {"MLOPS_HOME": str(tmp_path / "home"), "MLOPS_PROFILE": "azure"}
        platform = Platform(repository, load_profile(variables, repository.path), instance)
        there = clients(azure)
        if target == "aks":
            attach(there)
        _upload(there, "data/rent/rents.csv", rows(200))
        assert platform.materialize(*RELEASE, "production_endpoint"), platform.failures
        yield platform


def test_drift_and_performance_of_what_serves_on_azure(
    served: Platform, azure: AzureServer
) -> None:
    target = served.profile.environment("production").target
    data = [*csv.DictReader(io.StringIO(rows(200)))]
    asked = [
        {
            "flat": int(row["flat"]),
            "area": 10.76 * float(row["area"]),  # square feet
            "rooms": int(row["rooms"]),
            "district": row["district"] or None,
        }
        for row in data
    ]
    refused = served.serving.ask("rent", "production", Request.of({"data": [{"area": 1}]}))
    assert refused.status in (400, 424)
    for start in range(0, 200, 50):
        answer = served.serving.ask(
            "rent", "production", Request.of({"data": asked[start : start + 50]})
        )
        assert answer.status == 200, answer.body
    labels = "".join(f"{row['flat']},{row['rent']}\n" for row in data)
    _upload(clients(azure), "data/labels/new.csv", f"flat,rent\n{labels}")

    report = _look(served, 200)
    columns = {column.column: column.outcome for column in report.columns}
    assert columns["area"] == "moved"
    assert columns["district"] == "same"
    assert columns["rooms"] == ("not_captured" if target == "aci" else "same")
    assert (report.version, report.unreadable) == (1, [])
    assert report.service.failed == 0
    assert report.service.refused > 0
    assert report.verdict("drift").status == "alarm"
    assert report.verdict("performance").status == "alarm"

    captured = build_resources(served.profile)["captured"]
    today = dt.datetime.now(dt.UTC).date()
    assert captured.tidy("rent", "production", 1, today + dt.timedelta(days=1)) == 0
    assert captured.tidy("rent", "production", 1, today + dt.timedelta(days=2)) > 0
    span = (dt.datetime.now(dt.UTC) - dt.timedelta(days=1), dt.datetime.now(dt.UTC))
    assert captured.files("rent", "production", *span) == []


def _look(platform: Platform, least: int) -> Report:
    """The report of now, once so many rows have arrived and found their labels."""
    reports = Reports(build_resources(platform.profile)["documents"], "rent", "production")
    found: list[Report] = []

    def seen() -> bool:
        now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
        assert platform.materialize(WATCH, config={WATCH: {"now": now.isoformat()}})
        report = reports.at(now)
        assert report is not None
        found.append(report)
        joined = 0 if report.performance is None else report.performance.joined
        return min(report.rows, joined) >= least  # each has listed the files for itself

    eventually(seen, 60)
    return found[-1]


def _upload(there: AzureClients, name: str, content: str) -> None:
    there.container.upload_blob(name, content.encode(), overwrite=True)
