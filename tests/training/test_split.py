from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.training.split import held_out, holdout_digest, row_hashes

KEYS = st.lists(st.tuples(st.integers(-(2**52), 2**52), st.text(max_size=5)), min_size=1)


def hashes(keys: list[tuple[int, str]], salt: str = "") -> np.ndarray:
    columns = {"a": [k[0] for k in keys], "b": [k[1] for k in keys]}
    return row_hashes(columns, ["a", "b"], salt)


def test_the_hash_never_changes() -> None:
    # Recorded: another hash would move rows of every model from one side to the other.
    found = row_hashes({"n": [1, 2, -7], "s": ["", "a", "ü"]}, ["n", "s"], "salt")
    assert found.tolist() == [10364389585572626771, 7262990827350981977, 17000605335337319960]


@given(KEYS, st.randoms())
def test_a_row_keeps_its_hash_wherever_it_stands(keys, random) -> None:
    order = list(range(len(keys)))
    random.shuffle(order)
    assert hashes([keys[i] for i in order]).tolist() == hashes(keys)[order].tolist()


@given(KEYS, KEYS)
def test_rows_that_are_added_move_no_other(keys, added) -> None:
    assert hashes(keys + added)[: len(keys)].tolist() == hashes(keys).tolist()


@given(KEYS)
def test_the_order_of_columns_does_not_matter(keys) -> None:
    columns = {"a": [k[0] for k in keys], "b": [k[1] for k in keys]}
    assert (row_hashes(columns, ["b", "a"], "") == hashes(keys)).all()


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_a_number_is_one_key_however_it_was_read(values) -> None:
    ways = [
        values,
        [float(v) for v in values],
        np.array(values, dtype=np.int64),
        np.array(values, dtype=object),
        pa.chunked_array([values], pa.int64()),
        pa.chunked_array([[float(v) for v in values]], pa.float64()),
    ]
    found = [row_hashes({"k": way}, ["k"], "").tolist() for way in ways]
    assert all(one == found[0] for one in found)


@given(st.lists(st.integers(), min_size=1), st.sampled_from([None, float("nan")]))
def test_a_missing_number_moves_no_other_row(values, missing) -> None:
    values = [v % 2**53 for v in values]
    found = row_hashes({"k": [*values, missing]}, ["k"], "")
    assert found[:-1].tolist() == row_hashes({"k": values}, ["k"], "").tolist()


def test_texts_and_times_have_one_spelling() -> None:
    times = [dt.datetime(2024, 1, 2, 3, 4, 5), dt.datetime(2024, 1, 2)]
    ways = [
        times,
        np.array(times, "datetime64[us]"),
        np.array(times, "datetime64[ns]"),
        pa.array(times),
    ]
    assert len({tuple(row_hashes({"k": way}, ["k"], "").tolist()) for way in ways}) == 1
    missing = row_hashes({"k": ["a", None]}, ["k"], "")
    assert missing.tolist() == row_hashes({"k": ["a", ""]}, ["k"], "").tolist()


@given(st.floats(0.05, 0.95), st.text(max_size=8))
def test_the_share_held_out_is_the_fraction(fraction, salt) -> None:
    count = 4000
    share = held_out(row_hashes({"k": np.arange(count)}, ["k"], salt), fraction).mean()
    assert abs(share - fraction) < 6 * np.sqrt(fraction * (1 - fraction) / count)


def test_another_salt_is_another_split() -> None:
    one, other = (
        held_out(row_hashes({"k": np.arange(1000)}, ["k"], salt), 0.5) for salt in ("", "x")
    )
    assert 350 < (one != other).sum() < 650


def test_the_digest_names_the_set_of_rows() -> None:
    found = row_hashes({"k": np.arange(10)}, ["k"], "")
    assert holdout_digest(found) == holdout_digest(found[::-1])
    assert holdout_digest(found) != holdout_digest(found[1:])


def test_no_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        row_hashes({}, [], "")
