"""The servers that are compared, each with one worker, and how each is asked for the same rows."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.scoring.capture.settings import CaptureSettings
from mlops_assets.scoring.supervisor import HOST, read_state
from resources.endpoints.local import LocalEndpoints, LocalSettings
from resources.endpoints.process import read_key
from resources.environment import checkout
from tests.bench.serving.releases import Released

PEERS = ("azureml", "mlflow", "fastapi")
#: Of each peer, with the scripts that its users would write.
REQUIREMENTS = Path(__file__).with_name("peers")
#: `make bench-serving` installs the peers here, each in an environment of its own.
ENVIRONMENTS = checkout() / ".tools" / "bench"
#: What else would be a library's choice, and on two cores threads only make each other wait.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
JSON = {"Content-Type": "application/json"}
ENVIRONMENT = "bench"


@dataclass(frozen=True)
class Server:
    """How to start one server, and how to ask it."""

    name: str
    command: Sequence[str]
    port: int
    path: str
    #: Number of rows -> the file with that request's body.
    bodies: dict[int, Path]
    variables: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))

    @property
    def url(self) -> str:
        """Where it scores."""
        return f"http://{HOST}:{self.port}{self.path}"

    def environment(self) -> dict[str, str]:
        """The variables it is started with: nothing of ours but what it needs."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("DAGSTER_", "PYTHON"))}
        return {**kept, **ONE_THREAD, **self.variables}


def line_up(versions: list[Released], folder: Path, rows: list[int]) -> list[Server]:
    """All servers of one model, ours first.

    Args:
        versions: of the model, each to be served by ours in another way; the first one is what
            the others serve.
        folder: for what they need.
        rows: numbers of rows that they are asked for.
    """
    released = versions[0]
    pickle = released.version.bundle / "model.pkl"
    data = _bodies(folder, "data", rows, lambda n: {"data": released.records_for_estimator[:n]})
    return [
        *(ours(version, folder, rows) for version in versions),
        _azureml(pickle, data),
        _mlflow(pickle, folder, released, rows),
        _fastapi(pickle, data),
        floor(data),
    ]


def ours(
    released: Released,
    folder: Path,
    rows: list[int],
    workers: int = 1,
    capture: CaptureSettings | None = None,
) -> Server:
    """This platform's server, with the version deployed; it is not running."""
    endpoints = LocalEndpoints(folder / "endpoints")
    settings = LocalSettings(workers=workers, capture=capture)
    try:
        with endpoints.open(released.name, ENVIRONMENT, settings) as target:
            staged = target.stage(released.version)
            target.promote(staged.name, 100)
    finally:
        endpoints.stop(released.name, ENVIRONMENT)
    home = folder / "endpoints" / ENVIRONMENT / released.name
    state = read_state(home)  # it takes the same port again
    assert state is not None
    return Server(
        f"mlops-assets, {released.served_from}",
        (sys.executable, "-P", "-m", "mlops_assets.scoring.supervisor", str(home)),
        state.port,
        "/score",
        _bodies(folder, "ours", rows, lambda n: {"data": released.records[:n]}),
        {"PYTHONPATH": str(checkout())},
        {**JSON, "Authorization": f"Bearer {read_key(home)}"},
    )


def _azureml(pickle: Path, bodies: dict[int, Path]) -> Server:
    port = _free_port()
    command = (_python("azureml"), str(REQUIREMENTS / "azureml_serve.py"))
    options = (
        "--entry_script",
        str(REQUIREMENTS / "azureml_score.py"),
        "--model_dir",
        str(pickle.parent),
    )
    options += ("--worker_count", "1", "--port", str(port))
    return Server("azureml-inference-server", command + options, port, "/score", bodies)


def _mlflow(pickle: Path, folder: Path, released: Released, rows: list[int]) -> Server:
    saved, port = folder / "mlflow", _free_port()
    save = (_python("mlflow"), str(REQUIREMENTS / "mlflow_save.py"), str(pickle), str(saved))
    subprocess.run((*save, str(REQUIREMENTS / "mlflow.txt")), check=True, capture_output=True)
    # It starts uvicorn by its name.
    variables = {"PATH": f"{ENVIRONMENTS / 'mlflow' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    options = ("--model-uri", str(saved), "--host", HOST, "--port", str(port), "--workers", "1")
    command = (_python("mlflow"), "-m", "mlflow", "models", "serve", *options)
    names = list(released.spec.features)

    def body(count: int) -> dict[str, Any]:
        records = released.records_for_estimator[:count]
        return {"dataframe_split": {"columns": names, "data": [list(r.values()) for r in records]}}

    return Server(
        "mlflow models serve",
        (*command, "--env-manager", "local"),
        port,
        "/invocations",
        _bodies(folder, "mlflow", rows, body),
        variables,
    )


def _fastapi(pickle: Path, bodies: dict[int, Path]) -> Server:
    port = _free_port()
    options = (
        "--app-dir",
        str(REQUIREMENTS),
        "--host",
        HOST,
        "--port",
        str(port),
        "--no-access-log",
    )
    command = (_python("fastapi"), "-m", "uvicorn", "fastapi_app:app", *options)
    return Server(FASTAPI, command, port, "/score", bodies, {"MODEL": str(pickle)})


def floor(bodies: dict[int, Path]) -> Server:
    """What HTTP alone costs."""
    port = _free_port()
    command = (sys.executable, "-m", "tests.bench.serving.floor", str(port))
    return Server(FLOOR, command, port, "/", bodies, {"PYTHONPATH": str(checkout())})


#: The server that scores nothing, and the one that does what ours does without the rest.
FLOOR, FASTAPI = "uvicorn, constant answer", "FastAPI, pickle"


def _python(peer: str) -> str:
    path = ENVIRONMENTS / peer / "bin" / "python"
    if not path.exists():
        sys.exit(f"{path} is missing: `make bench-serving` installs it")
    return str(path)


def _bodies(folder: Path, name: str, rows: list[int], make: Any) -> dict[int, Path]:
    paths = {count: folder / f"{name}-{count}.json" for count in rows}
    for count, path in paths.items():
        path.write_text(json.dumps(make(count)))
    return paths


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]
