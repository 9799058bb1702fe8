"""Whether a new version does as well as the live one, judged by what both did at the same time.

Each comparison has two conditions, and a version is worse only where both hold: the difference is
greater than the limit, so that it matters; and chance explains it less often than ``ALPHA``, so
that it is one. Small numbers therefore accuse nobody, and large ones not of trifles. The tests
compare counts by Fisher's exact test, which holds for few requests as for many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlops_assets.stability import stability_index
from resources.endpoints.base import Counts
from resources.traffic import Limits

#: Chance of a false alarm of one comparison at the end of a step.
ALPHA = 1e-3
#: And at each look before the end (Haybittle and Peto): a thousand of them may not add up to one
#: at the end.
EARLY_ALPHA = 1e-6

Verdict = Literal["as good", "worse", "too few requests"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A new version beside the live one, over one step."""

    verdict: Verdict
    #: Why it is worse, or was not compared.
    reasons: tuple[str, ...]
    #: What was measured: ``<what>_live``, ``<what>_new``; latencies in milliseconds.
    figures: dict[str, float]


def judge(live: Counts, new: Counts, limits: Limits, alpha: float = ALPHA) -> Judgement:
    """Compare two versions.

    Args:
        live: what the live version did in a window of time.
        new: what the new one did in the same window.
        limits: how much worse it may do.
        alpha: chance of a false alarm of each comparison.
    """
    figures: dict[str, float] = {"requests_live": live.requests, "requests_new": new.requests}
    found = [
        _share("failed", live.failed, live.requests, new.failed, new.requests, limits, alpha),
        _share("refused", live.refused, live.requests, new.refused, new.requests, limits, alpha),
    ]
    enough = min(live.requests, new.requests) >= limits.minimum_requests
    if enough:
        found += [_latency(live, new, limits, alpha), _distribution(live, new, limits, alpha)]
    reasons: list[str] = []
    for reason, measured in found:
        figures |= measured
        reasons += [reason] if reason else []
    if reasons:
        return Judgement("worse", tuple(reasons), figures)
    if not enough:
        few = (
            f"{new.requests} requests to the new version and {live.requests} to the live one, "
            f"fewer than {limits.minimum_requests}"
        )
        return Judgement("too few requests", (few,), figures)
    return Judgement("as good", (), figures)


_Found = tuple[str | None, dict[str, float]]


def _share(
    what: str, live: int, live_total: int, new: int, new_total: int, limits: Limits, alpha: float
) -> _Found:
    if not live_total or not new_total:
        return None, {}
    before, after = live / live_total, new / new_total
    figures = {f"{what}_live": before, f"{what}_new": after}
    if after - before <= limits.error_rate or fisher(live, live_total, new, new_total) >= alpha:
        return None, figures
    reason = (
        f"{after:.1%} of {new_total} requests {what}, {before:.1%} of {live_total} at the live "
        f"version; allowed are {limits.error_rate:.1%} more"
    )
    return reason, figures


def _latency(live: Counts, new: Counts, limits: Limits, alpha: float) -> _Found:
    before, after = quantile(live.seconds, 0.95), quantile(new.seconds, 0.95)
    figures = {"p95_live": round(1000 * before, 3), "p95_new": round(1000 * after, 3)}
    limit = max(before * limits.p95_ratio, before + limits.p95_excess_ms / 1000)
    # Counts are known at the histogram's bounds alone.
    bound = max((b for b in live.seconds if b <= limit), default=0.0)
    slower = fisher(*_above(live.seconds, bound), *_above(new.seconds, bound))
    if after <= limit or slower >= alpha:
        return None, figures
    reason = (
        f"95 % of requests within {1000 * after:.3g} ms, {1000 * before:.3g} ms at the live "
        f"version; allowed are {1000 * limit:.3g} ms"
    )
    return reason, figures


def _distribution(live: Counts, new: Counts, limits: Limits, alpha: float) -> _Found:
    buckets = sorted(live.predictions.keys() | new.predictions.keys())
    before, n = _per_request(live, buckets)
    after, m = _per_request(new, buckets)
    if limits.distribution is None or not n or not m:
        return None, {}
    # What the index of two samples of one distribution is on average.
    bias = (len(buckets) - 1) * (1 / n + 1 / m)
    psi = max(0.0, stability_index(before, after) - bias)
    pairs = list(zip(before, after, strict=True))
    chance = min(min(fisher(b, n, a, m), fisher(a, m, b, n)) for b, a in pairs)
    # The least of as many chances as there are buckets, in two directions.
    if psi <= limits.distribution or chance * 2 * len(pairs) >= alpha:
        return None, {"psi": round(psi, 4)}
    reason = (
        f"its predictions are distributed otherwise than the live version's: population stability "
        f"index {psi:.3g}, allowed is {limits.distribution:g}"
    )
    return reason, {"psi": round(psi, 4)}


def _per_request(counts: Counts, buckets: Sequence[str]) -> tuple[list[int], int]:
    """Rows per bucket and in all, as many as there are independent ones.

    The rows of one request may be all alike, so together they count once.
    """
    rows = sum(counts.predictions.values())
    scale = min(1.0, counts.answered / rows) if rows else 0.0
    scaled = [round(scale * counts.predictions.get(bucket, 0)) for bucket in buckets]
    return scaled, sum(scaled)


def fisher(live: int, live_total: int, new: int, new_total: int) -> float:
    """Chance that as many of the marked requests or more fall to the new version (Fisher's test).

    Args:
        live: marked requests of the live version.
        live_total: all of its requests.
        new: marked requests of the new one.
        new_total: all of its requests.
    """
    marked, total = live + new, live_total + new_total
    if new * total <= marked * new_total:  # no more than expected: of no interest
        return 1.0
    term = math.exp(
        _log_choose(new_total, new)
        + _log_choose(live_total, marked - new)
        - _log_choose(total, marked)
    )
    chance = 0.0
    for count in range(new, min(marked, new_total) + 1):
        chance += term
        if term <= chance * 1e-12:
            break  # above the expected count each term is smaller than the one before
        others = marked - count
        term *= (new_total - count) * others
        term /= (count + 1) * (live_total - others + 1)
    return min(chance, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def quantile(seconds: Mapping[float, int], share: float) -> float:
    """A quantile in seconds, on a line within its interval; of nothing it is 0."""
    wanted = share * sum(seconds.values())
    below, seen = 0.0, 0
    for bound in sorted(seconds):
        count = seconds[bound]
        if count and seen + count >= wanted:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (wanted - seen) / count
        seen += count
        below = below if math.isinf(bound) else bound
    return 0.0


def _above(seconds: Mapping[float, int], bound: float) -> tuple[int, int]:
    """Requests that took longer than a bound of the histogram, and all of them."""
    return sum(n for upper, n in seconds.items() if upper > bound), sum(seconds.values())
