from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import RELEASE, _platform
from tests.repository import MODEL_YAML, make_repository, rows
from tests.watched import MONITORING, PRODUCTION, Watched


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Version 1 of ``rent``, released; nothing serves yet."""
    repository = make_repository(tmp_path / "clone")
    repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML + MONITORING)
    repository.write("environments/local/production.json", PRODUCTION.replace("CAPTURE", ""))
    repository.commit()
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        platform = _platform(tmp_path, instance)
        platform.data(rows(200))
        platform.see()
        assert platform.materialize(*RELEASE), platform.failures
        yield Watched(platform)
    platform.serving.stop()
