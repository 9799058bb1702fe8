"""Azure for tests: one server per process, as new for every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.azure.blob import NODE
from tests.azure.server import AzureServer
from tests.azure.validate import Findings

CHECKED = "azure exchanges"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was held against the specifications: none would be no proof."""
    total = Findings()
    for report in (r for reports in terminalreporter.stats.values() for r in reports):
        if getattr(report, "when", None) != "teardown":
            continue
        for name, counts in report.user_properties:
            if name == CHECKED:
                for kept, seen in zip(
                    (total.operations, total.outside, total.known), counts, strict=True
                ):
                    kept.update(seen)
    if total.operations:
        terminalreporter.section("Azure")
        terminalreporter.line(total.counts())


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    """The server itself; most tests want ``azure``."""
    if not (NODE / "node_modules" / "azurite").is_dir():
        pytest.fail("Azurite is not installed: `make test-azure` does it")
    with closing(AzureServer()) as server:
        server.trust_in_this_process()
        yield server


@pytest.fixture
def azure(
    azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[AzureServer]:
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
        counts = (dict(found.operations), dict(found.outside), dict(found.known))
        request.node.user_properties.append((CHECKED, counts))
        assert [str(finding) for finding in found.requests + found.responses] == []
