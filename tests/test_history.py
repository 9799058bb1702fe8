"""What served where and when, told from the registry's records."""

import datetime as dt
from pathlib import Path

import pytest

from mlops_assets.approval import decide
from mlops_assets.canary import Judgement
from mlops_assets.canary import Verdict as Found
from mlops_assets.gates import Verdict
from mlops_assets.history import COLUMNS, card_of, history, record_canary, record_override
from mlops_assets.trial import StepJudgement
from resources.environment import Environment
from resources.registry import LocalRegistry
from tests.versions import deployed, registered

PRODUCTION = Environment.model_validate(
    {"name": "production", "target": "local", "approval": "required", "override": "allowed"}
)


def time(hour: int) -> str:
    """An hour of a day that is over."""
    return f"2026-01-05T{hour:02}:00:00.123456+00:00"


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


class Ada:
    """Who takes it upon herself."""

    by = " ada "
    reason = " it burns "


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    """Versions 1 and 2; 2 follows 1 in both environments, then 1 comes back to production."""
    found = LocalRegistry(root=str(tmp_path / "registry"))
    one, two = registered(found, "i1"), registered(found, "i2")
    for version, environment, hour in (
        (one, "staging", 1),
        (one, "production", 2),
        (two, "staging", 3),
        (two, "production", 4),
        (one, "production", 6),
    ):
        deployed(found, version, environment, time(hour), run=f"run{hour}")
    return found


def test_each_until_the_next_in_its_environment(registry: LocalRegistry) -> None:
    found = [(s.environment, s.version, s.since, s.until) for s in history(registry, "rent")]
    assert found == [
        ("staging", 1, time(1), time(3)),
        ("production", 1, time(2), time(4)),
        ("staging", 2, time(3), None),
        ("production", 2, time(4), time(6)),
        ("production", 1, time(6), None),
    ]


def test_of_a_model_that_never_served(registry: LocalRegistry) -> None:
    assert history(registry, "sales") == []


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-01-05T00:30:00+00:00", []),
        (time(2), [("staging", 1), ("production", 1)]),
        ("2026-01-05T03:30:00+00:00", [("production", 1), ("staging", 2)]),
        # The moment of a change belongs to what comes.
        (time(4), [("staging", 2), ("production", 2)]),
        ("2026-01-05T05:30:00+01:00", [("staging", 2), ("production", 2)]),
        ("2030-01-01T00:00:00+00:00", [("staging", 2), ("production", 1)]),
    ],
)
def test_at_a_moment(registry: LocalRegistry, at: str, expected: list[tuple[str, int]]) -> None:
    found = history(registry, "rent", moment(at))
    assert [(served.environment, served.version) for served in found] == expected


def test_where_it_came_from(registry: LocalRegistry) -> None:
    served = history(registry, "rent")[0]
    assert (served.commit, served.author, served.message) == ("c" * 40, "Ada", "m")
    assert (served.snapshot, served.rows, served.run) == ("s1", 400, "run1")
    cells = dict(zip(COLUMNS, served.cells(), strict=True))
    assert cells == {
        "SINCE": "2026-01-05T01:00:00",
        "UNTIL": "2026-01-05T03:00:00",
        "ENVIRONMENT": "staging",
        "VERSION": "1",
        "COMMIT": "cccccccccc m",
        "AUTHOR": "Ada",
        "DATA": "s1",
        "APPROVED BY": "-",
        "OVERRIDE": "-",
        "CANARY": "-",
    }
    assert history(registry, "rent")[-1].cells()[1] == "now"
    assert served.as_dict()["until"] == time(3)


@pytest.mark.parametrize("damage", ["manifest", "folder", "digest"])
def test_a_damaged_version_is_still_told_of(registry: LocalRegistry, damage: str) -> None:
    root = Path(registry.root) / "rent"
    if damage == "manifest":
        (root / "versions" / "1" / "manifest.json").write_text("{")
    elif damage == "folder":
        (root / "versions" / "1").rename(root / "elsewhere")
    else:
        (root / "digests" / "1").unlink()
    found = history(registry, "rent")
    assert len(found) == 5
    assert found[0].commit is None
    assert found[0].cells()[4:7] == ("?", "?", "?")


def test_who_approved_before_it_served(registry: LocalRegistry) -> None:
    two = registry.version("rent", 2)
    decide(registry, two, PRODUCTION, "approved", by="too late", reason="r")
    assert history(registry, "rent")[3].approved_by is None
    for by, hour, decision in (
        ("ada", 1, "approved"),
        ("grace", 3, "approved"),
        ("joan", 5, "approved"),
    ):
        said(registry, 2, by, hour, decision)
    by_version = [(s.environment, s.version, s.approved_by) for s in history(registry, "rent")]
    assert by_version == [
        ("staging", 1, None),
        ("production", 1, None),
        ("staging", 2, None),
        ("production", 2, "grace"),
        ("production", 1, None),
    ]


def test_nobody_approved_what_was_rejected_or_expired(registry: LocalRegistry) -> None:
    said(registry, 2, "ada", 1, "approved")
    said(registry, 2, "grace", 3, "rejected")
    assert history(registry, "rent")[3].approved_by is None
    said(registry, 1, "ada", 3, "approved", expires=time(5))
    assert history(registry, "rent")[4].approved_by is None


def said(
    registry: LocalRegistry,
    number: int,
    by: str,
    hour: int,
    decision: str,
    expires: str | None = None,
) -> None:
    content = {
        "environment": "production",
        "version": number,
        "digest": registry.version("rent", number).digest,
        "policy": "p",
        "decision": decision,
        "by": by,
        "reason": "r",
        "time": time(hour),
        "expires": expires,
    }
    registry.record("rent", "approvals", content)


def test_who_deployed_past_which_gates(registry: LocalRegistry) -> None:
    two = registry.version("rent", 2)
    judged = [
        Verdict("quality", "closed", "r2 0.1, minimum 0.5"),
        Verdict("integrity", "open", "fine"),
        Verdict("champion", "closed", "worse"),
        Verdict("provenance", "not_applicable", "-"),
    ]
    record_override(registry, two, "production", judged, Ada(), "run4")
    found = history(registry, "rent")
    assert [s.override for s in found] == [
        None,
        None,
        None,
        "ada: it burns (champion, quality)",
        None,
    ]
    (record,) = registry.records("rent", "overrides")
    assert record["gates"] == {"quality": "r2 0.1, minimum 0.5", "champion": "worse"}
    # Served again later, by the gates: that run had no override.
    deployed(registry, two, "production", time(7), run="run7")
    assert history(registry, "rent")[-1].override is None


def tried(step: str, served: bool, hour: int, verdict: Found, *reasons: str) -> StepJudgement:
    judgement = Judgement(verdict, reasons, {"requests_live": 900, "requests_new": 100})
    return StepJudgement(step, served, time(hour), 30.0, judgement)


def test_how_a_version_did_beside_the_one_before(registry: LocalRegistry) -> None:
    two, three = registry.version("rent", 2), registered(registry, "i3")
    good = [tried("5 % mirrored", False, 3, "as good"), tried("10 %", True, 4, "too few requests")]
    record_canary(registry, two, "production", good, None, "run4")
    record_canary(registry, two, "staging", [], None, "run3")  # nothing was watched
    bad = [tried("10 %", True, 5, "worse", "all failed")]
    record_canary(registry, three, "production", bad, "worse at 10 %: all failed", "run5")
    # Nobody but the platform ever had an answer of this one.
    unseen = [tried("5 % mirrored", False, 5, "worse", "all failed")]
    record_canary(registry, three, "staging", unseen, "worse at 5 % mirrored", "run6")
    found = history(registry, "rent")
    assert [(s.environment, s.version, s.canary) for s in found] == [
        ("staging", 1, None),
        ("production", 1, None),
        ("staging", 2, None),
        ("production", 2, "as good at 5 % mirrored, too few requests at 10 %"),
        ("production", 3, "worse at 10 %: all failed"),
        ("production", 1, None),
    ]
    discarded = found[4]
    assert discarded.since == time(5)
    assert discarded.until is not None
    assert found[3].until == time(6)  # it went on serving
    assert found[3].cells()[-1] == "as good at 5 % mirrored, too few requests at 10 %"
    at = [(s.environment, s.version) for s in history(registry, "rent", moment(time(5)))]
    assert at == [("staging", 2), ("production", 2), ("production", 3)]
    card = card_of(registry, three)
    assert ": on trial in production: worse at 10 %: all failed\n" in card
    assert ": on trial in staging: worse at 5 % mirrored\n" in card
    assert len(registry.records("rent", "canaries")) == 3


def test_the_card_tells_what_happened_since(registry: LocalRegistry) -> None:
    three = registered(registry, "i3")
    assert card_of(registry, three) == "# rent\n"
    said(registry, 2, "ada", 3, "approved")
    record_override(registry, registry.version("rent", 2), "staging", [], Ada(), "run3")
    card = card_of(registry, registry.version("rent", 2))
    lines = card.partition("## Since then\n\n")[2].splitlines()
    assert lines[:3] == [
        f"- {time(3)}: approved for production by ada: r",
        f"- {time(3)}: serves staging",
        f"- {time(4)}: serves production",
    ]
    assert lines[3].endswith(": deployed to staging past no closed gate by ada: it burns")
    assert len(lines) == 4
