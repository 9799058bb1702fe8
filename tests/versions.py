"""Registered versions without a model in them: for tests of what is recorded about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlops_assets.files import to_json, write_atomic
from resources.registry import LocalRegistry, Version
from tests.test_gates import MANIFEST


def registered(registry: LocalRegistry, identity: str = "i1", **changes: Any) -> Version:
    """The next version of ``rent``; its manifest as in the tests of gates, with ``changes``."""
    bundle = Path(registry.root).with_name(f"bundle-{identity}")
    write_atomic(bundle / "MODEL_CARD.md", "# rent\n")
    manifest = {**MANIFEST, "features": [], "labels": None, "identity": identity, **changes}
    write_atomic(bundle / "manifest.json", to_json(manifest))
    return registry.register("rent", bundle)


def deployed(
    registry: LocalRegistry, version: Version, environment: str, at: str, run: str = "run"
) -> None:
    """Record that a version serves an environment since a time, ISO 8601."""
    content = {
        "environment": environment,
        "version": version.version,
        "digest": version.digest,
        "previous": None,
        "run": run,
        "started": at,
        "ended": at,
    }
    registry.record("rent", "deployments", content)
