"""A person's word: what it is bound to, and when it no longer holds."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.approval import (
    APPROVALS,
    ApprovalError,
    Decision,
    decide,
    parse_duration,
    policy_digest,
    verdict,
)
from resources.environment import Environment
from resources.registry import LocalRegistry, Version
from tests.versions import registered

HOUR = dt.timedelta(hours=1)


def environment(name: str = "production", **settings: Any) -> Environment:
    return Environment.model_validate(
        {"name": name, "target": "local", "approval": "required", **settings}
    )


PRODUCTION = environment()


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(root=str(tmp_path / "registry"))


@pytest.fixture
def version(registry: LocalRegistry) -> Version:
    return registered(registry)


def say(
    registry: LocalRegistry,
    version: Version,
    decision: Decision = "approved",
    where: Environment = PRODUCTION,
    expires: dt.timedelta | None = None,
) -> dict[str, Any]:
    return decide(
        registry, version, where, decision, by=" ada ", reason="looks right", expires=expires
    )


def objection(
    registry: LocalRegistry, version: Version, where: Environment = PRODUCTION
) -> str | None:
    """Why the version may not serve there; None if it may."""
    found = verdict(registry, version, where)
    assert found is not None
    assert found.gate == "approval"
    return None if found.passed else found.reason


def test_where_no_approval_is_asked_for(registry: LocalRegistry, version: Version) -> None:
    staging = environment("staging", approval="none")
    assert verdict(registry, version, staging) is None
    with pytest.raises(ApprovalError, match="staging asks for no approval; set"):
        say(registry, version, where=staging)


def test_waits_and_says_how_to_decide(registry: LocalRegistry, version: Version) -> None:
    assert objection(registry, version) == (
        "version 1 waits for approval; "
        "decide with `mlops approve rent production 1 --by NAME --reason TEXT`"
    )


def test_approved(registry: LocalRegistry, version: Version) -> None:
    record = say(registry, version)
    assert objection(registry, version) is None
    found = verdict(registry, version, PRODUCTION)
    assert found is not None
    assert found.reason == "approved by ada: looks right"
    (kept,) = registry.records("rent", APPROVALS)
    assert kept == {**record, "number": 1}
    assert (kept["by"], kept["expires"]) == ("ada", None)


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("ada", " "), ("\t", "\n")])
def test_a_decision_has_a_name_and_a_reason(
    registry: LocalRegistry, version: Version, by: str, reason: str
) -> None:
    with pytest.raises(ApprovalError, match="give both `by` and `reason`"):
        decide(registry, version, PRODUCTION, "approved", by=by, reason=reason)
    assert registry.records("rent", APPROVALS) == []


def test_the_last_word_counts(registry: LocalRegistry, version: Version) -> None:
    say(registry, version)
    say(registry, version, "rejected")
    assert str(objection(registry, version)).startswith("rejected by ada: looks right; decide")
    say(registry, version)
    assert objection(registry, version) is None


def test_of_another_version_or_environment(registry: LocalRegistry, version: Version) -> None:
    other = registered(registry, "i2")
    say(registry, version)
    assert "version 2 waits" in str(objection(registry, other))
    assert "waits" in str(objection(registry, version, environment("canary")))
    say(registry, other, "rejected")
    say(registry, version, "rejected", environment("canary"))
    assert objection(registry, version) is None


def test_a_number_that_was_given_anew_is_another_version(
    registry: LocalRegistry, version: Version
) -> None:
    """Approved is what was looked at, and not a number."""
    say(registry, version)
    other = Version(version.model, version.version, "0" * 64, version.bundle)
    assert "waits" in str(objection(registry, other))


def test_other_limits_want_another_word(registry: LocalRegistry, version: Version) -> None:
    say(registry, version)
    stricter = {"rent": {"quality": {"r2": {"minimum": 0.9}}}}
    found = objection(registry, version, environment(gates=stricter))
    assert "the limits have changed since ada approved" in str(found)
    assert objection(registry, version) is None
    # Limits of other models, and what is no limit, change nothing.
    other = environment(gates={"sales": stricter["rent"]}, latency_ms=5, override="allowed")
    assert objection(registry, version, other) is None


def test_the_digest_of_a_policy(registry: LocalRegistry, version: Version) -> None:
    policy = {"quality": {"r2": {"minimum": 0.5}}}
    own = registered(registry, "i2", policy=policy)
    there = environment(gates={"rent": {"quality": {"r2": {"minimum": 0.7}}}})
    digests = {policy_digest(v, e) for v in (version, own) for e in (PRODUCTION, there)}
    assert len(digests) == 4


def test_an_approval_expires(
    registry: LocalRegistry, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = say(registry, version, expires=HOUR)
    assert objection(registry, version) is None
    end = dt.datetime.fromisoformat(record["expires"])
    assert end - dt.datetime.fromisoformat(record["time"]) == HOUR
    say(registry, version, expires=dt.timedelta(microseconds=1))
    assert "the approval by ada has expired at 20" in str(objection(registry, version))
    # And can be given anew.
    say(registry, version)
    assert objection(registry, version) is None


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30m", 30), ("24h", 1440), ("7d", 10080), (" 1.5 h ", 90), ("0.5m", 0.5)],
)
def test_durations(text: str, minutes: float) -> None:
    assert parse_duration(text) == dt.timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "text",
    ["", "0h", "0.0d", "-1h", "h", "24", "24 hours", "1h30m", "1e3h", "nanh", "99999999999d"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="give a duration such as 30m, 24h or 7d"):
        parse_duration(text)


def test_longer_than_the_calendar(registry: LocalRegistry, version: Version) -> None:
    with pytest.raises(ValueError, match="give a duration"):
        say(registry, version, expires=parse_duration("9999999d"))
