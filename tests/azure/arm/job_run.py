"""One run of a command job, as a process of this machine."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from isodate import parse_duration

import mlops_assets
from tests.azure.arm.base import Cloud, Resource, now
from tests.azure.arm.deployments import download, place
from tests.azure.arm.operations import OperationError
from tests.azure.faults import OperationFault
from tests.azure.job_identity import JobIdentity
from tests.azure.leash import Leashed

ENDED = {"Completed", "Failed", "Canceled"}
#: Where the workspace keeps what its jobs print.
LOGS, LOG = "azureml", "user_logs/std_log.txt"
#: How often what the command prints is put where ``jobs.stream`` reads it.
UPLOAD_SECONDS = 0.2


class JobRun:
    """A job from Starting to its end."""

    def __init__(
        self, cloud: Cloud, resource: Resource, workspace: str, fault: OperationFault | None
    ) -> None:
        """Prepare it; ``carry_out`` runs it."""
        self._cloud, self._resource, self._workspace = cloud, resource, workspace
        self._fault = fault
        self._folder = cloud.folder / "jobs" / resource.name
        self._canceled = threading.Event()
        self._processes: list[Leashed] = []
        self._endless = fault is not None and fault.outcome == "endless"
        self.status = "Starting"
        self.error: dict[str, Any] | None = None
        self.started, self.ended = "", ""

    @property
    def log(self) -> str:
        """The name of the blob with what the command prints."""
        return f"ExperimentRun/dcid.{self._resource.name}/{LOG}"

    def queue(self) -> None:
        """Let one that waits for ever do so, before whoever asks next can find it starting."""
        if self._endless:
            self.status = "Queued"

    def carry_out(self) -> None:
        """Run the command and keep what it leaves."""
        try:
            self._carry_out()
        except OperationError as problem:
            self._end("Failed", {"code": problem.code, "message": problem.message})
        except Exception:
            self._cloud.broken.append(traceback.format_exc())
            self._end("Failed", {"code": "TestServerBroken", "message": traceback.format_exc()})

    def cancel(self) -> None:
        """End it, wherever it is."""
        self._canceled.set()
        for process in self._processes:
            process.end()

    end = cancel

    def _carry_out(self) -> None:
        fault, properties = self._fault, self._resource.properties
        if self._endless:
            self._canceled.wait()
        elif fault:
            raise OperationError(fault.code, fault.message)
        code = self._folder / "code"
        code.mkdir(parents=True)
        if properties["codeId"]:
            found = self._cloud.find(properties["codeId"])
            if found is None:
                raise OperationError("UserError", f"There is no code {properties['codeId']}")
            code = download(
                self._cloud, self._workspace, found.properties["codeUri"], self._folder / "code"
            )
        command = self._command(properties)
        if self._canceled.is_set():
            self._end("Canceled")
            return
        self.status, self.started = "Running", now()
        kind = (properties["identity"] or {}).get("identityType")
        lender = JobIdentity(self._cloud.login, on_behalf=kind == "UserIdentity")
        with closing(lender) as identity:
            for rank in ranks(properties):
                variables = self._variables(properties, identity.variables | rank)
                self._processes.append(
                    Leashed(["bash", "-c", command], variables, self._folder / "log", code)
                )
            self._finish(self._wait((properties["limits"] or {}).get("timeout")))

    def _wait(self, limit: str | None) -> int:
        """The exit code; of several processes one that is not 0."""
        end = time.monotonic() + (parse_duration(limit).total_seconds() if limit else float("inf"))
        while True:
            codes = [process.ended for process in self._processes]
            self._upload_log()
            failed = [code for code in codes if code]
            if failed or None not in codes:
                for process in self._processes:
                    process.end()
                return failed[0] if failed else 0
            if time.monotonic() > end:
                self.cancel()
            self._canceled.wait(UPLOAD_SECONDS)

    def _finish(self, exit_code: int) -> None:
        self._upload_log()
        if self._canceled.is_set():
            self._end("Canceled")
        elif exit_code:
            text = f"Execution failed. User process exited with status code {exit_code}."
            self._end("Failed", {"code": "UserError", "message": text})
        else:
            self._upload_outputs()
            self._end("Completed")

    def _end(self, status: str, problem: dict[str, Any] | None = None) -> None:
        self.error, self.ended = problem, now()
        self.status = status

    def _command(self, properties: dict[str, Any]) -> str:
        """The command, with places of this machine for inputs and outputs."""
        places: dict[str, str] = {}
        for name, value in properties["inputs"].items():
            if value["jobInputType"] == "literal":
                places[f"inputs.{name}"] = value["value"]
                continue
            folder = self._folder / "inputs" / name
            found = download(self._cloud, self._workspace, value["uri"], folder)
            places[f"inputs.{name}"] = str(found)
        for name in properties["outputs"]:
            folder = self._folder / "outputs" / name
            folder.mkdir(parents=True)
            places[f"outputs.{name}"] = str(folder)
        return re.sub(
            r"\$\{\{\s*([\w.]+)\s*\}\}",
            lambda match: places.get(match[1], match[0]),
            properties["command"],
        )

    def _variables(self, properties: dict[str, Any], lent: Mapping[str, str]) -> dict[str, str]:
        binaries = str(Path(sys.executable).parent)
        return {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHONPATH": str(Path(mlops_assets.__file__).parents[1]),
            "HOME": str(self._folder),
            **self._cloud.cluster.network(),
            "AZUREML_RUN_ID": self._resource.name,
            **lent,
            **properties["environmentVariables"],
        }

    def _upload_log(self) -> None:
        path = self._folder / "log"
        if path.exists() and (text := path.read_bytes()):
            client = self._cloud.blob.client().get_blob_client(LOGS, self.log)
            client.upload_blob(text, overwrite=True)

    def _upload_outputs(self) -> None:
        for name, value in self._resource.properties["outputs"].items():
            folder = self._folder / "outputs" / name
            uri = value["uri"].replace("workspaceartifactstore/E", "workspaceartifactstore/paths/E")
            container, path = place(self._cloud, self._workspace, uri)
            client = self._cloud.blob.client().get_container_client(container)
            for file in folder.rglob("*"):
                if file.is_file():
                    with file.open("rb") as source:
                        client.upload_blob(
                            f"{path}/{file.relative_to(folder)}", source, overwrite=True
                        )


def ranks(properties: dict[str, Any]) -> Iterator[dict[str, str]]:
    """The variables of each process of a job, as its kind of distribution has them."""
    distribution, nodes = properties["distribution"] or {}, properties["resources"]["instanceCount"]
    each = distribution.get("processCountPerInstance") or 1
    for rank in range(nodes * each):
        node, local, total = str(rank // each), str(rank % each), str(nodes * each)
        if distribution.get("distributionType") == "PyTorch":
            yield {
                "RANK": str(rank), "LOCAL_RANK": local, "WORLD_SIZE": total, "NODE_RANK": node,
                "MASTER_ADDR": "127.0.0.1",
            }  # fmt: skip
        elif distribution.get("distributionType") == "Mpi":
            yield {
                "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": local,
                "OMPI_COMM_WORLD_SIZE": total,
            }  # fmt: skip
        else:
            yield {"NODE_RANK": node} if nodes > 1 else {}
