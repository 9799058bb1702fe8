"""Retrainings that monitoring asks for, and what has become of them.

An ask is a record of the registry, made once per version and state of the data. Its number is an
input of the asset ``dataset``: the automation compares it with the last attempt's, as it does with
commits and files, so an ask is worked on once, whatever is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.decision import Retraining
from mlops_assets.gates import Verdict
from mlops_assets.references import DatasetSnapshot, TrainedModel
from resources.attempts import Attempt, Attempts
from resources.references import References
from resources.registry import Registry, Version

#: Kind of the registry's records.
RETRAININGS = "retrainings"
#: The input of ``dataset`` that names the last ask.
INPUT = "monitoring"


def asked_inputs(registry: Registry, model: str) -> dict[str, str]:
    """The last ask as an input of the asset ``dataset``; empty where there was none."""
    found = registry.records(model, RETRAININGS)
    return {INPUT: str(found[-1]["number"])} if found else {}


def ask(registry: Registry, version: Version, environment: str, data: str, reason: str) -> int:
    """Ask for a retraining, once per version and state of the data; the ask's number."""
    with registry.lock(version.model):
        known = find_ask(registry, version, data)
        if known is not None:
            return int(known["number"])
        content = {
            "environment": environment,
            "version": version.version,
            "digest": version.digest,
            "data": data,
            "reason": reason,
            # A version after this one may be what the ask came to.
            "newest": registry.versions(version.model)[-1].version,
        }
        return registry.record(version.model, RETRAININGS, content)


def find_ask(registry: Registry, version: Version, data: str) -> dict[str, Any] | None:
    """The ask about a version and a state of the data, if there was one."""
    for record in reversed(registry.records(version.model, RETRAININGS)):
        if (record["digest"], record["data"]) == (version.digest, data):
            return record
    return None


def outcome(
    attempts: Attempts,
    references: References,
    registry: Registry,
    serving: Version,
    data: str,
) -> tuple[Retraining, Version | None]:
    """What has become of a retraining on the data as it is now, gates aside.

    Args:
        attempts: the last attempt to make each asset.
        references: what each asset was made last.
        registry: holds versions and asks.
        serving: the version that serves.
        data: fingerprint of the raw data's files.

    Returns:
        ``passes`` for any newer version; whether it really does, its gates say.
    """
    asked = find_ask(registry, serving, data)
    pending: Retraining = "asked" if asked else "possible"
    taken = attempts.last(_key(serving, "dataset"))
    unheard = asked is not None and _answered(taken) < int(asked["number"])
    if taken is None or not taken.ended or taken.inputs.get("raw_data") != data or unheard:
        return pending, None
    return _came_to(attempts, references, registry, serving, taken) or (pending, None)


@dataclass(frozen=True)
class Past:
    """A retraining that is over."""

    #: What became of it, gates aside.
    state: Retraining = "unknown"
    version: Version | None = None
    #: Fingerprint of the files that it was on; empty where nobody knows.
    data: str = ""


def past(attempts: Attempts, references: References, registry: Registry, serving: Version) -> Past:
    """The last retraining that is over, of those since the first ask about the serving version.

    Files that change between any two looks would otherwise hide for ever that training on newer
    ones does not help.
    """
    asks = [
        r for r in registry.records(serving.model, RETRAININGS) if r["digest"] == serving.digest
    ]
    taken = attempts.last(_key(serving, "dataset"))
    if not asks or taken is None or _answered(taken) < int(asks[0]["number"]):
        return Past()
    now = taken.inputs.get("raw_data", "")
    found = _came_to(attempts, references, registry, serving, taken) if taken.ended else None
    if found is not None:
        return Past(*found, now)
    # That one is under way; the one before it is known by the version that it left.
    newest = registry.versions(serving.model)[-1]
    if newest.version <= int(asks[0].get("newest", serving.version)):
        return Past()
    if newest.manifest.snapshot.digest == serving.manifest.snapshot.digest:
        return Past()  # other code on the same data
    before = [r["data"] for r in asks if r["number"] <= _answered(taken) and r["data"] != now]
    return Past("passes", newest, before[-1] if before else "")


def _key(serving: Version, name: str) -> dg.AssetKey:
    return dg.AssetKey([serving.model, name])


def _answered(taken: Attempt | None) -> int:
    """Number of the last ask that an attempt at the asset ``dataset`` knew of."""
    return int(taken.inputs.get(INPUT, 0)) if taken else 0


def _came_to(
    attempts: Attempts, references: References, registry: Registry, serving: Version, taken: Attempt
) -> tuple[Retraining, Version | None] | None:
    """What followed from an attempt at the asset ``dataset`` that is over; None if not all is."""
    if taken.outcome == "failed":
        return "failed", None
    dataset, trained = _key(serving, "dataset"), _key(serving, "trained_model")
    snapshot = references.latest(dataset, DatasetSnapshot)
    if snapshot is None or snapshot.digest == serving.manifest.snapshot.digest:
        return "nothing_new", None
    model, tried = references.latest(trained, TrainedModel), attempts.last(trained)
    if model is None or model.snapshot.digest != snapshot.digest:
        failed = tried and tried.outcome == "failed"
        about = tried and tried.inputs.get("dataset") == snapshot.digest
        return ("failed", None) if failed and about else None
    version = registry.find(serving.model, model.identity)
    if version is None:
        return None
    return ("nothing_new", None) if version.digest == serving.digest else ("passes", version)


def judged(retraining: Retraining, verdicts: list[Verdict]) -> Retraining:
    """The same, once the gates of the retrained version have been asked."""
    closed = any(not verdict.passed for verdict in verdicts)
    return "refused" if retraining == "passes" and closed else retraining
