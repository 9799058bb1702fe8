"""A person's word on one version in one environment: approved or rejected, on record.

Bound to the version's digest and to the digest of the policy it was given under, so that another
version, or other limits, want another word.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Literal

from mlops_assets.errors import UserError
from mlops_assets.files import digest_json
from mlops_assets.gates import Verdict
from resources.environment import Environment
from resources.registry import Registry, Version

#: Kind of the registry's records.
APPROVALS = "approvals"

Decision = Literal["approved", "rejected"]

#: Units of a duration.
MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
#: Longer is for good, which is the default; the calendar ends somewhere.
LONGEST_MINUTES = 10 * 366 * MINUTES["d"]


class ApprovalError(UserError):
    """A decision that cannot be recorded; the message says what is missing."""


def policy_digest(version: Version, environment: Environment) -> str:
    """SHA-256 of all limits that hold for a version in an environment."""
    extra = environment.gates_of(version.model).model_dump(mode="json", exclude_none=True)
    return digest_json({"model": version.manifest.policy, "environment": extra})


def decide(
    registry: Registry,
    version: Version,
    environment: Environment,
    decision: Decision,
    *,
    by: str,
    reason: str,
    expires: dt.timedelta | None = None,
) -> dict[str, Any]:
    """Record a decision; returns the record.

    Args:
        registry: keeps it with the version.
        version: what is decided about.
        environment: where it shall serve, or not.
        decision: approved or rejected.
        by: who decides.
        reason: why.
        expires: how long an approval can be used; for good by default.

    Raises:
        ApprovalError: no name, no reason, or the environment asks for no approval.
    """
    if environment.approval != "required":
        raise ApprovalError(
            f'{environment.name} asks for no approval; set "approval": "required" in its JSON file'
        )
    if not by.strip() or not reason.strip():
        raise ApprovalError(
            "an approval has a name and a reason: give both `by` and `reason`"
        )  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    content = {
        "environment": environment.name,
        "version": version.version,
        "digest": version.digest,
        "policy": policy_digest(version, environment),
        "decision": decision,
        "by": by.strip(),
        "reason": reason.strip(),
        "time": now.isoformat(),
        "expires": (now + expires).isoformat() if expires else None,
    }
    registry.record(version.model, APPROVALS, content)
    return content


def verdict(registry: Registry, version: Version, environment: Environment) -> Verdict | None:
    """Whether a version is approved for an environment; None where none is asked for."""
    if environment.approval != "required":
        return None
    record = next(
        (
            record
            for record in reversed(registry.records(version.model, APPROVALS))
            if (record["environment"], record["digest"]) == (environment.name, version.digest)
        ),
        None,
    )
    reason = _objection(record, version, environment)
    if reason is None and record is not None:
        return Verdict("approval", "open", f"approved by {record['by']}: {record['reason']}")
    how = f"mlops approve {version.model} {environment.name} {version.version}"
    return Verdict("approval", "closed", f"{reason}; decide with `{how} --by NAME --reason TEXT`")


def _objection(
    record: dict[str, Any] | None, version: Version, environment: Environment
) -> str | None:
    if record is None:
        return f"version {version.version} waits for approval"
    if record["decision"] == "rejected":
        return f"rejected by {record['by']}: {record['reason']}"
    if record["policy"] != policy_digest(version, environment):
        return f"the limits have changed since {record['by']} approved"
    expires = record["expires"]
    if expires and dt.datetime.fromisoformat(expires) <= dt.datetime.now(dt.UTC):
        return f"the approval by {record['by']} has expired at {expires}"
    return None


def parse_duration(text: str) -> dt.timedelta:
    """``30m``, ``24h`` or ``7d``, ten years at most; ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhd])", text.strip())
    minutes = float(match[1]) * MINUTES[match[2]] if match else 0.0
    if not 0 < minutes <= LONGEST_MINUTES:
        raise ValueError(f"'{text}': give a duration such as 30m, 24h or 7d, ten years at most")
    return dt.timedelta(minutes=minutes)
