"""Which deployment a request goes to, and which of them are copied, through the application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mlops_assets.files import write_atomic
from mlops_assets.scoring.deployments import Deployments
from mlops_assets.scoring.generation import Entry, GenerationFile
from mlops_assets.scoring.keys import KeyFile
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.server import Application
from tests.bundles import tried
from tests.local_servers import eventually

KEY = {"authorization": "Bearer first"}
ROW = {"a": 1.0, "b": 2}


class Shared:
    """An application that follows a generation of the versions 1 and 2; 2 fails above b = 7."""

    def __init__(self, folder: Path) -> None:
        write_atomic(folder / "keys", "first\n", 0o600)
        self._versions = [tried(folder, 1), tried(folder, 2, greatest=7)]
        self._file = GenerationFile(folder)
        self.metrics = Metrics()
        self._deployments = Deployments(GenerationFile(folder), metrics=self.metrics)
        app = Application(self._deployments, KeyFile(folder / "keys"), self.metrics)
        self.client = TestClient(app)

    def follow(
        self, first: int, second: int, *, sticky: str | None = None, mirror: int = 0
    ) -> None:
        entries = {
            f"v{v.version}": Entry(str(v.bundle), v.digest, v.version, traffic, copies)
            for v, traffic, copies in zip(self._versions, (first, second), (0, mirror), strict=True)
        }
        self._file.write(self._file.read().next(entries, sticky))
        asyncio.run(self._deployments.update())

    def ask(self, row: dict[str, Any] = ROW, **headers: str) -> tuple[int, str]:
        """The status, and the version that answered."""
        given = {**KEY, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = self.client.post("/score", json={"data": [row]}, headers=given)
        return answer.status_code, answer.headers["x-mlops-version"]

    def copies(self) -> dict[str, int]:
        return dict(self.metrics.mirror("v2").statuses)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    found = Shared(tmp_path)
    yield found
    found.follow(100, 0)  # ends what is copied


def test_users_stay_while_the_share_grows(shared: Shared) -> None:
    shared.follow(70, 30, sticky="x-user")
    before = {user: shared.ask(X_User=user)[1] for user in map(str, range(60))}
    assert set(before.values()) == {"1", "2"}
    assert before == {user: shared.ask(x_user=user)[1] for user in before}
    shared.follow(40, 60, sticky="x-user")
    after = {user: shared.ask(x_user=user)[1] for user in before}
    assert {after[user] for user, version in before.items() if version == "2"} == {"2"}
    # Who does not say who they are goes by chance, and who names a deployment to that one.
    assert {shared.ask()[1] for _ in range(60)} == {"1", "2"}
    assert {shared.ask(x_user=u, azureml_model_deployment="v1")[1] for u in before} == {"1"}
    shared.follow(0, 100, sticky="x-user")
    assert {shared.ask(x_user=user)[1] for user in before} == {"2"}


def test_answered_requests_are_copied_and_nobody_sees_what_becomes_of_them(shared: Shared) -> None:
    shared.follow(100, 0, mirror=100)
    assert shared.ask() == (200, "1")
    assert shared.ask({"a": 1.0, "b": 9}) == (200, "1")
    eventually(lambda: shared.copies() == {"200": 1, "500": 1})
    # Not what the live version could not answer, nor what asks for a deployment by its name.
    assert shared.ask({"a": "one", "b": 2}) == (400, "1")
    assert shared.ask(azureml_model_deployment="v1") == (200, "1")
    assert shared.ask(azureml_model_deployment="v2") == (200, "2")
    assert shared.ask() == (200, "1")
    eventually(lambda: shared.copies() == {"200": 2, "500": 1})
    text = shared.client.get("/metrics", headers=KEY).text
    assert 'mlops_mirrored_total{deployment="v2",outcome="failed"} 1.0' in text
    assert 'mlops_requests_total{deployment="v2",status="200"} 1.0' in text
    shared.follow(90, 10)
    shared.ask()
    assert shared.copies() == {"200": 2, "500": 1}
