"""Fingerprints: what is part of them, and what is not."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from resources.listing import StoredFile, fingerprint, newest

stored = st.builds(
    StoredFile,
    st.just(UPath("/data")),
    st.integers(0, 1 << 40),
    st.integers(0).map(str),
    st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=9),
)
several = st.lists(stored, min_size=1, max_size=8, unique_by=lambda file: file.within)


@given(several.flatmap(lambda files: st.tuples(st.just(files), st.permutations(files))))
def test_the_order_of_files_is_no_part_of_the_fingerprint(orders: Any) -> None:
    files, shuffled = orders
    assert fingerprint(shuffled) == fingerprint(files)


@given(several, stored, st.data())
def test_each_change_is_another_fingerprint(files: Any, other: StoredFile, data: Any) -> None:
    before = fingerprint(files)
    number = data.draw(st.integers(0, len(files) - 1))
    one, rest = files[number], [*files[:number], *files[number + 1 :]]
    assert fingerprint(rest) != before
    assert fingerprint([*rest, one._replace(size=one.size + 1)]) != before
    assert fingerprint([*rest, one._replace(version=f"{one.version}0")]) != before
    if other.within not in {file.within for file in files}:
        assert fingerprint([*files, other]) != before
        assert fingerprint([*rest, one._replace(within=other.within)]) != before


def test_a_date_in_the_future_or_unknown_is_now() -> None:
    for changed in (1e300, float("inf")):
        file = StoredFile(UPath("/a"), 1, changed=changed)
        assert "2026" <= newest([file]) < "3000"
    assert newest([]) == "1970-01-01T00:00:00+00:00"
