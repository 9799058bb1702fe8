"""The population stability index: how far two distributions over the same bins lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence


def stability_index(before: Sequence[float], after: Sequence[float]) -> float:
    """The index of two samples' rows per bin, without unit: 0 where the shares are equal."""
    # Half a row in each bin keeps the logarithm finite where one side has none.
    half = len(before) / 2
    n, m = sum(before) + half, sum(after) + half
    shares = (((b + 0.5) / n, (a + 0.5) / m) for b, a in zip(before, after, strict=True))
    return sum((p - q) * math.log(p / q) for p, q in shares)
