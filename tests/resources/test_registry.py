"""A folder as the registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resources.registry import LocalRegistry, Registry
from tests.resources.any_registry import *  # noqa: F403


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(root=str(tmp_path / "registry"))


@pytest.fixture
def another(registry: LocalRegistry) -> Callable[[], Registry]:
    return lambda: LocalRegistry(root=registry.root)
