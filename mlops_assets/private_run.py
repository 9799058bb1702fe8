"""A run that leaves no trace: what needs a run's context, and is none of the platform's assets."""

import contextlib
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import dagster as dg
from dagster import PreviewWarning

from mlops_assets.errors import UserError
from mlops_assets.progress import progress

T = TypeVar("T")


class PrivateRunError(UserError):
    """The run failed; the message is that of what failed."""


def in_run(name: str, work: Callable[[dg.AssetExecutionContext], T]) -> T:
    """Do work in a run of an instance of its own, which ends with it; its lines go to stderr.

    No event, reference or attempt of it reaches the platform's own state, so that no automation
    sees it.

    Raises:
        PrivateRunError: the work raised dagster.Failure.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    @dg.asset(name=name)
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        try:
            found.append(work(context))
        except BaseException as error:
            raised.append(error)
            raise
        # Where a process reported to the step, Dagster takes None for a result that is missing.
        return dg.MaterializeResult()

    # Dagster's own use of its own previews, once per training process.
    warnings.filterwarnings("ignore", category=PreviewWarning)
    defs = dg.Definitions(assets=[asset], loggers={"progress": progress})
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance, contextlib.redirect_stdout(sys.stderr):
        job.execute_in_process(
            instance=instance, run_config={"loggers": {"progress": {}}}, raise_on_error=False
        )
    if found:
        return found[0]
    for error in raised:
        if isinstance(error, dg.Failure):
            raise PrivateRunError(error.description or f"{name} failed") from None
        raise error
    raise PrivateRunError(f"{name}: the run ended before it began")
