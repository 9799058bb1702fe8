import datetime as dt

import pytest

from mlops_assets.decision import Retraining, alarmed, decide, unresolved
from mlops_assets.evidence import Interval
from mlops_assets.monitoring.report import (
    ColumnReport,
    LiveMetric,
    LiveSlice,
    Performance,
    Report,
    Service,
    Status,
    Verdict,
)

SERVICE = Service(
    requests=1, rows=1, failed=0, refused=0, error_rate=0.0, p50_ms=1, p95_ms=1, first=None,
    last=None,
)  # fmt: skip


def report(
    drift: Status = "ok", performance: Status = "ok", worse: bool = True, part: bool = False
) -> Report:
    one = Interval(value=0.5, lower=0.4, upper=0.6)
    metric = LiveMetric(metric="accuracy", live=one, release=one, difference=one, worse=worse)
    slices = [LiveSlice(column="island", value="Dream", rows=60, status="alarm", metric=metric)]
    return Report(
        model="rent",
        version=1,
        time=dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        service=SERVICE,
        rows=1,
        repeated=0,
        effective_rows=1,
        reference_rows=1,
        columns=[],
        prediction=ColumnReport(column="mlops_prediction", kind="number", outcome="same"),
        performance=Performance(
            primary="accuracy",
            tolerance=0,
            labelled=1,
            joined=1,
            metrics=[metric],
            slices=slices if part else [],
        ),
        verdicts=[
            Verdict(name="drift", status=drift, reason=""),
            Verdict(name="performance", status=performance, reason=""),
            Verdict(name="freshness", status="ok", reason=""),
        ],
    )


def test_without_an_alarm_there_is_nothing_to_do() -> None:
    assert decide(report(), "unknown", acts=True).action == "none"
    assert decide(report("too_few_rows", "unknown"), "unknown", acts=True).action == "none"


@pytest.mark.parametrize("performance", ["ok", "unknown", "too_few_rows"])
def test_drift_without_a_loss_warns_alone(performance: Status) -> None:
    found = decide(report("alarm", performance), "possible", acts=True)
    assert (found.action, found.cause) == ("warn", None)


@pytest.mark.parametrize(
    ("state", "action", "cause"),
    [
        ("possible", "retrain", None),
        ("asked", "wait", None),
        ("passes", "wait", None),
        ("unknown", "wait", None),
        ("nothing_new", "revise", "performance"),
        ("failed", "revise", "performance"),
        ("refused", "revise", "gates"),
    ],
)
@pytest.mark.parametrize("drift", ["ok", "alarm"])
def test_a_loss_retrains_first_and_then_asks_people(
    drift: Status, state: Retraining, action: str, cause: str | None
) -> None:
    found = decide(report(drift, "alarm"), state, acts=True)
    assert (found.action, found.cause) == (action, cause)


@pytest.mark.parametrize(
    ("past", "cause"),
    [("nothing_new", "performance"), ("failed", "performance"), ("refused", "gates")],
)
def test_people_are_asked_after_a_retraining_that_did_not_help_though_newer_data_comes(
    past: Retraining, cause: str
) -> None:
    found = decide(report("ok", "alarm"), "possible", acts=True, past=past)
    assert (found.action, found.cause, found.retrains) == ("revise", cause, True)
    assert "a revision is asked for; there is newer data: a retraining" in found.reason
    found = decide(report("ok", "alarm"), "asked", acts=True, past=past)
    assert (found.action, found.cause, found.retrains) == ("revise", cause, False)


@pytest.mark.parametrize("past", ["unknown", "passes"])
def test_a_retraining_on_newer_data_is_waited_for_while_none_has_failed(past: Retraining) -> None:
    found = decide(report("ok", "alarm"), "possible", acts=True, past=past)
    assert (found.action, found.cause, found.retrains) == ("retrain", None, True)


def test_what_came_of_the_newest_data_counts_alone() -> None:
    found = decide(report("ok", "alarm"), "passes", acts=True, past="refused")
    assert (found.action, found.retrains) == ("wait", False)


def test_only_production_asks_for_anything() -> None:
    assert decide(report("ok", "alarm"), "nothing_new", acts=False).action == "warn"


def test_a_loss_of_a_part_of_the_rows_is_told_apart() -> None:
    found = report("ok", "alarm", worse=False, part=True)
    assert alarmed(found) == ["slice"]
    assert decide(found, "nothing_new", acts=True).cause == "slice"


def test_a_version_that_nobody_could_judge_yet_resolves_nothing() -> None:
    assert unresolved(report()) == []
    assert unresolved(report("ok", "too_few_rows")) == ["performance", "slice", "gates"]
    assert unresolved(report("alarm", "ok")) == ["drift"]
