"""One run of the chain that kills itself with SIGKILL at a step towards the outside.

``python -m tests.killed_run ROOT HOME STEP [INSTANCE]``: a step is a file that is renamed or
linked into place, or a process that is started, each ``before`` and ``after``; the run is killed
at the first one that STEP, a regular expression, matches. With an empty one it ends by itself.
Runs are kept in the folder INSTANCE, or in memory alone, which is quicker.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT, HOME, STEP = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]


def counted(owner: Any, name: str) -> None:
    original = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        what = shown(name, arguments)
        step(f"before {what}")
        result = original(*arguments, **options)
        step(f"after {what}")
        return result

    setattr(owner, name, call)


def shown(name: str, arguments: tuple[Any, ...]) -> str:
    if name == "_execute_child":
        return "start " + " ".join(map(str, arguments[1]))
    return f"{name} " + str(arguments[-1]).replace(str(HOME), "")


def step(what: str) -> None:
    if STEP and re.search(STEP, what):
        print(what, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def kept(folder: str) -> Any:
    from dagster import DagsterInstance

    Path(folder).mkdir(parents=True)
    (Path(folder) / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return DagsterInstance.from_config(folder)


def main() -> None:
    import dagster as dg

    from mlops_assets.definitions import build_definitions
    from resources.environment import load_profile
    from tests.conftest import CHAIN

    profile = load_profile({"MLOPS_HOME": str(HOME)}, ROOT)
    job = build_definitions(profile).resolve_implicit_global_asset_job_def()
    for owner, name in (
        (os, "rename"),
        (os, "link"),
        (Path, "replace"),
        (subprocess.Popen, "_execute_child"),
    ):
        counted(owner, name)
    with dg.DagsterInstance.ephemeral() if len(sys.argv) == 4 else kept(sys.argv[4]) as instance:
        keys = [dg.AssetKey(["rent", name]) for name in CHAIN]
        result = job.execute_in_process(instance=instance, asset_selection=keys)
    assert result.success


if __name__ == "__main__":
    main()
