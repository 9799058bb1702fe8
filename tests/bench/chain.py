"""The platform's chain for one model, in one in-process run.

``python -m tests.bench.chain HOME STEPS`` with STEPS ``release`` or ``all``; the last line is
the seconds of each step, as JSON.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

started = time.perf_counter()

import dagster as dg  # noqa: E402

from mlops_assets.definitions import build_definitions  # noqa: E402
from resources.environment import load_profile  # noqa: E402

RELEASE = ("dataset", "trained_model", "registered_model")
ENDPOINTS = ("package", "staging_endpoint", "production_endpoint")


def main(home: Path, steps: str) -> None:
    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    profile = load_profile({"MLOPS_HOME": str(home)})
    shutil.copytree(profile.root / "samples" / "data" / "diabetes", home / "storage" / "diabetes")
    job = build_definitions(profile).resolve_implicit_global_asset_job_def()
    names = RELEASE if steps == "release" else RELEASE + ENDPOINTS
    loaded = time.perf_counter()
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey(["diabetes", name]) for name in names]
        )
        assert result.success
    seconds = {
        event.step_key.removeprefix("diabetes__"): event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success
    }
    total = time.perf_counter() - started
    rest = total - (loaded - started) - sum(seconds.values())
    print(json.dumps({"load": loaded - started, **seconds, "Dagster between steps": rest}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
