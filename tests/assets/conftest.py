from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import RELEASE, _platform, copied
from tests.repository import MODEL_YAML, make_repository, rows
from tests.watched import MONITORING, PRODUCTION, Watched


@contextmanager
def _watched(folder: Path) -> Iterator[Watched]:
    repository = make_repository(folder / "clone")
    repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML + MONITORING)
    repository.write("environments/local/production.json", PRODUCTION.replace("CAPTURE", ""))
    repository.commit()
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        platform = _platform(folder, instance)
        platform.data(rows(200))
        platform.see()
        assert platform.materialize(*RELEASE), platform.failures
        yield Watched(platform)
    platform.serving.stop()


@pytest.fixture(scope="session")
def watched_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State and clone after the release of version 1, made once and then copied."""
    folder = tmp_path_factory.mktemp("watched")
    with _watched(folder):
        return folder


@pytest.fixture
def watched(watched_once: Path, tmp_path: Path) -> Iterator[Watched]:
    """Version 1 of ``rent``, released, of which Dagster has no record; nothing serves yet."""
    with copied(watched_once, tmp_path) as platform:
        yield Watched(platform)


@pytest.fixture
def watched_from_the_start(tmp_path: Path) -> Iterator[Watched]:
    """The same with Dagster's records of it, which automation goes by."""
    with _watched(tmp_path) as made:
        yield made
