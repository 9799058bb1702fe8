"""One run that kills itself with SIGKILL at a step towards the outside.

``python -m tests.killed_run ROOT HOME STEP [--instance FOLDER] [--look TIME]``: a step is a file
that is opened by its number, renamed or linked into place, or a process that is started, each
``before`` and ``after``; the run is killed at the first one that STEP, a regular expression,
matches. With an empty one it ends by itself. Runs are kept in the folder INSTANCE, or in memory
alone, which is quicker. What runs is the chain, or a look at production at a time.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("root", type=Path)
parser.add_argument("home", type=Path)
parser.add_argument("step")
parser.add_argument("--instance", type=Path)
parser.add_argument("--look")
ASKED = parser.parse_args()


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
    path = arguments[0] if name == "open" else arguments[-1]
    return f"{name} " + str(path).replace(str(ASKED.home), "")


def step(what: str) -> None:
    if ASKED.step and re.search(ASKED.step, what):
        print(what, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def kept(folder: Path) -> Any:
    from dagster import DagsterInstance

    folder.mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return DagsterInstance.from_config(str(folder))


def main() -> None:
    import dagster as dg

    from mlops_assets.definitions import build_definitions
    from resources.environment import load_profile
    from tests.conftest import CHAIN

    profile = load_profile({"MLOPS_HOME": str(ASKED.home)}, ASKED.root)
    job = build_definitions(profile).resolve_implicit_global_asset_job_def()
    for owner, name in (
        (os, "open"),
        (os, "rename"),
        (os, "link"),
        (Path, "replace"),
        (subprocess.Popen, "_execute_child"),
    ):
        counted(owner, name)
    names, config = CHAIN, {}
    if ASKED.look:
        names = ("production_monitoring",)
        config = {"ops": {"rent__production_monitoring": {"config": {"now": ASKED.look}}}}
    keys = [dg.AssetKey(["rent", name]) for name in names]
    folder = ASKED.instance
    with kept(folder) if folder else dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, asset_selection=keys, run_config=config)
    assert result.success


if __name__ == "__main__":
    main()
