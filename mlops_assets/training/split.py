"""Which rows are held out: a hash of the key, so that a row never changes sides.

Rows are hashed column by column with pandas' 64-bit hash, mixed with SplitMix64's finaliser
(Steele, Lea and Flood 2014) and a salt, and taken as a number in [0, 1). Neither the order of
rows, nor other columns, nor rows that are added later matter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


def row_hashes(columns: Mapping[str, Any], names: Sequence[str], salt: str) -> Hashes:
    """A 64-bit hash per row.

    Args:
        columns: name -> n values: lists, numpy arrays or pyarrow columns.
        names: the columns to hash, whose order does not matter.
        salt: another salt is another hash.

    Returns:
        n unsigned integers, uniform.
    """
    seed = int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "little")
    total: Hashes | None = None
    for name in sorted(names):
        own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        hashed = _mix(_hash_values(columns[name]) ^ np.uint64(own))
        total = hashed if total is None else total + hashed
    if total is None:
        raise ValueError("at least one column must be hashed")
    return _mix(total ^ np.uint64(seed))


def held_out(hashes: Hashes, fraction: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True for the rows of the holdout: a share of ``fraction``, the same rows every time."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53 < fraction


def holdout_digest(hashes: Hashes) -> str:
    """SHA-256 over the held-out rows' hashes in order of size: equal for equal sets of rows."""
    return hashlib.sha256(np.sort(hashes).astype("<u8").tobytes()).hexdigest()


def _hash_values(values: Any) -> Hashes:
    """Hash of each value: numbers as floats, so that 7 and 7.0 are one key, all else as text."""
    array = np.asarray(values.to_pylist() if hasattr(values, "to_pylist") else values)
    if array.dtype.kind == "M":
        array = array.astype("datetime64[us]").astype(object)
    present = [v for v in array.tolist() if not _is_missing(v)] if array.dtype.kind == "O" else []
    if present and all(_is_number(v) for v in present):
        # A missing number makes objects of its whole column, and must not move the other rows.
        array = np.array([math.nan if _is_missing(v) else float(v) for v in array.tolist()])
    if array.dtype.kind in "iubf":
        floats = array.astype(np.float64) + 0.0  # no minus zero
        floats[np.isnan(floats)] = math.nan  # one NaN
        return pd.util.hash_array(floats, categorize=False)
    texts = np.array(["" if _is_missing(v) else str(v) for v in array.tolist()], dtype=object)
    return pd.util.hash_array(texts, categorize=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value


def _mix(values: Hashes) -> Hashes:
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
