"""Which process works on a run, so that a run whose process is gone is not waited for."""

import json
import os
import socket
import time

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG

from mlops_assets.scoring import processes

#: Run tag: ``<pid>@<start time of that process>``; a reused pid has another start time.
PROCESS_TAG = "mlops/process"

#: Run tags that people search by: the model, what started the run, what it released or deployed.
MODEL_TAG = "mlops/model"
TRIGGER_TAG = "mlops/trigger"
COMMIT_TAG = "mlops/commit"
VERSION_TAG = "mlops/version"
#: Which release the automation deploys.
RELEASE_TAG = "mlops/release"

#: So long may a run that has begun be without PROCESS_TAG, which its first step brings.
UNNAMED_SECONDS = 60.0

_UNFINISHED = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def tag_run(context: dg.AssetExecutionContext, tag: str, value: str) -> None:
    """Tag the run; not one of several models, which has one value for each."""
    if MODEL_TAG in context.run.tags:
        context.instance.add_run_tags(context.run.run_id, {tag: value})


def assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[dg.AssetKey]:
    """The assets that a run makes, or was to make."""
    if run.asset_selection:
        return set(run.asset_selection)
    plan = run.execution_plan_snapshot_id
    return set(instance.get_execution_plan_snapshot(plan).asset_selection) if plan else set()


def process_name(pid: int | None = None) -> str:
    """This process, or another one, under a name that no later process has."""
    pid = pid or os.getpid()
    return f"{pid}@{processes.created(pid):.2f}"


def is_running(name: str) -> bool:
    """Whether the process of that name is still there."""
    pid, _, created = name.partition("@")
    return processes.is_alive(int(pid), float(created))


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is gone; returns their ids.

    A killed run says STARTED for ever, and what waits for runs in progress would wait for it.
    """
    found = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
    dead = [(record.dagster_run, why) for record in found if (why := _death(record))]
    for run, why in dead:
        instance.report_run_failed(run, why)
    return [run.run_id for run, _ in dead]


def _death(record: dg.RunRecord) -> str | None:
    """Why nobody works on a run, nor ever will; None as far as somebody may."""
    run = record.dagster_run
    if PROCESS_TAG in run.tags:
        process = run.tags[PROCESS_TAG]
        if is_running(process):
            return None
        return f"process {process.partition('@')[0]} ended without a word"
    if run.status == dg.DagsterRunStatus.STARTING and not _listens(run.tags.get(GRPC_INFO_TAG)):
        # A process of it that lives on all the same sees that the run has ended, and ends too.
        return "the code server that was to start it has ended"
    if run.status == dg.DagsterRunStatus.STARTED and record.start_time:
        waited = time.time() - record.start_time
        if waited > UNNAMED_SECONDS:
            return f"no process has said within {waited:.0f} s that it works on this run"
    return None


def _listens(server: str | None) -> bool:
    """Whether a code server is there: False only if it was one of this machine, and is not."""
    path = json.loads(server or "{}").get("socket")
    if not path:
        return True
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
