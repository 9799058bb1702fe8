"""On the machine of an Azure ML job: the same training process as elsewhere, and what is around it.

``python -m mlops_assets.training.remote snapshot=PATH [champion=FOLDER] [candidate=FOLDER]``, in
the folder with the platform's packages and the exported source. The request comes as an extra of
Dagster Pipes; log lines go back through blobs; what the training process leaves, an error too, is
put below the folder that the request names, and the list of it, with sizes and digests, at last.

Each process of a job on several machines runs this. The first one (rank 0) is the one that
measures, logs and writes; the others take part in ``train(frame, target, params)`` and end. A
``train`` finds its rank and its peers where Azure ML puts them: RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT for pytorch, OMPI_COMM_WORLD_RANK for mpi, TF_CONFIG for tensorflow.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.files import digest_file, files_below, to_json, write_atomic
from mlops_assets.training import guard
from mlops_assets.training.errors import TrainingProblem, fail

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import BlobServiceClient, ContainerClient
    from dagster_pipes import PipesContextData

#: Environment variable: the address of the storage account that holds everything.
STORAGE = "MLOPS_STORAGE_URL"
#: Environment variable of Azure ML: which of its managed identities a job is to use.
IDENTITY = "DEFAULT_IDENTITY_CLIENT_ID"
#: The list of what was put below the output folder, beside it; the last thing that is written.
FILES = "files.json"
#: How often log lines are put into blobs; they are looked for twice as often.
UPLOAD_SECONDS = 3
#: How often a line of the training process is looked for.
POLL_SECONDS = 0.2
#: How the three kinds of jobs say which process of theirs this is.
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def main(arguments: Sequence[str]) -> int:
    """Do what the job's context asks; returns the exit code."""
    from dagster_pipes import (
        PipesAzureBlobStorageContextLoader,
        PipesAzureBlobStorageMessageWriter,
        PipesEnvVarParamsLoader,
        open_dagster_pipes,
    )

    service = _service()
    places = dict(argument.split("=", 1) for argument in arguments)
    loader = PipesAzureBlobStorageContextLoader(service)
    with (
        _explained(service.url),
        loader.load_context(PipesEnvVarParamsLoader().load_context_params()) as context,
    ):
        asked: dict[str, Any] = dict(context["extras"] or {})
    request = _localised(asked["request"], places)
    with tempfile.TemporaryDirectory() as scratch:
        if rank_of(os.environ):
            return _process(Path(scratch), {**request, "follows": True}, {}, None)
        writer = PipesAzureBlobStorageMessageWriter(service, interval=UPLOAD_SECONDS)
        with open_dagster_pipes(context_loader=loader, message_writer=writer) as pipes:
            output = Path(scratch) / "output"
            try:
                _check(places, asked["digests"])
                variables = _pipes(context, Path(scratch))
                code = _process(Path(scratch), request, variables, pipes.log)
            except TrainingProblem as problem:
                fail(output, problem.kind, str(problem), problem.frames)
                code = 1
            container = service.get_container_client(asked["container"])
            _upload(container, asked["folder"], output, code)
    return 1 if code else 0


def rank_of(variables: Mapping[str, str]) -> int:
    """Which process of the job this is, from 0, by the variables that Azure ML has set."""
    for name in RANKS:
        if name in variables:
            return int(variables[name])
    if "TF_CONFIG" in variables:
        found = json.loads(variables["TF_CONFIG"])
        task, cluster = found.get("task", {}), found.get("cluster", {})
        first = next((kind for kind in ("chief", "master") if kind in cluster), "worker")
        index = int(task.get("index", 0))
        return index if task.get("type", first) == first else index + 1
    return int(variables.get("NODE_RANK", "0"))


def _service() -> BlobServiceClient:
    from azure.storage.blob import BlobServiceClient, ExponentialRetry

    # By itself it would wait for 15 seconds before it asks again.
    retries = ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=5)
    return BlobServiceClient(os.environ[STORAGE], _credential(), retry_policy=retries)


@contextlib.contextmanager
def _explained(url: str) -> Generator[None]:
    """End with one sentence where the job's identity may not do what it has to."""
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    try:
        yield
    except (ClientAuthenticationError, HttpResponseError) as error:
        status = getattr(error, "status_code", None)
        if status != 403 and not isinstance(error, ClientAuthenticationError):
            raise
        said = (error.message.splitlines() or [""])[0]
        sys.exit(
            f"the job's identity may not use {url} ({said}); give it the role Storage Blob Data "
            "Contributor there, see docs/azure.md"
        )


def _credential() -> TokenCredential:
    """The job's own: Azure ML lends it a managed identity, or that of whoever started it."""
    if "OBO_ENDPOINT" in os.environ:
        from azure.ai.ml.identity import AzureMLOnBehalfOfCredential

        return AzureMLOnBehalfOfCredential()
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(managed_identity_client_id=os.environ.get(IDENTITY))


def _localised(request: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The request with the places of this machine."""
    here = Path.cwd()
    found = {**request, "repository": str(here), "snapshot": places["snapshot"]}
    if request["mode"] == "train":
        found["source"] = str(here / "source")
    for name in ("champion", "candidate"):
        if request.get(name):
            found[name] = {**request[name], "bundle": places[name]}
    return found


def _check(places: Mapping[str, str], digests: Mapping[str, str]) -> None:
    for name, digest in digests.items():
        if digest_file(Path(places[name])) != digest:
            raise TrainingProblem("data", f"the {name} came to the job with other bytes")


def _pipes(context: PipesContextData, scratch: Path) -> dict[str, str]:
    """The same session for the training process, through a file: no line of a crash is lost."""
    from dagster_pipes import encode_param

    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": {**context, "extras": {}}}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(scratch / "messages")}),
    }


def _process(
    scratch: Path,
    request: dict[str, Any],
    variables: Mapping[str, str],
    log: logging.Logger | None,
) -> int:
    """Run the training process to its end; its exit code, negative for a signal."""
    output, path, messages = scratch / "output", scratch / "request.json", scratch / "messages"
    output.mkdir()
    messages.touch()
    write_atomic(path, json.dumps({**request, "output": str(output)}))
    own = {n: v for n, v in os.environ.items() if not n.startswith("DAGSTER_PIPES_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mlops_assets.training.runner", str(path)],
        env={
            **own,
            **guard.variables(os.getpid(), scratch / "matplotlib"),
            **variables,
            "PYTHONPATH": str(Path.cwd()),
        },
        cwd=scratch,
    )
    with messages.open(encoding="utf-8") as file:
        rest = ""
        while True:
            code = process.poll()
            *lines, rest = (rest + file.read()).split("\n")
            for line in lines if log else ():
                _relay(line, log.log if log else print)
            if code is not None:
                return code
            time.sleep(POLL_SECONDS)


def _relay(line: str, log: Callable[[int, str], Any]) -> None:
    message = json.loads(line)
    if message["method"] == "log":
        found = message["params"]
        log(logging.getLevelNamesMapping().get(found["level"], logging.INFO), found["message"])


def _upload(container: ContainerClient, folder: str, output: Path, code: int) -> None:
    """Put the files, then the list that says that all of them are there."""
    files: dict[str, Any] = {}
    for path in files_below(output):
        name = path.relative_to(output).as_posix()
        with path.open("rb") as file:
            container.upload_blob(f"{folder}/output/{name}", file, overwrite=True)
        files[name] = {"size": path.stat().st_size, "sha256": digest_file(path)}
    found = {"exit_code": code, "files": files}
    container.upload_blob(f"{folder}/{FILES}", to_json(found), overwrite=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
