"""The judgement alone: counts in, verdict out."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom, norm

from mlops_assets.canary import ALPHA, fisher, judge, quantile
from mlops_assets.scoring.metrics import SECONDS
from resources.endpoints.base import Counts
from resources.traffic import Limits

BOUNDS = [*SECONDS, math.inf]
LIMITS = Limits()
#: Limits that let nothing pass that is no chance.
NONE_ALLOWED = Limits(error_rate=0, p95_ratio=1, p95_excess_ms=0, distribution=1e-9)
EDGES = norm.ppf(np.arange(1, 10) / 10)


def _histogram(seconds: Any) -> dict[float, int]:
    found = np.bincount(np.searchsorted(BOUNDS, seconds), minlength=len(BOUNDS))
    return dict(zip(BOUNDS, found.tolist(), strict=True))


def _counts(
    requests: int,
    *,
    seed: int = 0,
    failed: float = 0.0,
    refused: float = 0.0,
    median: float = 0.01,
    shift: float = 0.0,
    rows: int = 1,
) -> Counts:
    """What a version did that fails by chance, and predicts a normal variable."""
    random = np.random.default_rng(seed)
    bad = int(random.binomial(requests, failed))
    turned = int(random.binomial(requests - bad, refused))
    answered = requests - bad - turned
    values = np.repeat(random.normal(shift, 1, answered), rows)
    buckets = np.bincount(np.searchsorted(EDGES, values), minlength=10)
    predictions = {str(bucket): count for bucket, count in enumerate(buckets.tolist()) if count}
    seconds = _histogram(random.lognormal(math.log(median), 0.5, requests))
    return Counts(answered, turned, bad, seconds, predictions)


@pytest.mark.parametrize(("live", "new"), [(450, 50), (900, 100), (100, 100), (3000, 300)])
@pytest.mark.parametrize("rows", [1, 20])
def test_equal_versions_raise_no_more_alarms_than_stated(live: int, new: int, rows: int) -> None:
    trials, alarms = 400, 0
    for seed in range(trials):
        before = _counts(live, seed=2 * seed, failed=0.02, rows=rows)
        after = _counts(new, seed=2 * seed + 1, failed=0.02, rows=rows)
        alarms += judge(before, after, NONE_ALLOWED).verdict == "worse"
    # Four comparisons; so many alarms or more would be seen once in a million such tests.
    assert alarms < 4 * ALPHA * trials + 5 * math.sqrt(4 * ALPHA * trials) + 1


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"failed": 0.05}, r"of 500 requests failed, 0\.0% of 4500 at the live version"),
        ({"refused": 0.05}, r"of 500 requests refused"),
        ({"failed": 1.0}, r"100\.0% of 500 requests failed"),
        ({"median": 0.02}, r"95 % of requests within \d+\.?\d* ms, \d+\.?\d* ms at the live"),
        ({"shift": 1.0}, r"population stability index \d\.\d+, allowed is 0\.2"),
    ],
)
def test_a_worse_version_is_found(what: Mapping[str, Any], reason: str) -> None:
    for seed in range(20):
        new = _counts(500, seed=1000 + seed, **what)
        found = judge(_counts(4500, seed=seed), new, LIMITS)
        assert found.verdict == "worse"
        (said,) = found.reasons
        assert re.search(reason, said), said


def test_figures_are_on_record() -> None:
    found = judge(_counts(900), _counts(100, seed=1, failed=0.02), LIMITS)
    assert found.verdict == "as good"
    assert found.reasons == ()
    assert found.figures["requests_live"] == 900
    assert found.figures["requests_new"] == 100
    assert found.figures["failed_live"] == 0
    assert 0 < found.figures["failed_new"] < 0.06
    assert 15 < found.figures["p95_live"] < 30
    assert 15 < found.figures["p95_new"] < 40
    assert 0 <= found.figures["psi"] < 0.1


def test_trifles_are_let_pass_however_certain() -> None:
    live = _counts(100_000, median=0.0002)
    # 0.3 ms for 0.2 ms; half a percent of errors; a small shift.
    new = _counts(100_000, seed=1, median=0.0003, failed=0.005, shift=0.2)
    assert judge(live, new, LIMITS).verdict == "as good"
    strict = judge(live, new, NONE_ALLOWED)
    assert strict.verdict == "worse"
    assert len(strict.reasons) == 3


@pytest.mark.parametrize(("live", "new"), [(0, 0), (0, 500), (500, 0), (40, 500), (500, 40)])
def test_too_few_requests_are_said(live: int, new: int) -> None:
    found = judge(_counts(live), _counts(new, seed=1, median=1.0, shift=5.0), LIMITS)
    assert found.verdict == "too few requests"
    (reason,) = found.reasons
    assert f"{new} requests to the new version and {live} to the live one" in reason
    assert "p95_new" not in found.figures


def test_errors_are_found_among_few_requests() -> None:
    assert judge(_counts(300), _counts(12, failed=1.0), LIMITS, 1e-6).verdict == "worse"
    assert judge(_counts(300), _counts(2, failed=1.0), LIMITS).verdict == "worse"
    assert judge(_counts(3), _counts(2, failed=1.0), LIMITS).verdict == "too few requests"


def test_a_live_version_that_fails_as_often_accuses_nobody() -> None:
    found = judge(_counts(2000, failed=0.3), _counts(200, seed=1, failed=0.3), LIMITS)
    assert found.verdict == "as good"
    found = judge(_counts(2000, failed=0.3), _counts(200, seed=1), LIMITS)
    assert found.verdict == "as good"


def test_predictions_are_not_compared_where_they_should_not_or_cannot() -> None:
    live, new = _counts(900), _counts(100, seed=1, shift=3.0)
    assert judge(live, new, LIMITS).verdict == "worse"
    assert judge(live, new, Limits(distribution=None)).verdict == "as good"
    without = Counts(100, seconds=new.seconds)
    found = judge(live, without, LIMITS)
    assert found.verdict == "as good"
    assert "psi" not in found.figures


def test_one_label_instead_of_another() -> None:
    seconds = _histogram([0.01] * 100)
    live = Counts(100, seconds=seconds, predictions={"yes": 100})
    new = Counts(100, seconds=seconds, predictions={"no": 100})
    assert judge(live, live, LIMITS).verdict == "as good"
    assert judge(live, new, LIMITS).verdict == "worse"


def test_the_rows_of_a_request_count_once() -> None:
    """Two requests of 500 equal rows each say no more than two rows."""
    limits = Limits(minimum_requests=10)
    seconds = _histogram([0.01] * 10)
    live = Counts(10, seconds=seconds, predictions={"a": 3000, "b": 2000})
    new = Counts(10, seconds=seconds, predictions={"a": 1000, "b": 4000})
    assert judge(live, new, limits).verdict == "as good"
    many = Counts(5000, seconds={0.01: 5000}, predictions={"a": 3000, "b": 2000})
    others = Counts(5000, seconds={0.01: 5000}, predictions={"a": 1000, "b": 4000})
    assert judge(many, others, limits).verdict == "worse"


@given(
    buckets=st.lists(st.integers(0, 200), min_size=1, max_size=12),
    times=st.lists(st.sampled_from(BOUNDS), min_size=1, max_size=8),
    bad=st.integers(0, 100),
    factor=st.integers(1, 50),
)
def test_the_same_shares_are_as_good(
    buckets: list[int], times: list[float], bad: int, factor: int
) -> None:
    def counts(times_as_many: int) -> Counts:
        predictions = {str(n): times_as_many * count for n, count in enumerate(buckets)}
        rows = sum(buckets) * times_as_many
        seconds = dict.fromkeys(times, 40 * times_as_many)
        return Counts(rows, bad * times_as_many, bad * times_as_many, seconds, predictions)

    assert judge(counts(factor), counts(1), NONE_ALLOWED).verdict != "worse"


@given(
    live_total=st.integers(1, 3000),
    new_total=st.integers(1, 3000),
    data=st.data(),
)
def test_fishers_test_is_scipys(live_total: int, new_total: int, data: st.DataObject) -> None:
    live = data.draw(st.integers(0, live_total))
    new = data.draw(st.integers(0, new_total))
    found = fisher(live, live_total, new, new_total)
    expected = hypergeom.sf(new - 1, live_total + new_total, live + new, new_total)
    if found == 1.0:  # of no interest: not even more than expected
        assert new * live_total <= live * new_total or expected == pytest.approx(1)
    else:
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-290)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_lies_in_its_interval(times: list[float], share: float) -> None:
    exact = sorted(times)[math.ceil(share * len(times) - 1e-9) - 1]
    found = quantile(_histogram(times), share)
    place = bisect_left(BOUNDS, exact)
    lower = 0.0 if place == 0 else BOUNDS[place - 1]
    assert lower <= found <= min(BOUNDS[place], 10.0)


def test_the_quantile_of_nothing() -> None:
    assert quantile({}, 0.95) == 0.0
    assert quantile(_histogram([]), 0.95) == 0.0
