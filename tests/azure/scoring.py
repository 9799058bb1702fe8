"""Containers as processes of the platform's own scoring server, and the fronts before them."""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import mlops_assets
from tests.azure.arm.base import Cloud, Resource
from tests.azure.collector import collect
from tests.azure.leash import Leashed
from tests.azure.messages import Request, Response

START_SECONDS = 60.0
#: Also a mark of the answer: which deployment gave it.
DEPLOYMENT = "azureml-model-deployment"
_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "expect"}


class ScoringContainer:
    """One process of ``python -m mlops_assets.scoring`` on a port of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Start it with the variables of its container."""
        folder.mkdir(parents=True)
        self._state = folder / "state"
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(mlops_assets.__file__).parents[1]),
            **environment,
            # A container has a network of its own; here it gets a port of its own.
            "MLOPS_HOST": "127.0.0.1",
            "MLOPS_PORT": "0",
            "MLOPS_STATE": str(self._state),
        }
        command = [sys.executable, "-m", "mlops_assets.scoring"]
        self._process = Leashed(command, variables, folder / "log", folder)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.ended is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.ended

    def logs(self) -> str:
        """What it has printed so far."""
        return self._process.log.read_text(errors="replace")

    def end(self) -> None:
        """End it."""
        self._process.end()

    def wait(self) -> None:
        """Until it answers that it is healthy; raises RuntimeError with its output."""
        deadline = time.monotonic() + START_SECONDS
        probe = Request("GET", "", "/v2/health/ready", {})
        while time.monotonic() < deadline and self.running:
            if self.ask(probe).status == 200:
                return
            time.sleep(0.05)
        self.end()
        raise RuntimeError(self.logs())

    def ask(self, request: Request) -> Response:
        """Its answer; 502 if nobody listens."""
        port = self._port()
        if port is None:
            return Response.of(502, {"error": "nobody listens"})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            headers = {n: v for n, v in request.headers.items() if n.lower() not in _HOP}
            connection.request(request.method, request.target, request.body, headers)
            found = connection.getresponse()
            body = found.read()
            kept = {n: v for n, v in found.getheaders() if n.lower() not in _HOP}
            return Response(found.status, kept, body)
        except (OSError, http.client.HTTPException) as problem:
            return Response.of(502, {"error": str(problem)})
        finally:
            connection.close()

    def _port(self) -> int | None:
        try:
            return json.loads((self._state / "state.json").read_bytes())["port"]
        except (FileNotFoundError, ValueError):
            return None


class LocalCluster:
    """Runs containers as processes of this machine."""

    def __init__(
        self,
        folder: Path,
        network: Callable[[], Mapping[str, str]],
        inside: Callable[[str], Mapping[str, str]],
    ) -> None:
        """Keep their folders below ``folder``.

        Args:
            folder: for all of them.
            network: the variables by which anybody finds Azure.
            inside: the same for a container, by its name.
        """
        self._folder, self.network, self._inside, self._count = folder, network, inside, 0
        self._lock = threading.Lock()

    def launch(self, name: str, environment: Mapping[str, str]) -> ScoringContainer:
        """Start one."""
        with self._lock:
            self._count += 1
            folder = self._folder / f"{name}-{self._count}"
        return ScoringContainer(folder, {**self._inside(name), **environment})

    def start(
        self, name: str, environment: Mapping[str, str], model: Path | None
    ) -> ScoringContainer:
        """Start one, the model mounted, and wait; raises RuntimeError if it ends before."""
        mounted = {"AZUREML_MODEL_DIR": str(model)} if model else {}
        found = self.launch(name, {**environment, **mounted})
        found.wait()
        return found


class OnlineEndpoints:
    """``NAME.REGION.inference.ml.azure.com``: keys, shares of the traffic, mirrored traffic."""

    def __init__(self, cloud: Cloud) -> None:
        """Answer for the endpoints of a cloud."""
        self._cloud = cloud

    def answer(self, request: Request) -> Response:
        """What the deployment answers whose turn it is."""
        name, _, rest = request.host.partition(".")
        with self._cloud.lock:
            found = [r for r in self._cloud.every("/onlineEndpoints") if r.name.lower() == name]
            if not found or not rest.startswith(f"{self._cloud.location}."):
                return self.error(404, None, f"There is no endpoint {request.host}.")
            endpoint = found[0]
            if not self._accepts(endpoint, request.headers.get("authorization", "")):
                return self.error(401, None, "The key or the token is not accepted.")
            chosen = self._choose(endpoint, request.headers.get(DEPLOYMENT))
            container = chosen and chosen.hidden.get("container")
            mirrored = self._mirrored(endpoint)
        if chosen is None or container is None:
            return self.error(404, None, "There is no deployment for this request.")
        inside = _without_key(request)
        if mirrored:
            self._cloud.work.submit(mirrored.ask, inside)
        found = container.ask(inside)
        collect(self._cloud, chosen, inside, found)
        headers = {**found.headers, DEPLOYMENT: chosen.name}
        if found.status >= 400 and endpoint.body["kind"] == "Managed":
            # A managed endpoint tells errors of the model from its own.
            headers["ms-azureml-model-error-statuscode"] = str(found.status)
            headers["ms-azureml-model-error-reason"] = "model_error"
            return Response(424, headers, found.body)
        return Response(found.status, headers, found.body)

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error of the front."""
        return Response.of(status, {"error": {"code": code or str(status), "message": message}})

    def _accepts(self, endpoint: Resource, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return False
        mode = endpoint.properties["authMode"]
        if mode == "AADToken":
            return self._cloud.login.accepts(authorization, "https://ml.azure.com")
        if mode == "AMLToken":
            return endpoint.hidden["tokens"].get(key, 0) > time.time()
        return key in endpoint.hidden["keys"]

    def _choose(self, endpoint: Resource, wanted: str | None) -> Resource | None:
        """The deployment that was named, or one by the shares of the traffic."""
        if wanted is None:
            traffic = {n: share for n, share in endpoint.properties["traffic"].items() if share}
            if not traffic:
                return None
            wanted = random.choices(list(traffic), list(traffic.values()))[0]
        return self._cloud.find(f"{endpoint.id}/deployments/{wanted}")

    def _mirrored(self, endpoint: Resource) -> ScoringContainer | None:
        """The deployment that gets a copy, if it is this request's turn."""
        for name, share in endpoint.properties["mirrorTraffic"].items():
            found = self._cloud.find(f"{endpoint.id}/deployments/{name}")
            if found and random.uniform(0, 100) < share:
                return found.hidden.get("container")
        return None


class ContainerInstances:
    """``LABEL.REGION.azurecontainer.io``: the ports that a container group shows to the world."""

    def __init__(self, cloud: Cloud) -> None:
        """Answer for the container groups of a cloud."""
        self._cloud = cloud

    def answer(self, request: Request) -> Response:
        """What the group's scoring container answers; checks nothing, as ACI does."""
        name, _, port = request.host.partition(":")
        wanted = int(port or {"http": 80, "https": 443}[request.scheme])
        with self._cloud.lock:
            groups = [
                group
                for group in self._cloud.every("/containerGroups")
                if (group.properties.get("ipAddress") or {}).get("fqdn") == name
            ]
            shown = [p["port"] for g in groups for p in g.properties["ipAddress"]["ports"]]
            container = groups[0].hidden.get("container") if groups else None
        if wanted not in shown or container is None or not container.running:
            return self.error(502, None, f"Nobody listens at {request.host}.")
        return container.ask(request)

    def error(self, status: int, code: str | None, message: str) -> Response:
        """An error on the way."""
        return Response.of(status, {"error": message, "code": code})


def _without_key(request: Request) -> Request:
    """What reaches the container."""
    kept = {n: v for n, v in request.headers.items() if n not in {"authorization", DEPLOYMENT}}
    return Request(request.method, request.host, request.target, kept, request.body)
