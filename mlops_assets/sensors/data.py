"""The data sensors: one listing of a storage root per tick tells which models' data changed."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlops_assets.assets.sources import RAW_DATA, files_metadata, report, seen
from mlops_assets.sensors import INTERVAL_SECONDS
from mlops_assets.spec import ModelSpec
from resources.storage import MissingFolderError, Storage, StoredFile, fingerprint

#: How often Dagster is asked for the last reports of models that did not change. A run reports
#: what it reads, too: that may be a state which came and went between two ticks.
RECHECK_SECONDS = 60.0
#: So many models are named in a line, the others counted.
SHOWN = 10


class Mark(BaseModel):
    """What a sensor remembers of one model's files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    #: When it was first seen, Unix seconds.
    since: float = Field(allow_inf_nan=False)
    #: The last report's, as far as known.
    reported: str = ""
    #: What a run reported after that, and this sensor corrected.
    overruled: str = ""


class Cursor(BaseModel):
    """What a sensor remembers from tick to tick; only saves work, and times what settles."""

    model_config = ConfigDict(extra="forbid")

    #: When Dagster was asked for the last reports of all models, Unix seconds.
    checked: float = Field(default=0.0, allow_inf_nan=False)
    models: dict[str, Mark] = Field(default_factory=dict[str, Mark])


@dataclass
class Outcome:
    """What one tick found: names of models, and the reports to make."""

    events: list[dg.AssetMaterialization] = field(default_factory=list[dg.AssetMaterialization])
    changed: list[str] = field(default_factory=list[str])
    settling: list[str] = field(default_factory=list[str])
    unchanged: list[str] = field(default_factory=list[str])
    disputed: list[str] = field(default_factory=list[str])
    empty: list[str] = field(default_factory=list[str])

    def line(self, objects: int, root: str) -> str:
        """One sentence for the tick's log."""
        parts = [f"{objects} objects below {root}"]
        for word, models in (
            ("changed and reported", self.changed),
            ("settling", self.settling),
            ("without a file", self.empty),
            ("read elsewhere by runs, reload the code location", self.disputed),
            ("unchanged", self.unchanged),
        ):
            if models:
                more = f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
                parts.append(f"{word}: {', '.join(models[:SHOWN])}{more}")
        return "; ".join(parts)


def data_sensors(
    specs: Sequence[ModelSpec],
    storage: Storage,
    status: dg.DefaultSensorStatus,
    now: Callable[[], float] = time.time,
) -> list[dg.SensorDefinition]:
    """One sensor per place that must be listed: the storage's root, and each location outside it.

    Args:
        specs: the models of the code location.
        storage: what is listed.
        status: running or stopped, until somebody changes it on the page.
        now: Unix seconds.
    """
    by_root: dict[str, list[ModelSpec]] = defaultdict(list)
    for spec in specs:
        by_root[storage.root_of(spec.data.location)].append(spec)
    return [_sensor(root, models, storage, status, now) for root, models in by_root.items()]


def _sensor(
    root: str,
    specs: Sequence[ModelSpec],
    storage: Storage,
    status: dg.DefaultSensorStatus,
    now: Callable[[], float],
) -> dg.SensorDefinition:
    @dg.sensor(
        name=_name(root, storage),
        description=f"Reports changed files below {root} as {RAW_DATA}, once they lie still.",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=status,
    )
    def data_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        suffixes = {f".{spec.data.format}" for spec in specs}
        try:
            listed = storage.listing(root, suffixes)
        except MissingFolderError as error:
            names = ", ".join(spec.name for spec in specs[:SHOWN])
            return dg.SensorResult(skip_reason=f"{error}; no data yet of: {names}")
        cursor = _read_cursor(context)
        outcome = _tick(context, specs, _by_model(specs, storage, listed), cursor, now())
        line = outcome.line(len(listed), root)
        if outcome.events:
            context.log.info(line)
        # Dagster's page shows it of each tick that starts no run itself, reports or not.
        return dg.SensorResult(
            asset_events=outcome.events, skip_reason=line, cursor=cursor.model_dump_json()
        )

    return data_sensor


def _name(root: str, storage: Storage) -> str:
    """``data_sensor`` for the storage's root; others end in what they list, and its digest."""
    if root == storage.root_of("."):
        return "data_sensor"
    words = re.sub(r"\W+", "_", root, flags=re.ASCII).strip("_")
    return f"data_sensor_{words[-40:].strip('_')}_{sha256(root.encode()).hexdigest()[:6]}"


def _read_cursor(context: dg.SensorEvaluationContext) -> Cursor:
    if not context.cursor:
        return Cursor()
    try:
        return Cursor.model_validate_json(context.cursor)
    except ValidationError:
        context.log.warning("the cursor is not readable; starting anew, nothing is lost")
        return Cursor()


#: The files of one model, and their fingerprint.
Found = tuple[list[StoredFile], str]


def _by_model(
    specs: Sequence[ModelSpec], storage: Storage, listed: list[StoredFile]
) -> dict[str, Found]:
    """Model -> its files; models that share a location share the work."""
    wanted = {spec.name: (spec.data.location, f".{spec.data.format}") for spec in specs}
    picked = {
        pair: (files, fingerprint(files))
        for pair, files in storage.pick(listed, wanted.values()).items()
    }
    return {model: picked[pair] for model, pair in wanted.items()}


def _tick(
    context: dg.SensorEvaluationContext,
    specs: Sequence[ModelSpec],
    found: Mapping[str, Found],
    cursor: Cursor,
    now: float,
) -> Outcome:
    """Compare what lies there with what was last reported; brings the cursor up to date."""
    outcome = Outcome(empty=[spec.name for spec in specs if not found[spec.name][0]])
    recheck = not 0 <= now - cursor.checked < RECHECK_SECONDS
    marks: dict[str, Mark] = {}
    asked: list[ModelSpec] = []
    for spec in (spec for spec in specs if found[spec.name][0]):
        mark = _marked(cursor.models.get(spec.name), found[spec.name][1], now)
        marks[spec.name] = mark
        left = mark.since + spec.data.settle_seconds - now
        known = mark.fingerprint == mark.reported
        if left <= 0 and (recheck or not known):
            asked.append(spec)
        elif known:
            outcome.unchanged.append(spec.name)
        else:
            outcome.settling.append(f"{spec.name} ({left:.1f} s to go)")
    last = seen(context.instance, [(spec.name, RAW_DATA) for spec in asked]) if asked else {}
    for spec in asked:
        before = last.get((spec.name, RAW_DATA))
        files, mark = found[spec.name][0], marks[spec.name]
        marks[spec.name] = _judge(spec, files, mark, before.version if before else "", outcome)
    cursor.models = marks
    cursor.checked = now if recheck else cursor.checked
    return outcome


def _judge(
    spec: ModelSpec, files: list[StoredFile], mark: Mark, last: str, outcome: Outcome
) -> Mark:
    """Report a model's files unless the last report, of version ``last``, was of the same."""
    if mark.fingerprint == last:
        outcome.unchanged.append(spec.name)
        return mark.model_copy(update={"reported": last})
    again = mark.fingerprint == mark.reported
    if again and mark.overruled == last:
        # Runs read another location or format than the model.yaml loaded here says: to insist
        # would start a run for ever.
        outcome.disputed.append(spec.name)
        return mark
    metadata = files_metadata(spec.data.location, files)
    outcome.events.append(report(spec.name, RAW_DATA, mark.fingerprint, metadata))
    outcome.changed.append(spec.name)
    return mark.model_copy(
        update={"reported": mark.fingerprint, "overruled": last if again else ""}
    )


def _marked(mark: Mark | None, digest: str, now: float) -> Mark:
    """The mark as of now: its time runs from the first tick that saw this fingerprint."""
    if mark is None or mark.fingerprint != digest:
        return Mark(fingerprint=digest, since=now, reported=mark.reported if mark else "")
    # A clock that was set back must not let it settle for ever.
    return mark if mark.since <= now else mark.model_copy(update={"since": now})
