"""The assets ``<environment>_monitoring``: what production gets, beside what was trained on."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from mlops_assets import retraining, revising
from mlops_assets.assets.monitoring_page import page_metadata
from mlops_assets.decision import UNDECIDED, Decision, Retraining, alarmed, decide
from mlops_assets.errors import UserError
from mlops_assets.gates import Verdict
from mlops_assets.judgement import Judge
from mlops_assets.monitoring.report import Report
from mlops_assets.runs import TRIGGER_TAG
from mlops_assets.sensors.outbox import Outbox
from mlops_assets.watch import (
    Reports,
    Sight,
    Sources,
    asset_key,
    look,
    raw_files,
    sight,
    with_since,
)
from resources.alerts import Alert
from resources.artifacts import Artifacts
from resources.attempts import Attempts
from resources.captured import Captured
from resources.documents import Documents
from resources.environment import PRODUCTION, Profile
from resources.references import References
from resources.registry import Registry, Version
from resources.storage import Storage, fingerprint
from resources.tracker import Tracker, TrackerError, build_tracker

SUFFIX = "_monitoring"
#: The job of all models and environments, and when it runs.
JOB, CRON = "monitoring", "0 * * * *"

#: This asset's checks; none holds anything back.
CHECKS = {
    "drift": "The requests of the window are distributed as the data the version was trained on.",
    "performance": "Labelled rows are predicted as well as at release.",
    "freshness": "Requests and data have arrived lately.",
}
#: Columns that moved and are drawn on the page; the report has the others.
DRAWN = 4


class MonitoringConfig(dg.Config):
    """Which window is looked at."""

    now: str | None = Field(
        None, description="When the window ends: ISO 8601 with a zone; this moment by default."
    )


@dg.op(
    name="monitoring",
    ins={"endpoint": dg.In(dg.Nothing)},
    # Optional: where nothing serves there is nothing to tell, and that is no failure.
    out={
        "result": dg.Out(dg.Nothing, is_required=False),
        **{check: dg.Out(dg.Nothing, is_required=False) for check in CHECKS},
    },
)
def monitoring(
    context: dg.AssetExecutionContext,
    config: MonitoringConfig,
    profile: dg.ResourceParam[Profile],
    documents: Documents,
    captured: dg.ResourceParam[Captured],
    storage: Storage,
    artifacts: Artifacts,
    references: References,
    registry: dg.ResourceParam[Registry],
    attempts: Attempts,
    judge: Judge,
):
    """Captured requests of the last hours beside the data that the serving version was trained on.

    Where labels have arrived, also how well it predicts. Drift alone warns; a loss of performance
    asks for a retraining first, and where that cannot help for a revision.
    """
    key = context.asset_key
    model, name = key.path[0], key.path[-1].removesuffix(SUFFIX)
    try:
        now = _moment(config.now)
        environment = profile.environment(name)
        seen = sight(registry, model, environment)
        if seen is None:
            context.log.info(f"{model}: nothing serves {name} yet")
            return
        reports = Reports(documents, model, name)
        sources = Sources(artifacts, captured, storage)
        with artifacts.workspace() as folder:
            earlier = reports.before(now)
            report = reports.add(with_since(look(seen, sources, now, folder), earlier))
            acts = _Acts(context, profile, seen, report, earlier)
            decision, told = acts.act(sources, references, registry, attempts, judge, folder)
            if acts.trouble:
                told.append(f"the tracker is asked again at the next look: {acts.trouble}")
            metadata = page_metadata(
                report, decision, told, _draw(folder / "pictures", report, earlier)
            )
        # A server tidies its own disk; in blob storage nobody else does. By today's date: the time
        # that is asked about may be any.
        today = dt.datetime.now(dt.UTC).date()
        captured.tidy(model, name, seen.policy.keep_days, today)
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    yield dg.MaterializeResult(
        asset_key=key,
        data_version=dg.DataVersion(f"{report.time.isoformat()}-{seen.version.digest[:16]}"),
        metadata=metadata,
        check_results=list(_checks(key, report)),
    )
    # Only now: what was found is shown, and told of, whether or not the tracker answers.
    if acts.trouble:
        raise dg.Failure(acts.trouble, allow_retries=False)


def _moment(text: str | None) -> dt.datetime:
    if text is None:
        return dt.datetime.now(dt.UTC)
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"'{text}' is no time; give one such as 2026-03-31T18:00+00:00") from None
    return found.astimezone(dt.UTC)


@dataclass(frozen=True)
class _Retrained:
    """What has become of retrainings."""

    #: On the data as it is now, whose fingerprint follows.
    state: Retraining = "unknown"
    data: str = ""
    #: Fingerprint of the data that a revision is asked for about, and what the gates say of it.
    about: str = ""
    verdicts: Sequence[Verdict] = ()
    #: What the last one that is over came to, where the data is newer still.
    past: Retraining = "unknown"


class _Acts:
    """What follows from one report."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        profile: Profile,
        seen: Sight,
        report: Report,
        earlier: Sequence[Report],
    ) -> None:
        self._context, self._profile = context, profile
        self._seen, self._report, self._earlier = seen, report, earlier
        self._outbox = Outbox(profile.home / "alerts")
        #: Why the tracker did not do what it was asked for; empty if it did.
        self.trouble = ""

    def act(
        self,
        sources: Sources,
        references: References,
        registry: Registry,
        attempts: Attempts,
        judge: Judge,
        folder: Path,
    ) -> tuple[Decision, list[str]]:
        """Do what is to be done; returns it, and what became of it in words."""
        seen, report = self._seen, self._report
        acts = seen.environment.name == PRODUCTION
        fallen = any(cause != "drift" for cause in alarmed(report))
        found = _Retrained()
        if acts and fallen:
            found = self._retrained(sources, references, registry, attempts, judge)
        decision = decide(report, found.state, acts, found.past)
        told: list[str] = []
        if decision.retrains:
            reason = report.verdict("performance").reason
            number = retraining.ask(
                registry, seen.version, seen.environment.name, found.data, reason
            )
            told.append(f"retraining {number} is asked for")
        finding = None
        if decision.action == "revise":
            assert decision.cause is not None, "a revision has a cause"
            finding = revising.Finding(
                seen,
                report,
                self._earlier,
                decision.cause,
                found.about,
                [verdict for verdict in found.verdicts if not verdict.passed],
                self._sample(sources, folder),
                self._shown(folder / "request"),
                self._profile.page,
            )
        if acts:
            told += self._requested(finding, registry, judge)
        return decision, told

    def _retrained(
        self,
        sources: Sources,
        references: References,
        registry: Registry,
        attempts: Attempts,
        judge: Judge,
    ) -> _Retrained:
        """What has become of retrainings: on the data as it is now, and of the last one over."""
        serving = self._seen.version
        files = raw_files(sources.storage, self._seen.spec)
        if files is None:
            return _Retrained()
        data = fingerprint(files)
        state, version = retraining.outcome(attempts, references, registry, serving, data)
        state, verdicts = self._judged(state, version, judge)
        if state not in UNDECIDED:
            return _Retrained(state, data, data, verdicts)
        last = retraining.past(attempts, references, registry, serving)
        past, verdicts = self._judged(last.state, last.version, judge)
        return _Retrained(state, data, last.data or data, verdicts, past)

    def _judged(
        self, state: Retraining, version: Version | None, judge: Judge
    ) -> tuple[Retraining, Sequence[Verdict]]:
        if version is None:
            return state, ()
        verdicts = judge.judge(self._context, version, self._seen.environment)
        return retraining.judged(state, verdicts), verdicts

    def _requested(
        self, finding: revising.Finding | None, registry: Registry, judge: Judge
    ) -> list[str]:
        """Bring the tracker up to date; one that fails leaves ``trouble``."""
        told: list[str] = []
        try:
            tracker = build_tracker(self._profile.tracker, self._profile.home)
            if finding is not None:
                told.append(self._ask(tracker, registry, finding))
            if self._seen.version.version > 1:
                told += self._close(tracker, judge)
        except TrackerError as error:
            self.trouble = str(error)
        return told

    def _ask(self, tracker: Tracker, registry: Registry, finding: revising.Finding) -> str:
        opened = revising.ask(tracker, registry, finding)
        if opened is None:
            return "not again: it was closed by people, and the loss is the same"
        self._outbox.put(revising.opening(opened))
        return f"revision request {opened.name} is open: {opened.url}"

    def _close(self, tracker: Tracker, judge: Judge) -> list[str]:
        version = self._seen.version
        if not any(r.model == version.model for r in tracker.open_requests()):
            return []
        verdicts = judge.judge(self._context, version, self._seen.environment)
        is_open = all(verdict.passed for verdict in verdicts)
        closed = revising.close(tracker, self._seen, self._report, self._earlier, is_open)
        for request in closed:
            title = f"{version.model} version {version.version} resolves a revision request"
            key = f"resolved/{request.url}/{version.version}"
            self._outbox.put(Alert(key, title, f"Request {request.name} is closed."))
        return [f"revision request {request.name} is closed" for request in closed]

    def _sample(self, sources: Sources, folder: Path) -> list[dict[str, Any]]:
        seen, until = self._seen, self._report.time
        since = until - dt.timedelta(hours=seen.spec.monitoring.window_hours)
        model, name = seen.version.model, seen.environment.name
        files = sources.captured.files(model, name, since, until)
        paths = sources.captured.fetch(model, name, files, folder / "captured")
        return revising.sample_rows(paths, seen, since, until, folder)

    def _shown(self, folder: Path) -> dict[str, bytes]:
        """Pictures of columns that may be shown; their names say what they are."""
        drawn = _draw(folder, self._report, self._earlier)
        columns = {f"{n}-drift": c.column for n, c in enumerate(self._report.moved, start=1)}
        shown = {path: columns.get(path.stem) for path in drawn}
        return {
            f"{path.stem.partition('-')[0]}-{column}" if column else path.stem: path.read_bytes()
            for path, column in shown.items()
            if column is None or column in self._seen.allowed
        }


def _draw(folder: Path, report: Report, earlier: Sequence[Report]) -> list[Path]:
    from mlops_assets.monitoring.pictures import draw

    found = draw(folder, report, earlier)
    drift = [path for path in found if path.stem.endswith("-drift")]
    return [*drift[:DRAWN], *(path for path in found if path not in drift)]


def _checks(key: dg.AssetKey, report: Report) -> Iterator[dg.AssetCheckResult]:
    for name in CHECKS:
        verdict = report.verdict(name)
        failed = verdict.status == "alarm"
        since = report.since.get(name, report.time)
        loss = name == "performance"
        yield dg.AssetCheckResult(
            passed=not failed,
            check_name=name,
            asset_key=key,
            severity=dg.AssetCheckSeverity.ERROR if loss else dg.AssetCheckSeverity.WARN,
            description=f"{verdict.status.replace('_', ' ')}: {verdict.reason}",
            metadata={
                "version": str(report.version),
                # The same alarm, hour after hour, is one message.
                "since": since.isoformat() if failed else "",
            },
        )


def build_monitoring(profile: Profile, models: Sequence[str]) -> dg.Definitions:
    """The job of all models in all environments that capture, and its schedule."""
    watched = [e.name for e in profile.environments if e.capture is not None]
    keys = [asset_key(model, name) for model in models for name in watched]
    if not keys:
        return dg.Definitions()
    job = dg.define_asset_job(
        JOB,
        dg.AssetSelection.assets(*keys),
        description="Looks at what every model gets where requests are captured.",
        tags={TRIGGER_TAG: "schedule"},
    )
    schedule = dg.ScheduleDefinition(
        job=job, cron_schedule=CRON, default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])
