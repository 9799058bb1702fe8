"""Load the code location of a checkout, as a code server does: ``python -m tests.bench.load ROOT``.

The garbage collector rests meanwhile, as ``mlops_assets.definitions`` has it.
"""

import gc
import sys
from pathlib import Path

gc.disable()

from mlops_assets.definitions import build_definitions  # noqa: E402
from resources.environment import load_profile  # noqa: E402

profile = load_profile({"MLOPS_HOME": f"{sys.argv[1]}/home"}, Path(sys.argv[1]))
build_definitions(profile).get_repository_def().get_all_jobs()
