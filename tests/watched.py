"""A model that serves production and is watched; its captured files are written by tests."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from mlops_assets.files import write_atomic
from resources.captured import CAPTURED
from tests.conftest import Platform
from tests.monitoring.windows import captured
from tests.repository import rows

WATCH = "production_monitoring"
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
CAPTURING = '"capture": {"keep_days": 36500CAPTURE}'
PRODUCTION = f'{{"name": "production", "target": "local", "promotes_from": "staging", {CAPTURING}}}'
MONITORING = "monitoring: {minimum_rows: 100, labels: {location: labels}}\n"


def table(count: int = 200) -> pa.Table:
    """The rows of the data, in the contract's types."""
    return pa_csv.read_csv(
        pa.BufferReader(rows(count).encode()),
        convert_options=pa_csv.ConvertOptions(strings_can_be_null=True),
    )


class Watched:
    """A model that serves production, as its records say; no server runs."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.hours = 0

    @property
    def home(self) -> Path:
        return self.platform.profile.home

    def serves(self, number: int) -> None:
        version = self.platform.registry.version("rent", number)
        content = {
            "environment": "production",
            "version": number,
            "digest": version.digest,
            "previous": None,
            "run": "r",
            "started": "2026-02-01T00:00:00+00:00",
            "ended": "2026-02-01T00:00:00+00:00",
        }
        self.platform.registry.record("rent", "deployments", content)

    def capture(self, found: pa.Table, predictions: Any, version: int = 1, **more: Any) -> None:
        """Rows of the hour before now."""
        at = self.now - dt.timedelta(minutes=30)
        folder = self.home / CAPTURED / "production" / "rent" / f"{at:%Y-%m-%d}"
        path = folder / f"{at:%H%M%S}-v{version}.parquet"
        captured(path, found, predictions, version=version, at=at, **more)

    def answered(self, error: float, version: int = 1, **more: Any) -> None:
        """All rows of the data, answered with an error; their labels arrive."""
        data = table()
        rents = data.column("rent").to_numpy()
        self.capture(data.drop_columns(["rent"]), rents + error, version, **more)
        lines = [f"{flat},{rent}" for flat, rent in zip(range(200), rents, strict=True)]
        write_atomic(self.home / "storage/labels/new.csv", "\n".join(["flat,rent", *lines]) + "\n")

    @property
    def now(self) -> dt.datetime:
        return NOW + dt.timedelta(hours=self.hours)

    def look(self) -> bool:
        config = {WATCH: {"now": self.now.isoformat()}}
        return self.platform.materialize(WATCH, config=config)

    @property
    def decision(self) -> str:
        return str(self.platform.metadata(WATCH)["decision"])

    def open_requests(self) -> list[Path]:
        return sorted((self.home / "revisions").glob("*.md"))

    def records(self, kind: str) -> list[dict[str, Any]]:
        return self.platform.registry.records("rent", kind)

    def reports(self) -> list[Path]:
        return sorted((self.home / "monitoring/production/rent").glob("*.json"))

    def alerts(self) -> list[Path]:
        return sorted((self.home / "alerts/waiting").glob("*.json"))
