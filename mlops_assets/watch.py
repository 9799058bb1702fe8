"""A look at one endpoint: what is gathered for it, and the reports that it left.

Everything heavy is imported inside: the code location loads without numpy.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.errors import UserError
from mlops_assets.judgement import DEPLOYMENTS
from mlops_assets.monitoring.report import Report
from mlops_assets.scoring.capture.settings import PREDICTION
from mlops_assets.spec import ModelSpec, parse_model
from resources.artifacts import Artifacts
from resources.captured import LONGEST_FILE, Captured, CapturedFile
from resources.documents import Documents
from resources.environment import CapturePolicy, Environment
from resources.registry import Registry, Version
from resources.storage import Storage, StorageError, StoredFile

if TYPE_CHECKING:
    from mlops_assets.monitoring.labels import Labelled

#: First part of the reports' names.
REPORTS = "monitoring"
#: Earlier reports that make the series.
SERIES = 100
#: Labels find rows that were answered so long ago.
LABEL_DAYS = 30
#: So many files beyond ``freshness_hours`` the last request of an application is looked for: it is
#: late then, and only the sentence says since when.
LOOKED_BEYOND = 20


class WatchError(UserError):
    """What serves cannot be looked at; the message says why."""


@dataclass(frozen=True)
class Sight:
    """Which version serves an environment, since when, and what may be seen of its rows."""

    environment: Environment
    version: Version
    since: dt.datetime
    #: The released model.yaml.
    spec: ModelSpec
    policy: CapturePolicy

    @property
    def allowed(self) -> frozenset[str]:
        """Columns whose values may be shown; the prediction's too, where it is kept."""
        kept = self.policy.columns
        names = {n for n in self.spec.data.columns if kept is None or n in kept}
        names |= {self.spec.data.target, PREDICTION}
        names -= set(self.policy.exclude)
        return frozenset(names if self.spec.data.target in names else names - {PREDICTION})

    @property
    def judged_spec(self) -> ModelSpec:
        """The released model.yaml without what the policy keeps out: not a name of a slice is left.

        Files from before a column was excluded may still hold it.
        """
        hidden = [n for n in self.spec.data.columns if n not in self.allowed]
        monitoring = self.spec.monitoring
        ignored = list(dict.fromkeys([*monitoring.ignore, *hidden]))
        return self.spec.model_copy(
            update={
                "slices": [name for name in self.spec.slices if name in self.allowed],
                "monitoring": monitoring.model_copy(update={"ignore": ignored}),
            }
        )


def sight(registry: Registry, model: str, environment: Environment) -> Sight | None:
    """What serves an environment that captures; None before the first deployment.

    Raises:
        WatchError: the environment captures nothing.
    """
    if environment.capture is None:
        raise WatchError(
            f"{environment.name} captures nothing; its JSON file would have to say "
            '"capture": {}, see docs/monitoring.md'
        )
    records = [
        r for r in registry.records(model, DEPLOYMENTS) if r["environment"] == environment.name
    ]
    if not records:
        return None
    version = registry.version(model, int(records[-1]["version"]))
    since = dt.datetime.fromisoformat(records[-1]["ended"])
    return Sight(environment, version, since, released_spec(version), environment.capture)


def released_spec(version: Version) -> ModelSpec:
    """The model.yaml that a version was trained by."""
    code = version.bundle / "code"
    found = sorted(code.glob(f"**/{version.model}/model.yaml")) or sorted(
        code.glob("**/model.yaml")
    )
    if not found:
        raise WatchError(f"{version.model} {version.version}: no model.yaml in its bundle")
    return parse_model(found[0].read_text("utf-8"), version.model, found[0])


@dataclass(frozen=True)
class Sources:
    """Where a look finds what it looks at."""

    artifacts: Artifacts
    captured: Captured
    storage: Storage


def look(seen: Sight, sources: Sources, now: dt.datetime, folder: Path) -> Report:
    """Judge the window that ends now.

    Args:
        seen: what serves.
        sources: where rows, snapshots and labels are.
        now: aware.
        folder: scratch, for copies.

    Raises:
        WatchError: the snapshot that the version was trained on is gone.
    """
    from mlops_assets.monitoring.monitor import Span, monitor

    version, spec, name = seen.version, seen.judged_spec, seen.environment.name
    digest = version.manifest.snapshot.digest
    reference = sources.artifacts.path("snapshots", digest) / "data.parquet"
    if not reference.is_file():
        raise WatchError(
            f"{version.model} version {version.version}: the snapshot {digest[:10]} that it was "
            "trained on is no longer in the artifact store; release the model again"
        )
    begin = now - dt.timedelta(hours=spec.monitoring.window_hours)
    files = sources.captured.files(version.model, name, begin, now)
    paths = sources.captured.fetch(version.model, name, files, folder / "captured")
    raw = raw_files(sources.storage, seen.spec)
    span = Span(
        paths,
        now,
        version.version,
        since=begin,
        serves=seen.since,
        asked_before=lambda: _asked_before(seen, sources, now, folder),
        last_data=_newest_change(raw),
    )
    report = monitor(
        span,
        reference,
        spec,
        version.evidence,
        _labelled(seen, sources, now, folder),
        folder,
        predictions=PREDICTION in seen.allowed,
    )
    # As it will be read back: plain numbers, whatever made them.
    return Report.model_validate_json(report.model_dump_json())


def _asked_before(
    seen: Sight, sources: Sources, now: dt.datetime, folder: Path
) -> dt.datetime | None:
    """When an application asked last before the window; from the newest files back.

    Whatever may hold a request that is not late is looked at: a count of files would end at those
    that the platform's own requests make.
    """
    from mlops_assets.monitoring.window import last_request

    name, environment = seen.version.model, seen.environment.name
    policy, keep = seen.spec.monitoring, seen.policy.keep_days
    until = now - dt.timedelta(hours=policy.window_hours)
    # Nothing is older than what is kept, however many hours model.yaml names.
    fresh = now - dt.timedelta(days=min(policy.freshness_hours / 24, keep + 1)) - LONGEST_FILE
    since = min(fresh, until - dt.timedelta(days=min(keep, LABEL_DAYS)))
    together: dict[dt.datetime, list[CapturedFile]] = {}
    for file in reversed(sources.captured.files(name, environment, since, until)):
        together.setdefault(file.first, []).append(file)
    beyond = [first for first in together if first < fresh]
    for first in [*(f for f in together if f >= fresh), *beyond[:LOOKED_BEYOND]]:
        paths = sources.captured.fetch(name, environment, together[first], folder / "captured")
        found = last_request(paths, folder, until)
        if found is not None:
            return found
    return None


def raw_files(storage: Storage, spec: ModelSpec) -> list[StoredFile] | None:
    """The files of the model's data location; None where they cannot be listed."""
    try:
        return storage.files(spec.data.location, f".{spec.data.format}")
    except StorageError:
        return None


def _newest_change(files: Sequence[StoredFile] | None) -> dt.datetime | None:
    moments = [f.changed for f in files or () if f.changed < float("inf")]
    return dt.datetime.fromtimestamp(max(moments), dt.UTC) if moments else None


def _labelled(seen: Sight, sources: Sources, now: dt.datetime, folder: Path) -> Labelled | None:
    """Labelled rows with all that the version answered since it serves, or for a month."""
    labels, spec = seen.spec.monitoring.labels, seen.spec
    if labels is None or not {spec.data.target, *spec.data.key, PREDICTION} <= seen.allowed:
        return None
    try:
        files = sources.storage.files(labels.location, f".{labels.format}")
        # What arrived last counts, whatever it is called.
        files = sorted(files, key=lambda file: (file.changed, str(file.path)))
    except StorageError:
        return None  # none has arrived yet
    from mlops_assets.monitoring.labels import Labelled

    since = max(seen.since, now - dt.timedelta(days=LABEL_DAYS))
    name, environment = seen.version.model, seen.environment.name
    captured = sources.captured.files(name, environment, since, now)
    return Labelled(
        [_here(file, folder / "labels", number) for number, file in enumerate(files)],
        sources.captured.fetch(name, environment, captured, folder / "captured"),
        labels.format,
    )


def _here(file: StoredFile, folder: Path, number: int) -> Path:
    """A file of this machine, copied where it is none."""
    if file.path.protocol in ("", "file", "local"):
        return Path(file.path.path)
    target = folder / str(number) / file.path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.path.open("rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    return target


# -- reports


class Reports:
    """Documents ``monitoring/<environment>/<model>/<time>.json``; none is ever changed."""

    def __init__(self, documents: Documents, model: str, environment: str) -> None:
        self._documents = documents
        self._folder = f"{REPORTS}/{environment}/{model}"

    def add(self, report: Report) -> Report:
        """Keep a report; the one that there is for that moment stays, and is returned."""
        name = self._name(report.time)
        if self._documents.create(name, report.model_dump_json(indent=1)):
            return report
        return self._read(name) or report

    def before(self, time: dt.datetime) -> list[Report]:
        """The last reports before a moment, oldest first."""
        names = [n for n in self._documents.names(self._folder) if n < self._name(time)]
        return [r for r in map(self._read, names[-SERIES:]) if r is not None]

    def at(self, time: dt.datetime) -> Report | None:
        """The report of a moment, if there is one."""
        return self._read(self._name(time))

    def _name(self, time: dt.datetime) -> str:
        return f"{self._folder}/{time.astimezone(dt.UTC):%Y%m%dT%H%M%S%f}Z.json"

    def _read(self, name: str) -> Report | None:
        found = self._documents.read(name)
        return None if found is None else Report.model_validate_json(found)


def with_since(report: Report, earlier: Sequence[Report]) -> Report:
    """The same report, with what it says of alarms that go on since reports before it."""
    begins = {v.name: begun(report, earlier, v.name) for v in report.verdicts}
    return report.model_copy(update={"since": {n: at for n, at in begins.items() if at}})


def begun(report: Report, earlier: Sequence[Report], verdict: str) -> dt.datetime | None:
    """When an alarm that goes on was first seen; None where none does.

    A window that nobody could judge does not end it: only a good one does, or another version.
    """
    since = None
    for one in (report, *reversed(earlier)):
        status = one.verdict(verdict).status
        if one.version != report.version or status == "ok":
            break
        if verdict in one.since:
            return one.since[verdict]
        if status == "alarm":
            since = one.time
    return since


def asset_name(environment: str) -> str:
    """Name of the asset that watches an environment."""
    return f"{environment}_monitoring"


def asset_key(model: str, environment: str) -> dg.AssetKey:
    """Key of the asset that watches a model in an environment."""
    return dg.AssetKey([model, asset_name(environment)])
