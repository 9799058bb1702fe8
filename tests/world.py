"""A world in which anything may happen at any time.

Real commits, files, database, processes and endpoints. The daemon alone is played: its ticks, its
restarts and the steps of its runs are actions of the test, so that every interleaving can be had,
and had again.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from mlops_assets.definitions import build_definitions
from mlops_assets.files import write_atomic
from mlops_assets.sensors.automation import AutomationSensor
from mlops_assets.sensors.data import data_sensors
from mlops_assets.sensors.git import git_sensor
from mlops_assets.spec import load_model
from mlops_assets.wiring import build_resources
from resources.environment import load_profile
from resources.serving import Serving
from tests.git_servers import bare_of
from tests.repository import TRAIN_PY, WORSE_TRAIN_PY, make_repository, rows
from tests.stepped_run import SteppedRun, Task

BROKEN_TRAIN_PY = "def build(params):\n    raise ValueError('no idea')\n"
BROKEN_DATA = "flat,area\n1,2\n"
FOLDER = "mlops_assets/models/rent"
SENSORS = ("git_sensor", "data_sensor", "automation")
#: Of Dagster's instance. What a run prints, and nobody reads, takes a process per run to keep.
SETTINGS = """\
telemetry: {enabled: false}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
#: Seconds between two ticks of a sensor.
TICK_SECONDS = 5.0
#: Runs that may be cut short before the world rests: a third one may be the last that is tried.
MOST_CUTS = 2


class Run:
    """A run that was asked for; its process starts when it is first told to go on."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.process: SteppedRun | None = None

    def start(self) -> SteppedRun:
        """The process, started if it is not."""
        self.process = self.process or SteppedRun(self.task)
        return self.process

    def __str__(self) -> str:
        return f"{self.task.run_id[:4]}({','.join(a[:4] for a in sorted(self.task.assets))})"


class World:
    """A remote repository, a data storage, a daemon, and the endpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone = make_repository(folder / "clone")
        self.bare = bare_of(self.clone)
        self.home = folder / "home"
        variables = {"MLOPS_HOME": str(self.home), "MLOPS_REPOSITORY": str(self.bare.path)}
        self.profile = load_profile(variables, self.clone.path)
        self.data("base.csv", rows(200))
        database = self.home / "dagster"
        write_atomic(database / "dagster.yaml", SETTINGS)
        self.instance = dg.DagsterInstance.from_config(str(database))
        self.resources = build_resources(self.profile)
        self.serving = Serving(self.profile)
        self.clock = 1_000_000.0
        self.cursors: dict[str, str | None] = dict.fromkeys(SENSORS)
        self.runs: list[Run] = []
        self.cuts = self.changes = self.trainings = self.completed = self.lost = 0
        self.drops = False
        #: What happened, for people.
        self.story: list[str] = []
        self.begun = time.monotonic()
        self.restart()

    def close(self) -> None:
        """End all processes."""
        for run in self.runs:
            if run.process and run.process.point:
                run.process.kill()
        self.serving.stop()
        self.instance.dispose()
        shutil.rmtree(self.folder)

    # What people do.

    def data(self, name: str, text: str) -> None:
        """Upload a file, or replace it."""
        write_atomic(self.home / "storage" / "rent" / name, text)

    def push(self, text: str) -> None:
        """Another train.py on the branch."""
        self.clone.train_py(text)
        self.clone.git("push", "--quiet", "--force", str(self.bare.path), "main")

    def change(self, kind: str, which: int, far: int) -> None:
        """A change of code or data."""
        self.changes += 1
        extra = f"extra{which % 3}.csv"
        match kind:
            case "push good":
                self.push(f"{TRAIN_PY}\n# variant {which}\n")
            case "push worse":
                self.push(WORSE_TRAIN_PY)
            case "push broken":
                self.push(BROKEN_TRAIN_PY)
            case "revert":
                commits = self.clone.git("log", "--format=%H", "main").split()
                commit = commits[far % len(commits)]
                self.push(self.clone.git("show", f"{commit}:{FOLDER}/train.py") + "\n")
            case "rewind":
                commits = self.clone.git("log", "--format=%H", "main").split()
                self.clone.git("reset", "--quiet", "--hard", commits[far % len(commits)])
                self.clone.git("push", "--quiet", "--force", str(self.bare.path), "main")
            case "upload":
                self.data(extra, rows(40, start=1000 + 100 * which, noise=15.0 + far % 8))
            case "touch":
                self.data("base.csv", rows(200))
            case "upload broken":
                self.data("broken.csv", BROKEN_DATA)
            case _:
                assert kind == "remove"
                for path in sorted((self.home / "storage" / "rent").glob("[!b]*.csv"))[-1:]:
                    path.unlink()
                (self.home / "storage" / "rent" / "broken.csv").unlink(missing_ok=True)

    # What the daemon does.

    def restart(self) -> None:
        """Load the code location anew; cursors are kept."""
        self.located = build_definitions(self.profile).get_repository_def()
        specs = [load_model(self.profile.models / "rent")]
        running, now = dg.DefaultSensorStatus.RUNNING, self.now
        self.sensors = {"automation": self.located.get_sensor_def("automation")}
        self.sensors["git_sensor"] = git_sensor(specs, self.resources["git"], running, now)
        (self.sensors["data_sensor"],) = data_sensors(
            specs, self.resources["storage"], running, now
        )
        assert isinstance(self.sensors["automation"], AutomationSensor)
        self.sensors["automation"].watch_seconds = 0.0

    def now(self) -> float:
        """Time as the sensors of git and data see it, Unix seconds."""
        return self.clock

    def tick(self, name: str) -> bool:
        """One tick of a sensor; whether it reported or asked for anything."""
        self.clock += TICK_SECONDS
        context = dg.build_sensor_context(
            instance=self.instance, repository_def=self.located, cursor=self.cursors[name]
        )
        data = self.sensors[name].evaluate_tick(context)
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursors[name] = data.cursor
        requests = list(data.run_requests or [])
        if requests and self.drops and self.cuts < MOST_CUTS:
            self.tell(f"  {len(requests)} requests are lost")
            self.cuts += 1
            requests = []
        self.drops = False
        for request in requests:
            self._create(request)
        return bool(data.asset_events or data.run_requests)

    def _create(self, request: dg.RunRequest) -> None:
        keys = set(request.asset_selection or [])
        job = self.located.get_implicit_global_asset_job_def()
        run = self.instance.create_run_for_job(
            job_def=job.get_subset(asset_selection=keys),
            asset_selection=frozenset(keys),
            tags=dict(request.tags),
        )
        task = Task(
            root=str(self.clone.path),
            home=str(self.home),
            repository=str(self.bare.path),
            instance=str(self.home / "dagster"),
            run_id=run.run_id,
            assets=[key.path[-1] for key in keys],
        )
        self.runs.append(Run(task))
        self.tell(f"  asks for {self.runs[-1]}")

    def tell(self, line: str) -> None:
        """Keep what happened."""
        self.story.append(f"{time.monotonic() - self.begun:7.2f} {line}")

    def unfinished(self) -> list[dg.DagsterRun]:
        """Runs that Dagster believes to be going on."""
        return list(self.instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)))
