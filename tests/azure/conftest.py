"""Azure for tests: one server per process, as new for every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.azure.blob import NODE
from tests.azure.server import AzureServer
from tests.azure.validate import specifications


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    """The server itself; most tests want ``azure``."""
    if not (NODE / "node_modules" / "azurite").is_dir():
        pytest.skip(f"Azurite is not installed: run npm ci in {NODE}")
    with closing(AzureServer()) as server:
        server.trust_in_this_process()
        yield server


@pytest.fixture
def azure(azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureServer]:
    """Azure, as new, with the environment of this process set so that clients find it.

    At its end, whatever was exchanged is held against Microsoft's specifications, where
    ``AZURE_SPECS_DIR`` says that they are.
    """
    azure_server.reset()
    for name, value in azure_server.environment().items():
        monkeypatch.setenv(name, value)
    yield azure_server
    assert azure_server.record.broken == []
    found = azure_server.findings()
    if found:
        print(found.summary())
        assert [str(finding) for finding in found.requests + found.responses] == []


@pytest.fixture(scope="session")
def _specified() -> None:
    if specifications() is None:
        pytest.skip("AZURE_SPECS_DIR does not name a copy of azure-rest-api-specs")
