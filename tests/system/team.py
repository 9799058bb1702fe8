"""A team's repository, and a checkout of it that the platform runs from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from resources.environment import checkout
from tests.repository import MODEL_YAML, make_repository, rows
from tests.system.daemon import Daemon

#: What a checkout of the platform holds, beside models, environments and samples.
PRODUCT = ("mlops_assets", "resources", "workspace.yaml", "dagster.yaml")

#: Knows the area alone; good enough for the gates.
FIRST_TRAIN_PY = """\
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline


def build(params):
    columns = make_column_transformer(("passthrough", ["area"]), remainder="drop")
    return make_pipeline(columns, Ridge(alpha=params["alpha"]))
"""


def make_daemon(folder: Path, files: Mapping[str, str] | None = None, **variables: str) -> Daemon:
    """Lay out clone, origin and platform, with data of 200 flats; nothing is started.

    Args:
        folder: takes everything.
        files: further files of the repository, path -> text.
        variables: environment variables of all processes.
    """
    clone = make_repository(folder / "clone")
    for name in PRODUCT:
        source, target = checkout() / name, clone.path / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "models")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    clone.write(".gitignore", "__pycache__/\n")
    # As long as in the demo: a file must lie still for the default time.
    clone.write(
        "mlops_assets/models/rent/model.yaml", MODEL_YAML.replace("  settle_seconds: 0\n", "")
    )
    for path, text in (files or {}).items():
        clone.write(path, text)
    clone.train_py(FIRST_TRAIN_PY, "the first model")
    clone.git("clone", "--quiet", "--bare", ".", str(folder / "origin.git"))
    clone.git("remote", "add", "origin", str(folder / "origin.git"))
    clone.git("clone", "--quiet", str(folder / "origin.git"), str(folder / "platform"))
    daemon = Daemon(folder, clone, variables)
    daemon.data(rows(200), "rents.csv")
    return daemon
