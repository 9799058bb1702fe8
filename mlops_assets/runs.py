"""Which process works on a run, so that a run whose process is gone is not waited for."""

import os

import dagster as dg

from mlops_assets.scoring import processes

#: Run tag: ``<pid>@<start time of that process>``; a reused pid has another start time.
PROCESS_TAG = "mlops/process"

#: Run tags that people search by: the model, what started the run, what it released or deployed.
MODEL_TAG = "mlops/model"
TRIGGER_TAG = "mlops/trigger"
COMMIT_TAG = "mlops/commit"
VERSION_TAG = "mlops/version"


def tag_run(context: dg.AssetExecutionContext, tag: str, value: str) -> None:
    """Tag the run; not one of several models, which has one value for each."""
    if MODEL_TAG in context.run.tags:
        context.instance.add_run_tags(context.run.run_id, {tag: value})


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
    unfinished = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    )
    dead = [
        run
        for run in instance.get_runs(unfinished)
        if PROCESS_TAG in run.tags and not is_running(run.tags[PROCESS_TAG])
    ]
    for run in dead:
        instance.report_run_failed(
            run, f"process {run.tags[PROCESS_TAG].partition('@')[0]} ended without a word"
        )
    return [run.run_id for run in dead]
