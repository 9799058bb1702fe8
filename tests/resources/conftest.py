from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.endpoints.local import LocalEndpoints
from resources.git import GitSource
from tests.git_servers import bare_of
from tests.local_servers import local_endpoints
from tests.repository import Repository, make_repository


@pytest.fixture
def endpoints(tmp_path: Path) -> Iterator[LocalEndpoints]:
    with local_endpoints(tmp_path / "endpoints") as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return make_repository(tmp_path / "clone")


@pytest.fixture
def bare(repository: Repository) -> Repository:
    return bare_of(repository)


@pytest.fixture
def git(repository: Repository) -> GitSource:
    return GitSource(checkout=str(repository.path), mirrors=str(repository.path.parent / "mirrors"))
