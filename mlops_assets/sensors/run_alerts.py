"""What is worth an alert in runs: that one failed, and checks that failed in it."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.events import JobFailureData

from mlops_assets.assets import infrastructure, monitoring
from mlops_assets.assets.endpoint import SUFFIX
from mlops_assets.assets.live_checks import LIVE_CHECKS
from mlops_assets.assets.registered_model import ENVIRONMENT_CHECK
from mlops_assets.gates import GATES
from mlops_assets.runs import COMMIT_TAG, MODEL_TAG, TRIGGER_TAG, VERSION_TAG, assets_of
from resources.alerts import Alert

#: A run is read again for so long after its end, as records of runs become visible out of order.
OVERLAP = timedelta(seconds=30)

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
ACTIVE = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]

#: Checks on ``dataset`` that only warn. A broken contract fails its run, which says more.
WARNINGS = ("volume", "drift")

_EVENTS = {
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
}
_SHOWN_TAGS = {COMMIT_TAG: "commit", VERSION_TAG: "version", TRIGGER_TAG: "started by"}


@dataclass(frozen=True)
class Look:
    """What runs are looked at for."""

    instance: dg.DagsterInstance
    #: Environments whose gates and checks alert.
    watched: Sequence[str]
    #: Where Dagster's page is, for links.
    page: str | None = None

    def runs(self, since: datetime, read: Collection[str]) -> list[dg.RunRecord]:
        """Runs that have not ended, and those that ended since, oldest first; without ``read``."""
        ended = self.instance.get_run_records(
            dg.RunsFilter(statuses=ENDED, updated_after=since - OVERLAP),
            order_by="update_timestamp",
            ascending=True,
        )
        # A release of many models takes long; its first closed gate is told before its end.
        active = self.instance.get_run_records(dg.RunsFilter(statuses=ACTIVE), ascending=True)
        return [r for r in (*ended, *active) if r.dagster_run.run_id not in read]

    def alerts(self, record: dg.RunRecord, start: float) -> list[Alert]:
        """Everything worth telling about one run so far.

        Args:
            record: the run.
            start: when watching began; what ended before is not told. Seconds since 1970.
        """
        if record.end_time is not None and record.end_time < start:
            return []
        run = record.dagster_run
        connection = self.instance.get_records_for_run(run.run_id, of_type=_EVENTS)
        entries = [r.event_log_entry for r in connection.records]
        events = [e.dagster_event for e in entries if e.dagster_event]
        failed = [
            event.asset_check_evaluation_data
            for event in events
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
            and not event.asset_check_evaluation_data.passed
        ]
        found = [self._check_alert(run, check) for check in failed]
        if run.status == dg.DagsterRunStatus.FAILURE and not _only_closed_gates(events, failed):
            found.append(self._run_alert(run, events))
        return [alert for alert in found if alert]

    def _check_alert(self, run: dg.DagsterRun, check: dg.AssetCheckEvaluation) -> Alert | None:
        if len(check.asset_key.path) != 2:
            return None
        model, asset = check.asset_key.path
        name = check.check_name
        version = _value(check.metadata, "version") or f"of run {run.run_id[:8]}"
        if asset == "registered_model" and self._is_gate(check):
            key = f"gate/{model}/{version}/{name}"
            title = f"{model} version {version}: {_gate_name(name)} is closed"
        elif asset.endswith(SUFFIX) and name in LIVE_CHECKS:
            environment = asset.removesuffix(SUFFIX)
            if environment not in self.watched:
                return None
            key = f"live/{model}/{environment}/{version}/{name}"
            title = f"{model} version {version} in {environment}: check {name} failed"
        elif asset == "dataset" and name in WARNINGS:
            key = f"data/{model}/{name}/{self._snapshot(run, check.asset_key)}"
            title = f"{model}: check {name} warns about the data"
        elif asset.endswith(monitoring.SUFFIX) and name in monitoring.CHECKS:
            environment = asset.removesuffix(monitoring.SUFFIX)
            if environment not in self.watched:
                return None
            key = f"monitoring/{model}/{environment}/{version}/{name}/"
            key += _value(check.metadata, "since") or ""
            title = f"{model} version {version} in {environment}: {name} alarms"
        elif model == infrastructure.GROUP and name == infrastructure.DRIFT:
            known = hashlib.sha256((check.description or "").encode()).hexdigest()
            key = f"infrastructure/{asset}/{known[:16]}"
            title = f"Azure is not as the documents of {asset} say"
        else:
            return None
        return self._alert(run, key, title, [check.description or "", *_tags(run)])

    def _is_gate(self, check: dg.AssetCheckEvaluation) -> bool:
        if check.check_name in GATES:
            # Only a warning: somebody tries out uncommitted work.
            return check.severity == dg.AssetCheckSeverity.ERROR
        environment = check.check_name.removeprefix(ENVIRONMENT_CHECK)
        return environment != check.check_name and environment in self.watched

    def _snapshot(self, run: dg.DagsterRun, key: dg.AssetKey) -> str:
        """The snapshot that a run made; the run itself where it made none."""
        made = self.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for record in made.records:
            event = record.event_log_entry.asset_materialization
            if event and event.asset_key == key:
                return _value(event.metadata, "snapshot") or run.run_id
        return run.run_id

    def _run_alert(self, run: dg.DagsterRun, events: Sequence[dg.DagsterEvent]) -> Alert:
        keys = assets_of(self.instance, run)
        models = sorted({k.path[0] for k in keys if len(k.path) == 2})
        if not models and MODEL_TAG in run.tags:
            models = [run.tags[MODEL_TAG]]
        step, reason = _first_failure(events)
        for model in models:
            step = step.removeprefix(f"{model}__")
        title = f"{_some(models, 3) or run.job_name}: run failed{f' at {step}' if step else ''}"
        assets = _some(sorted(k.to_user_string() for k in keys), 8)
        lines = [reason, f"assets: {assets}" if assets else "", *_tags(run)]
        return self._alert(run, f"run/{run.run_id}", title, lines)

    def _alert(self, run: dg.DagsterRun, key: str, title: str, lines: Sequence[str]) -> Alert:
        text = "\n".join(line for line in (*lines, f"run: {run.run_id}") if line)
        url = f"{self.page.rstrip('/')}/runs/{run.run_id}" if self.page else None
        return Alert(key, title, text, url)


def short(text: str) -> str:
    """The beginning and the end of a long text, as a message shows it."""
    lines = [line[:300] for line in text.strip().splitlines()]
    if len(lines) > 12:
        lines = [*lines[:4], "…", *lines[-6:]]
    return "\n".join(lines)[:2000]


def error_text(error: Any) -> str:
    """The message of an error that Dagster has stored, without its stack.

    Args:
        error: a SerializableErrorInfo, or None. Dagster wraps what user code raises in an error
            of its own, whose cause is meant.
    """
    if error is None:
        return ""
    return short((error.cause or error).message)


def _only_closed_gates(
    events: Sequence[dg.DagsterEvent], failed: Sequence[dg.AssetCheckEvaluation]
) -> bool:
    """Whether gates that were found closed are all that went wrong; each has its own message."""
    errors = [
        event.step_failure_data.error
        for event in events
        if event.event_type == dg.DagsterEventType.STEP_FAILURE
    ]
    blocking = [c for c in failed if c.blocking and c.severity == dg.AssetCheckSeverity.ERROR]
    return (
        bool(errors)
        and all(e is not None and e.cls_name == "DagsterAssetCheckFailedError" for e in errors)
        and all(check.asset_key.path[-1] == "registered_model" for check in blocking)
    )


def _first_failure(events: Sequence[dg.DagsterEvent]) -> tuple[str, str]:
    """Name of the step that failed first, "" where none did, and the reason."""
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            told = data.user_failure_data.description if data.user_failure_data else None
            return event.step_key or "", short(told) if told else error_text(data.error)
    for event in events:
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            data = event.event_specific_data  # of a run that was reported as failed there is none
            error = data.error if isinstance(data, JobFailureData) else None
            return "", error_text(error) or short(event.message or "")
    return "", "no step failed; see the run's log"


def _tags(run: dg.DagsterRun) -> list[str]:
    return [f"{shown}: {run.tags[tag]}" for tag, shown in _SHOWN_TAGS.items() if tag in run.tags]


def _value(metadata: Any, name: str) -> str | None:
    return str(metadata[name].value) if name in metadata else None


def _gate_name(name: str) -> str:
    environment = name.removeprefix(ENVIRONMENT_CHECK)
    return f"gate {name}" if environment == name else f"the gate of {environment}"


def _some(names: Sequence[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def since_epoch(seconds: float) -> datetime:
    """A moment, in UTC, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)
