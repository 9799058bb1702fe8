from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.training.job import train
from tests.training.requests import Case, make_case


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are imported into this process, and forgotten afterwards."""
    import cloudpickle

    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(sys.modules[name])
        if name.startswith(("mlops_model_", "shared_", "mlops_assets.models")):
            del sys.modules[name]


@pytest.fixture
def trained(tmp_path: Path, own_modules: None) -> Callable[..., Case]:
    """Train in this process: ``trained({"train.py": text}, yaml=..., table=...)``."""
    count = 0
    lines: list[str] = []

    def run(files: dict[str, str] | str, **options: Any) -> Case:
        nonlocal count
        count += 1
        if isinstance(files, str):
            files = {"train.py": files}
        for name in [n for n in sys.modules if n.startswith("mlops_model_")]:
            del sys.modules[name]
        case = make_case(tmp_path / f"case{count}", files, **options)
        train(case.request, case.output, lines.append, time.perf_counter())
        return case

    return run
