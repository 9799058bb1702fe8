from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.git import GitSource
from tests.git_servers import bare_of, model
from tests.repository import make_repository
from tests.sensors.watch import Watch


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """The model ``rent`` of a bare repository, not yet looked at."""
    repository = make_repository(tmp_path / "clone")
    bare = bare_of(repository)
    git = GitSource(checkout=str(repository.path), mirrors=str(tmp_path / "mirrors"))
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield Watch(repository, bare, git, instance, [model(f"file://{bare.path}")])
