"""Training as a job of Azure ML: the same process as on a laptop, on a machine of its own."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.files import digest_file, digest_json, files_below
from mlops_assets.training.remote import FILES
from mlops_assets.training.runner import COMPARE_SECONDS
from resources.azure.artifacts import BlobArtifacts
from resources.azure.blobs import side_by_side
from resources.azure.clients import AzureError, without_secrets
from resources.azure.leases import held
from resources.azure.on_azure import OnAzure
from resources.training import (
    RunContext,
    Training,
    TrainingError,
    TrainingKilledError,
    error_of,
    has_result,
)

if TYPE_CHECKING:
    from resources.azure.pipes import JobClient
    from resources.azure.training_job import JobSpec

#: What a job gets beside timeout_seconds of model.yaml, to bring its data there and back.
MARGIN_SECONDS = 600.0
#: Last lines of what a job has printed that reach the message.
LOG_LINES = 20
#: Between two looks at a job.
POLL_SECONDS = 5.0
#: What Azure says of a machine that it has taken away.
_PREEMPTED = re.compile(r"preempt|evict|node .*(lost|unusable)", re.IGNORECASE)
#: Fields of a request that are places on this machine.
_LOCAL = ("source", "repository", "snapshot")


class AzureMLTraining(OnAzure, Training):
    """A command job of the workspace, on the compute of ``profile.json``.

    All that a job needs beside its code lies below ``training/<job>/`` of the container, and goes
    when the job has ended. Jobs are named by the identity of what they make: whoever makes the
    same again finds what a killed run has left there, and ends it.
    """

    #: Where requirements.lock is.
    root: str
    poll_seconds: float = POLL_SECONDS
    margin_seconds: float = MARGIN_SECONDS

    def run(self, context: RunContext, request: dict[str, Any], output: Path) -> None:
        """See Training.run.

        Raises:
            AzureError: Azure does not do what it is asked.
        """
        stem = f"{request['model']}-{digest_json([request['mode'], request['identity']])[:16]}"
        what = f"training of {request['model']} ({request['mode']})"
        with held(self._clients, f"training-{stem}", what, context.log.info) as lease:
            job = _Job(self, context, request, f"{stem}-{secrets.token_hex(4)}", lease.check)
            job.end_abandoned(stem)
            try:
                job.run(output)
            finally:
                job.clean_up()


class _Job:
    """One job, from its blobs to its files."""

    def __init__(
        self,
        training: AzureMLTraining,
        context: RunContext,
        request: dict[str, Any],
        name: str,
        check: Any,
    ) -> None:
        from resources.azure.pipes import JobClient, Limits

        self._training, self._context, self._request = training, context, request
        self._clients, self._blobs = training._clients, training._blobs  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._name, self._folder = name, f"training/{name}"
        self._settings = self._clients.settings.training
        seconds = request["spec"]["timeout_seconds"] if "spec" in request else COMPARE_SECONDS
        self._limit = max(1, round(seconds + training.margin_seconds))
        self._client: JobClient = JobClient(
            self._clients,
            self._folder,
            Limits(self._settings.queue_seconds, self._limit),
            training.poll_seconds,
            check,
        )

    def end_abandoned(self, stem: str) -> None:
        """End the jobs of runs that were killed while they waited for the same."""
        found = {b.name.split("/")[1] for b in self._blobs.listed(f"training/{stem}-")}
        for name in sorted(found):
            self._context.log.info(f"Azure ML job {name} was left by a run that was killed")
            if self._client.cancel(name, self._context.log.info):
                self._remove(f"training/{name}/")

    def run(self, output: Path) -> None:
        """Run it; its files appear in ``output``."""
        from azure.ai.ml.exceptions import MlException
        from azure.core.exceptions import AzureError as ClientError

        from resources.azure.pipes import JobFailedError

        try:
            self._carry_out()
        except JobFailedError:
            found = self._collect(output)
            if found is None:
                raise self._failed() from None
            raise error_of(output, found["exit_code"]) from None
        except (ClientError, MlException) as error:
            raise AzureError(f"Azure ML job {self._name}: {without_secrets(str(error))}") from None
        found = self._collect(output)
        if found is None or not has_result(output, self._request):
            raise error_of(output, found["exit_code"] if found else 0)

    def clean_up(self) -> None:
        """Remove all blobs of the job."""
        with suppress(AzureError):  # the next one of this identity finds them
            self._remove(f"{self._folder}/")

    def _carry_out(self) -> None:
        from resources.azure.training_job import command_of, environment, write_code

        client = self._clients.workspace
        inputs, digests = self._inputs()
        extras = {
            "request": self._without_places(),
            "container": self._clients.settings.storage.container,
            "folder": self._folder,
            "digests": digests,
        }
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(self._training.root)
            image = Path(scratch) / "image"
            image.mkdir()
            packages = environment(client, self._settings.image, root, image)
            code = Path(scratch) / "code"
            source = self._request.get("source")
            write_code(code, Path(source) if source else None)
            spec = self._spec(inputs)
            command = command_of(spec, self._settings, code, packages)
            self._client.run(
                context=self._context.op_execution_context, command=command, extras=extras
            )

    def _without_places(self) -> dict[str, Any]:
        """The request without folders of this machine; the job has its own."""
        found = {n: v for n, v in self._request.items() if n not in _LOCAL}
        for name in ("champion", "candidate"):
            if found.get(name):
                found[name] = {n: v for n, v in found[name].items() if n != "bundle"}
        return found

    def _spec(self, inputs: dict[str, tuple[str, str]]) -> JobSpec:
        from resources.azure.training_job import JobSpec

        return JobSpec(
            name=self._name,
            model=self._request["model"],
            mode=self._request["mode"],
            identity=self._request["identity"],
            run=self._context.run.run_id,
            limit=self._limit,
            storage=self._clients.settings.storage.url,
            inputs=inputs,
        )

    def _inputs(self) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
        """Addresses of what the job reads, put there first; digests of the files among them."""
        snapshot = Path(self._request["snapshot"])
        digest = digest_file(snapshot)
        address = self._blobs.place(self._snapshot(snapshot, digest))
        inputs = {"snapshot": ("uri_file", address)}
        for name in ("champion", "candidate"):
            if self._request.get(name):
                bundle, folder = Path(self._request[name]["bundle"]), f"{self._folder}/{name}"
                self._upload(bundle, folder)
                inputs[name] = ("uri_folder", self._blobs.place(folder))
        return inputs, {"snapshot": digest}

    def _snapshot(self, path: Path, digest: str) -> str:
        """The blob of a snapshot: that of the artifact store, where it is there."""
        store = BlobArtifacts.of(self._clients, root=str(path.parents[2]))
        index = store.index("snapshots", path.parent.name)
        if index and index.files.get(path.name) == digest:
            return f"{index.folder}/{path.name}"
        name = f"{self._folder}/{path.name}"
        self._blobs.upload(name, path)
        return name

    def _upload(self, folder: Path, name: str) -> None:
        def send(path: Path) -> None:
            self._blobs.upload(f"{name}/{path.relative_to(folder).as_posix()}", path)

        side_by_side(send, list(files_below(folder)))

    def _collect(self, output: Path) -> dict[str, Any] | None:
        """Bring what the training process has left; None if the job has left nothing."""
        content = self._blobs.read(f"{self._folder}/{FILES}")
        if content is None:
            return None
        found = json.loads(content)

        def bring(name: str) -> None:
            wanted, path = found["files"][name], output / name
            if not path.resolve().is_relative_to(output.resolve()):
                raise TrainingError(f"Azure ML job {self._name} wrote outside its folder: {name}")
            came = self._blobs.download(f"{self._folder}/output/{name}", path)
            if (came, path.stat().st_size) != (wanted["sha256"], wanted["size"]):
                raise TrainingKilledError(f"Azure ML job {self._name}: {name} came damaged")

        side_by_side(bring, list(found["files"]))
        return found

    def _failed(self) -> TrainingError:
        """Why a job failed of which no training process says anything."""
        said, lines = self._details()
        text = f"Azure ML job {self._name} failed: {said}"
        if lines:
            text += "\n" + "\n".join(lines)
        for line in lines:
            self._context.log.info(line)
        # That two versions cannot be compared would be kept for good.
        again = _PREEMPTED.search(said) or self._request["mode"] == "compare"
        return TrainingKilledError(text) if again else TrainingError(text)

    def _details(self) -> tuple[str, list[str]]:
        """Azure's own words about the job, and the last lines that it has printed."""
        import httpx
        from azure.core.exceptions import AzureError as ClientError

        try:
            runs = self._clients.workspace.jobs._runs_operations  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            details = runs.get_run_details(self._name)
            root = details.error.error if details.error else None
            said = f"{root.code}: {root.message}" if root else "Azure does not say why"
            logs = {n: url for n, url in (details.log_files or {}).items() if "std_log" in n}
            if not logs:
                return without_secrets(said), []
            found = httpx.get(logs[min(logs)], timeout=30).raise_for_status()
            lines = [without_secrets(line) for line in found.text.splitlines() if line.strip()]
            return without_secrets(said), lines[-LOG_LINES:]
        except (ClientError, httpx.HTTPError) as error:
            return f"why cannot be read at the moment ({without_secrets(str(error))})", []

    def _remove(self, prefix: str) -> None:
        side_by_side(self._blobs.remove, [blob.name for blob in self._blobs.listed(prefix)])
