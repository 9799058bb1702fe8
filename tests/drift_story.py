"""A model after its release, on real data: drift, a loss, a retraining, a revision, the mend.

A server of its own answers every row of the penguins over HTTP and captures it. Hours between the
windows are not waited for: what was captured is moved to a later hour, and the look is taken then.
`python -m tests.drift_story` tells it to people (`make demo-drift`).
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlops_assets.files import write_atomic
from mlops_assets.monitoring.report import Report
from mlops_assets.scoring.capture.settings import OWN_REQUEST
from mlops_assets.watch import Reports
from mlops_assets.wiring import build_resources
from resources.captured import CAPTURED
from resources.documents import FolderDocuments
from resources.endpoints.base import Request
from resources.environment import checkout, load_profile
from tests.conftest import Platform
from tests.repository import Repository

MODEL = "penguins"
FOLDER = f"mlops_assets/models/{MODEL}"
WATCH = "production_monitoring"
NUMBERS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")

#: What the story asks beside the repository's own model.yaml: short windows, labels, small islands.
MONITORING = """
monitoring:
  window_hours: 1
  minimum_rows: 100
  labels: {location: penguins_labels}
"""
#: Reads a bill of less than 10 "mm" as centimetres.
FIX = '''
import numpy as np
from sklearn.preprocessing import FunctionTransformer


def in_mm(numbers):
    """Bills that were measured in centimetres, in millimetres."""
    found = np.array(numbers, dtype=float)
    found[:, 0] = np.where(found[:, 0] < 10, 10 * found[:, 0], found[:, 0])
    return found

'''


def penguins() -> list[dict[str, str]]:
    """Every row of the sample data, as text."""
    found: list[dict[str, str]] = []
    for path in sorted((checkout() / "samples" / "data" / MODEL).glob("*.csv")):
        found += csv.DictReader(path.read_text("utf-8").splitlines())
    return found


def in_centimetres(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same birds, their bills measured in another unit."""
    return [
        {**row, "bill_length_mm": _tenth(row["bill_length_mm"])} for row in rows
    ]  # fmt: skip


def _tenth(text: str) -> str:
    return f"{float(text) / 10:.2f}" if text not in ("", "NA") else text


def as_csv(rows: list[dict[str, str]]) -> str:
    """Rows as a file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def make_checkout(path: Path, capture: dict[str, Any]) -> Repository:
    """The penguins in a repository of their own; production captures."""
    repository = Repository(path)
    path.mkdir(parents=True)
    repository.git("init", "--quiet", "--initial-branch", "main")
    shutil.copytree(checkout() / FOLDER, path / FOLDER, ignore=shutil.ignore_patterns("__py*"))
    shutil.copytree(checkout() / "samples" / "requests" / MODEL, path / "samples/requests" / MODEL)
    spec = (path / FOLDER / "model.yaml").read_text("utf-8")
    # Both units are within the contract: what is wrong is not told by ranges alone.
    spec = spec.replace("minimum: 20, maximum: 80", "minimum: 1, maximum: 80")
    spec = spec.replace("  minimum_rows: 200\n", "  minimum_rows: 200\n  settle_seconds: 0\n")
    repository.write(f"{FOLDER}/model.yaml", spec + MONITORING)
    repository.write("environments/local/staging.json", '{"name": "staging", "target": "local"}')
    production = {
        "name": "production",
        "target": "local",
        "promotes_from": "staging",
        "latency_ms": 2000,
        "capture": {"rotate_seconds": 0.5, **capture},
    }
    repository.write("environments/local/production.json", json.dumps(production))
    repository.commit("a model of penguins")
    return repository


class Story:
    """Production, and what happens to it."""

    def __init__(
        self,
        folder: Path,
        instance: dg.DagsterInstance,
        tell: Callable[[str], object] = lambda _: None,
        **capture: Any,
    ) -> None:
        self.folder = folder
        self.repository = make_checkout(folder / "clone", capture)
        profile = load_profile({"MLOPS_HOME": str(folder / "home")}, self.repository.path)
        self.platform = Platform(self.repository, profile, instance)
        self.home = profile.home
        self.rows = penguins()
        self.hours = 0
        self._tell, self._begun = tell, time.monotonic()
        for path in sorted((checkout() / "samples" / "data" / MODEL).glob("*.csv")):
            write_atomic(self.home / "storage" / MODEL / path.name, path.read_bytes())

    def tell(self, text: str) -> None:
        """One line of the story."""
        self._tell(f"{time.monotonic() - self._begun:6.1f} s  {text}")

    def release(self) -> None:
        """Version 1 to production, its sources seen."""
        self.platform.see()
        made = self.platform.settle()
        assert self.serves() == 1, (made, self.platform.failures)

    def serves(self) -> int | None:
        """The version in production."""
        return self.platform.serving.status(MODEL, "production").version

    def replay(self, rows: list[dict[str, str]]) -> None:
        """Ask production each row, in a request of its own, two hours after the last time."""
        self.hours += 2
        before = self.files()
        for row in rows:
            body = {"data": [{n: _value(n, v) for n, v in row.items() if n in ASKED}]}
            answer = self.platform.serving.ask(MODEL, "production", Request.of(body))
            assert answer.status == 200, answer.body
        for path in self.kept(before, len(rows)):
            self._move(path)

    def kept(self, before: set[Path], count: int, own: bool = False) -> list[Path]:
        """New files, when they hold so many rows of applications, or of the platform itself."""
        deadline = time.monotonic() + 60
        while True:
            new = sorted(self.files() - before)
            ids = [name for path in new for name in _ids(path)]
            if sum(name.startswith(OWN_REQUEST) == own for name in ids) >= count:
                return new
            assert time.monotonic() < deadline, "the rows were not captured"
            time.sleep(0.1)

    def files(self) -> set[Path]:
        """All captured files of production."""
        return set((self.home / CAPTURED / "production" / MODEL).glob("*/*.parquet"))

    def _move(self, path: Path) -> None:
        """To the hour that it is in the story."""
        table = pq.read_table(path)
        place = table.column_names.index("mlops_time")
        shift = pa.scalar(dt.timedelta(hours=self.hours), pa.duration("us"))
        times = pc.add(table.column(place), shift)
        first = pc.min(times).as_py()
        table = table.set_column(place, "mlops_time", times)
        day = path.parents[1] / f"{first:%Y-%m-%d}"
        day.mkdir(exist_ok=True)
        target = day / f"{first:%H%M%S}-{path.stem.partition('-')[2]}h{self.hours}.parquet"
        path.unlink()
        pq.write_table(table, target)

    @property
    def now(self) -> dt.datetime:
        """The time of the story."""
        return dt.datetime.now(dt.UTC) + dt.timedelta(hours=self.hours)

    def look(self) -> Report:
        """Monitor production now."""
        now = self.now
        config = {WATCH: {"now": now.isoformat()}}
        assert self.platform.materialize(WATCH, model=MODEL, config=config), self.platform.failures
        found = Reports(FolderDocuments(root=str(self.home)), MODEL, "production").at(now)
        assert found is not None
        return found

    @property
    def decision(self) -> str:
        """What the last look decided."""
        return str(self.platform.metadata(WATCH)["decision"])

    def label(self, rows: list[dict[str, str]]) -> None:
        """The species of all birds arrive, from the field."""
        names = ("study", "individual", "species")
        labels = [{name: row[name] for name in names} for row in rows]
        write_atomic(self.home / "storage" / "penguins_labels" / "labels.csv", as_csv(labels))

    def upload(self, rows: list[dict[str, str]]) -> None:
        """Another expedition's data, for training."""
        new = [{**row, "study": f"{row['study']}B"} for row in rows]
        write_atomic(self.home / "storage" / MODEL / "next.csv", as_csv(new))

    def push_fix(self) -> None:
        """A train.py that knows both units."""
        path = self.repository.path / FOLDER / "train.py"
        text = path.read_text("utf-8").replace("\nNUMBERS =", f"{FIX}\nNUMBERS =")
        imputer = 'SimpleImputer(strategy="median"), StandardScaler()'
        text = text.replace(imputer, f"FunctionTransformer(in_mm), {imputer}")
        self.repository.write(f"{FOLDER}/train.py", text)
        self.repository.commit("bills in centimetres, too")

    def requests(self) -> list[Path]:
        """Open revision requests."""
        return sorted((self.home / "revisions").glob("*.md"))

    def closed(self) -> list[Path]:
        """Those that are closed."""
        return sorted((self.home / "revisions" / "closed").glob("*.md"))

    def asks(self) -> list[dict[str, Any]]:
        """Retrainings that were asked for."""
        return build_resources(self.platform.profile)["registry"].records(MODEL, "retrainings")


def _ids(path: Path) -> list[str]:
    return pq.read_table(path, columns=["mlops_request"]).column(0).to_pylist()


ASKED = {"study", "individual", "island", "sex", *NUMBERS}


def _value(name: str, text: str) -> Any:
    if text in ("", "NA"):
        return None
    return float(text) if name in NUMBERS else text


def moved(report: Report) -> set[str]:
    """Names of what moved."""
    return {column.column for column in report.moved}


def play(story: Story) -> None:
    """The whole of it; each claim is asserted."""
    story.release()
    story.tell("version 1 serves production, trained on 344 penguins of three islands")
    story.kept(set(), 1, own=True)
    assert story.look().service.requests == 0, "what a rollout asks is no application's"

    story.replay(story.rows)
    report = story.look()
    assert report.verdict("drift").status == "ok", report.verdict("drift").reason
    story.tell(f"all 344 asked again, unchanged: {report.verdict('drift').reason}")

    centimetres = in_centimetres(story.rows)
    story.replay(centimetres)
    report = story.look()
    assert moved(report) == {"bill_length_mm", "mlops_prediction"}, moved(report)
    assert "a warning" in story.decision
    assert not story.requests()
    story.tell(f"bills in centimetres: drift in {', '.join(sorted(moved(report)))}")
    story.tell(f"    {story.decision}")

    story.replay([row for row in story.rows if row["island"] == "Biscoe"])
    report = story.look()
    assert "island" in moved(report), report.verdict("drift").reason
    assert "sex" not in moved(report)
    story.tell(f"Biscoe alone: drift in {', '.join(sorted(moved(report)))}; not in sex")

    story.replay(centimetres)
    story.label(centimetres)
    story.upload(centimetres)
    report = story.look()
    assert report.verdict("performance").status == "alarm", report.verdict("performance").reason
    assert len(story.asks()) == 1
    assert not story.requests(), "a retraining comes first"
    story.tell(f"species arrive from the field: {report.verdict('performance').reason}")
    story.tell(f"    {story.decision}")

    story.look()
    assert len(story.asks()) == 1, "asked once"
    story.platform.see()
    made = story.platform.settle()
    assert ["dataset", "package", "registered_model", "trained_model"] in made or made, made
    assert story.serves() == 1, "the retrained version does not pass its gates"
    story.tell("retrained on both units, version 2: its gates are closed, version 1 stays")

    for _ in range(3):
        story.look()
    assert len(story.requests()) == 1, story.requests()
    assert len(story.asks()) == 1
    story.tell(f"    {story.decision}")

    story.push_fix()
    story.platform.see()
    made = story.platform.settle()
    assert story.serves() == 3, (story.serves(), made, story.platform.failures)
    story.tell("a train.py that reads both units is pushed: version 3 serves production")

    story.replay(centimetres)
    report = story.look()
    assert report.verdict("performance").status == "ok", report.verdict("performance").reason
    assert not story.requests()
    (closed,) = story.closed()
    assert "Version **3**" in closed.read_text("utf-8")
    story.tell(f"the same birds again: {report.verdict('performance').reason}")
    story.tell(f"    {story.decision}")


def main() -> None:
    """Tell the story, in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mlops-drift-"))
    log = folder / "log"
    told = os.dup(2)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)  # what the runs say, for who needs it
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        story = Story(folder, instance, tell=lambda text: print(text, flush=True))
        try:
            play(story)
            story.tell("the request, as it was closed:")
            print("\n" + story.closed()[0].read_text("utf-8"))
        except BaseException:
            os.dup2(told, 2)
            print(log.read_text("utf-8")[-20_000:], file=sys.stderr)
            raise
        finally:
            os.dup2(told, 2)
            story.platform.serving.stop()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
