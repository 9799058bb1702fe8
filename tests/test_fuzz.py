"""A short version of tests/system/test_fuzz.py; both print what they did."""

import tempfile
from pathlib import Path

import pytest

from tests.at_rest import check
from tests.exactly_once import Action, fuzzed, played


def anything_may_happen(done: list[Action]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        played(Path(folder) / "world", done, check)


test_anything_may_happen = pytest.mark.timeout(600)(
    fuzzed(anything_may_happen, number=25, examples=2)
)
