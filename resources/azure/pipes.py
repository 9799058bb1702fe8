"""Dagster Pipes with an Azure ML job: its blobs below one folder, its end in time.

Imports Dagster's and Microsoft's packages at once: imported where a job is run, not before.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from azure.core.exceptions import (
    AzureError as ClientError,
)
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from dagster._core.pipes.client import PipesClientCompletedInvocation
from dagster._core.pipes.utils import open_pipes_session
from dagster_azure.pipes import (
    PipesAzureBlobStorageContextInjector,
    PipesAzureBlobStorageMessageReader,
    PipesAzureMLClient,
)
from dagster_pipes import PipesContextData, PipesExtras, PipesParams

from resources.training import TrainingError, TrainingKilledError

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, Job

    from resources.azure.clients import AzureClients

ENDED = ("Completed", "Failed", "Canceled")
#: Of a job that has its machine; in all other states it waits for one, or for its image.
RUNNING = ("Running", "Finalizing")
#: How long a job that was cancelled may take to end before it is no longer waited for.
CANCEL_SECONDS = 120.0
#: What Azure's own limit is late, and what is not seen of the time that a job runs.
LATE_SECONDS = 60.0
#: Answers after which the same question may have another one.
AGAIN = (408, 429, 500, 502, 503, 504)
#: Seconds between two looks for log lines.
MESSAGE_SECONDS = 1


@dataclass(frozen=True)
class Limits:
    """Seconds that a job may take."""

    #: Until it runs.
    queue: float
    #: From then on; Azure ends it by itself.
    run: float


class JobFailedError(Exception):
    """A job has ended as Failed."""


class Context(PipesAzureBlobStorageContextInjector):
    """Dagster's, with a name that is known before: whoever finds the blob knows the job."""

    def __init__(self, clients: AzureClients, folder: str) -> None:
        storage = clients.settings.storage
        super().__init__(container=storage.container, client=clients.storage)
        self._key = f"{folder}/context.json"

    @contextlib.contextmanager
    def inject_context(self, context: PipesContextData) -> Generator[PipesParams]:
        """Write the context; it goes with all else of the job."""
        blob = self.client.get_blob_client(self.bucket, self._key)
        blob.upload_blob(json.dumps(context).encode(), overwrite=True)
        yield {"bucket": self.bucket, "key": self._key}


class Messages(PipesAzureBlobStorageMessageReader):
    """Dagster's, below the folder of the job."""

    def __init__(self, clients: AzureClients, folder: str) -> None:
        storage = clients.settings.storage
        super().__init__(
            interval=MESSAGE_SECONDS, container=storage.container, client=clients.storage
        )
        self._prefix = f"{folder}/messages"

    @contextlib.contextmanager
    def get_params(self) -> Generator[PipesParams]:
        """Where the job writes."""
        yield {
            "bucket": self.bucket,
            "key_prefix": self._prefix,
            "include_stdio_in_messages": False,
        }


class JobClient(PipesAzureMLClient):
    """Dagster's, which would swallow an interruption and wait for ever."""

    def __init__(
        self,
        clients: AzureClients,
        folder: str,
        limits: Limits,
        poll_seconds: float,
        check: Callable[[], None],
    ) -> None:
        """A client for one job.

        Args:
            clients: of the workspace and of the storage.
            folder: in the container, for all blobs of the job.
            limits: after which the job is cancelled.
            poll_seconds: between two looks at the job.
            check: raises if the job is to go on no more.
        """
        super().__init__(
            clients.workspace, Context(clients, folder), Messages(clients, folder), poll_seconds
        )
        self._limits, self._check = limits, check

    def run(
        self,
        *,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        extras: PipesExtras | None = None,
        command: Command,
    ) -> PipesClientCompletedInvocation:
        """Run a job that has a name to its end; however this ends, the job does not go on.

        Raises:
            JobFailedError: it has failed.
            TrainingKilledError: it was cancelled, or waited too long.
            TrainingError: it ran too long.
        """
        assert command.name, "whoever is cut off while it is made must find it again"
        log = context.log.info
        with open_pipes_session(
            context=context,
            extras=extras,
            context_injector=self.context_injector,
            message_reader=self.message_reader,
        ) as session:
            command.environment_variables = {
                **(command.environment_variables or {}),
                **session.get_bootstrap_env_vars(),
            }
            try:
                job = self._made(command)
                log(f"Azure ML job {job.name}: {job.studio_url}")
                self._poll_til_success(context, command.name)
            except JobFailedError:
                raise
            except BaseException:
                self.cancel(command.name, log)
                raise
        return PipesClientCompletedInvocation(session, {"job": command.name})

    def cancel(self, name: str, log: Callable[[str], Any]) -> bool:
        """End a job and wait until it has ended; False if it still goes on, or nobody knows."""
        end = time.monotonic() + CANCEL_SECONDS
        asked = False
        while time.monotonic() < end:
            try:
                if self._state(name) in ENDED:
                    return True
                if not asked:
                    log(f"cancelling Azure ML job {name}")
                    self.client.jobs.begin_cancel(name)
                    asked = True
            except ResourceNotFoundError:
                return True  # it was never made
            except ClientError as error:
                log(f"Azure ML job {name} could not be cancelled yet: {error}")
            time.sleep(min(self.poll_interval_seconds, 2.0))
        log(f"Azure ML job {name} has not ended yet; Azure ends it by its own limit")
        return False

    def _made(self, command: Command) -> Job:
        """The job, made now, or a moment ago if the answer was lost on its way."""
        try:
            return self.client.create_or_update(command)
        except ClientError:
            with contextlib.suppress(ClientError):
                return self.client.jobs.get(str(command.name))
            raise

    def _poll_til_success(
        self, context: dg.OpExecutionContext | dg.AssetExecutionContext, job_name: str
    ) -> None:
        status, ran, since = "", False, time.monotonic()
        while True:
            self._check()
            found = self._status(context, job_name)
            if found and found != status:
                context.log.info(f"Azure ML job {job_name}: {found}")
                status = found
                if (found in RUNNING) != ran and found not in ENDED:
                    # One whose machine was taken away waits again.
                    ran, since = not ran, time.monotonic()
            seconds = time.monotonic() - since
            if status == "Completed":
                return
            if status == "Failed":
                raise JobFailedError(job_name)
            if status == "Canceled":
                raise self._cancelled(job_name, seconds if ran else 0.0)
            self._hold_limits(job_name, seconds, ran=ran)
            time.sleep(self.poll_interval_seconds)

    def _status(self, context: Any, name: str) -> str | None:
        """None if it cannot be had at the moment."""
        try:
            return self._state(name)
        except ClientError as error:
            lost = not isinstance(error, (HttpResponseError, ClientAuthenticationError))
            if lost or getattr(error, "status_code", None) in AGAIN:
                context.log.warning(f"Azure ML job {name} cannot be seen at the moment: {error}")
                return None
            raise

    def _state(self, name: str) -> str:
        # Of the members of azure-ai-ml's JobStatus, which print as such, the plain words.
        return str(getattr(status := self.client.jobs.get(name).status, "value", status))

    def _cancelled(self, name: str, seconds: float) -> TrainingError:
        if seconds + LATE_SECONDS >= self._limits.run:
            return self._too_long(name)
        return TrainingKilledError(
            f"Azure ML job {name} was cancelled, by somebody or by Azure; materialize it again"
        )

    def _hold_limits(self, name: str, seconds: float, *, ran: bool) -> None:
        if not ran and seconds > self._limits.queue:
            raise TrainingKilledError(
                f"Azure ML job {name} was cancelled: it waited for its machine longer than "
                f"queue_seconds of training in profile.json ({self._limits.queue:g} s)"
            )
        if ran and seconds > self._limits.run + LATE_SECONDS:
            raise self._too_long(name)

    def _too_long(self, name: str) -> TrainingError:
        return TrainingError(
            f"Azure ML job {name} was cancelled: it ran longer than its limit "
            f"({self._limits.run:g} s), which is timeout_seconds of model.yaml and some time to "
            "bring data there and back"
        )
