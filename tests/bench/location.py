"""A code location over the checkout that BENCH_ROOT names, for Dagster to load.

What ``mlops_assets.definitions`` does for its own models, it does for these.
"""

import gc
import os
from pathlib import Path

from mlops_assets.definitions import build_definitions
from resources.environment import load_profile

root = Path(os.environ["BENCH_ROOT"])
defs = build_definitions(load_profile({"MLOPS_HOME": str(root / "home")}, root))
gc.freeze()
