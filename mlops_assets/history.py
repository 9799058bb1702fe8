"""What served where and when, from commit to endpoint, out of the registry's records."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from mlops_assets.approval import APPROVALS
from mlops_assets.gates import Verdict
from mlops_assets.judgement import DEPLOYMENTS
from mlops_assets.trial import StepJudgement
from resources.registry import Registry, RegistryError, Version

#: Kinds of the registry's records.
OVERRIDES, CANARIES = "overrides", "canaries"

#: The table's columns; times are UTC.
COLUMNS = (
    *("SINCE", "UNTIL", "ENVIRONMENT", "VERSION", "COMMIT", "AUTHOR", "DATA"),
    *("APPROVED BY", "OVERRIDE", "CANARY"),
)
#: Characters of a commit with its message, and of how a canary did.
SHOWN = 50


class Responsible(Protocol):
    """Who deploys past closed gates, and why."""

    by: str
    reason: str


@dataclass(frozen=True)
class Served:
    """One version in one environment, from its deployment to the next one.

    Or as long as it was on trial there, if it was discarded.
    """

    model: str
    environment: str
    version: int
    #: ISO 8601, UTC; ``until`` is None while it serves.
    since: str
    until: str | None
    digest: str
    #: Where it came from; None where the version is damaged.
    commit: str | None
    author: str | None
    message: str | None
    snapshot: str | None
    rows: int | None
    #: Who approved it for this environment, and who deployed it past which gates.
    approved_by: str | None
    override: str | None
    #: How it did beside the version that it was to replace.
    canary: str | None
    run: str | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """For a table, in the order of COLUMNS."""
        commit = f"{self.commit[:10]} {self.message}" if self.commit else "?"
        return (
            self.since[:19],
            self.until[:19] if self.until else "now",
            self.environment,
            str(self.version),
            _short(commit),
            self.author.partition(" <")[0] if self.author else "?",
            self.snapshot[:10] if self.snapshot else "?",
            self.approved_by or "-",
            self.override or "-",
            _short(self.canary or "-"),
        )


def history(registry: Registry, model: str, at: dt.datetime | None = None) -> list[Served]:
    """What served, oldest first.

    Args:
        registry: holds versions and records.
        model: the model's name.
        at: only what served at that moment.
    """
    records = registry.records(model, DEPLOYMENTS)
    approvals, overrides = registry.records(model, APPROVALS), registry.records(model, OVERRIDES)
    canaries = registry.records(model, CANARIES)
    periods = [(record, record["ended"], _until(records[i:])) for i, record in enumerate(records)]
    periods += [(r, r["since"], r["ended"]) for r in canaries if r["discarded"] and r["since"]]
    found = [
        Served(
            model=model,
            environment=record["environment"],
            version=record["version"],
            since=since,
            until=until,
            digest=record["digest"],
            **_origin(registry, model, record),
            approved_by=_approver(approvals, record),
            override=_override(overrides, record),
            canary=_canary(canaries, record),
            run=record.get("run"),
        )
        for record, since, until in sorted(periods, key=lambda period: period[1])
    ]
    if at is None:
        return found
    return [served for served in found if _covers(served, at)]


def record_override(
    registry: Registry,
    version: Version,
    environment: str,
    judged: Sequence[Verdict],
    override: Responsible,
    run_id: str,
) -> None:
    """Keep with the version that a person deployed it past closed gates, and which these were."""
    content = {
        "environment": environment,
        "version": version.version,
        "digest": version.digest,
        "gates": {verdict.gate: verdict.reason for verdict in judged if not verdict.passed},
        "by": override.by.strip(),
        "reason": override.reason.strip(),
        "time": dt.datetime.now(dt.UTC).isoformat(),
        "run": run_id,
    }
    registry.record(version.model, OVERRIDES, content)


def record_canary(
    registry: Registry,
    version: Version,
    environment: str,
    judgements: Sequence[StepJudgement],
    discarded: str | None,
    run_id: str,
) -> None:
    """Keep with the version how it did beside the live one, if it was watched.

    Args:
        registry: holds records.
        version: what was on trial.
        environment: where.
        judgements: of each step that was watched.
        discarded: why it was discarded; None where it serves now.
        run_id: of the run that deployed it.
    """
    if not judgements:
        return
    content = {
        "environment": environment,
        "version": version.version,
        "digest": version.digest,
        "judgements": [judged.as_dict() for judged in judgements],
        "discarded": discarded,
        "started": judgements[0].started,
        # When users first got its answers, if they did.
        "since": next((judged.started for judged in judgements if judged.served), None),
        "ended": dt.datetime.now(dt.UTC).isoformat(),
        "run": run_id,
    }
    registry.record(version.model, CANARIES, content)


def card_of(registry: Registry, version: Version) -> str:
    """The version's model card, with what has happened to it since it was registered."""
    card = (version.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    lines = [
        f"- {record['time']}: {record['decision']} for {record['environment']} "
        f"by {record['by']}: {record['reason']}"
        for record in _of(registry.records(version.model, APPROVALS), version)
    ]
    lines += [
        f"- {record['time']}: deployed to {record['environment']} past "
        f"{', '.join(record['gates']) or 'no closed gate'} by {record['by']}: {record['reason']}"
        for record in _of(registry.records(version.model, OVERRIDES), version)
    ]
    lines += [
        f"- {record['ended']}: on trial in {record['environment']}: {_outcome(record)}"
        for record in _of(registry.records(version.model, CANARIES), version)
    ]
    lines += [
        f"- {record['ended']}: serves {record['environment']}"
        for record in _of(registry.records(version.model, DEPLOYMENTS), version)
    ]
    return card + "\n## Since then\n\n" + "\n".join(sorted(lines)) + "\n" if lines else card


def _of(records: list[dict[str, Any]], version: Version) -> list[dict[str, Any]]:
    return [record for record in records if record["digest"] == version.digest]


def _origin(registry: Registry, model: str, record: dict[str, Any]) -> dict[str, Any]:
    try:
        manifest = registry.version(model, record["version"]).manifest
    except (RegistryError, OSError, ValueError):
        return dict.fromkeys(("commit", "author", "message", "snapshot", "rows"))
    source, snapshot = manifest.source, manifest.snapshot
    return {
        "commit": source.commit,
        "author": source.author,
        "message": source.message,
        "snapshot": snapshot.digest,
        "rows": snapshot.rows,
    }


def _approver(approvals: list[dict[str, Any]], record: dict[str, Any]) -> str | None:
    """Whose approval held when the deployment began: the last word before it, if it was one."""
    said = [a for a in approvals if _same(a, record) and a["time"] <= record["started"]]
    if not said or said[-1]["decision"] != "approved":
        return None
    expires = said[-1]["expires"]
    return None if expires and expires <= record["started"] else said[-1]["by"]


def _override(overrides: list[dict[str, Any]], record: dict[str, Any]) -> str | None:
    for override in overrides:
        if _same(override, record) and override["run"] == record.get("run"):
            return f"{override['by']}: {override['reason']} ({', '.join(override['gates'])})"
    return None


def _canary(canaries: list[dict[str, Any]], record: dict[str, Any]) -> str | None:
    for canary in canaries:
        if _same(canary, record) and canary["run"] == record.get("run"):
            return _outcome(canary)
    return None


def _outcome(canary: dict[str, Any]) -> str:
    return canary["discarded"] or ", ".join(
        f"{judged['verdict']} at {judged['step']}" for judged in canary["judgements"]
    )


def _until(records: list[dict[str, Any]]) -> str | None:
    """When the first of the records was followed by another one in its environment."""
    first, *later = records
    return next((r["ended"] for r in later if r["environment"] == first["environment"]), None)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["environment"], one["digest"]) == (other["environment"], other["digest"])


def _covers(served: Served, at: dt.datetime) -> bool:
    since, until = served.since, served.until
    begun = dt.datetime.fromisoformat(since) <= at
    return begun and (until is None or at < dt.datetime.fromisoformat(until))
