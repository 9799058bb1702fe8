"""Training through jobs of Azure ML, inside runs of Dagster's: what its tests have in common."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from resources.azure.clients import AzureClients
from resources.azure.settings import AzureSettings
from resources.azure.training import AzureMLTraining
from resources.training import Training
from tests.azure.platforms import profile_json
from tests.azure.server import AzureServer
from tests.training.requests import Case, make_case

CONTAINER = "mlops"
#: Is never done.
SLEEPS = "import time\ndef build(params):\n    print('sleeps')\n    time.sleep(100)\n"


class Ran:
    """One run of a training resource inside a run of Dagster's."""

    def __init__(self, training: Training, case: Case) -> None:
        """Run the request of a case; what it raises is kept."""
        self.error: BaseException | None = None

        @dg.asset
        def model(context: dg.AssetExecutionContext):
            try:
                training.run(context, case.request, case.output)
            except BaseException as error:
                self.error = error
                raise
            yield dg.MaterializeResult()

        with dg.DagsterInstance.ephemeral() as instance:
            self.result = dg.materialize([model], instance=instance, raise_on_error=False)
            logs = instance.all_logs(self.result.run_id)
            self.lines = [entry.user_message for entry in logs]

    @property
    def log(self) -> str:
        """All lines of the run's log."""
        return "\n".join(self.lines)


def on_jobs(
    azure: AzureServer, root: Path | None = None, margin: float = 60, **given: Any
) -> AzureMLTraining:
    """The resource; ``given`` is ``training`` of profile.json."""
    settings = {**profile_json(azure, container=CONTAINER), "training": given}
    return AzureMLTraining.of(
        AzureClients(AzureSettings.model_validate(settings)),
        root=str(root or Path(__file__).parents[2]),
        poll_seconds=0.2,
        margin_seconds=margin,
    )


def case(folder: Path, files: dict[str, str], **given: Any) -> Case:
    """A request with an identity, as the asset makes it."""
    found = make_case(folder / "work", files, **given)
    found.request["identity"] = "0123456789abcdef" * 4
    return found


def left(azure: AzureServer) -> list[str]:
    """Blobs of jobs that are still there."""
    client = azure.blob.client().get_container_client(CONTAINER)
    return [b.name for b in client.list_blobs(name_starts_with="training/")]


def jobs(azure: AzureServer) -> list[Any]:
    """All jobs of the workspace."""
    return azure.cloud.every("/workspaces/jobs")


def status(azure: AzureServer) -> list[str]:
    """Of each job."""
    return [job.hidden["run"].status for job in jobs(azure)]


def meanwhile(do: Callable[[], None]) -> threading.Thread:
    """Do something in a thread."""
    thread = threading.Thread(target=do)
    thread.start()
    return thread
