"""Random interleavings of everything that may happen, for some minutes.

Pushes good, worse and broken, reverts, force-pushes; files added, replaced, removed, broken; ticks
of the sensors in any order; runs that stand still anywhere, are killed anywhere, are lost before
they begin; cursors lost, the daemon restarted, the machine down, the remote away.

``MLOPS_FUZZ_SEED=7 MLOPS_FUZZ_EXAMPLES=100`` asks for other actions, and more of them.
"""

import tempfile
from pathlib import Path

import pytest

from tests.at_rest import check
from tests.exactly_once import Action, fuzzed, played


def anything_may_happen(done: list[Action]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        played(Path(folder) / "world", done, check)


test_anything_may_happen = pytest.mark.timeout(0)(
    fuzzed(anything_may_happen, number=80, examples=3)
)
