"""A fresh process that loads a version as a server would, and predicts its sample."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from mlops_assets.evidence import Integrity

#: How long loading a version and predicting its sample may take.
TIMEOUT_SECONDS = 300


class Verification(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Starts the process; it knows nothing of the repository, and checks before it loads."""

    _waiting: subprocess.Popen[bytes] | None = PrivateAttr(default=None)

    def prepare(self) -> None:
        """Start a process that imports what it will need while something else goes on."""
        if self._waiting is None:
            self._waiting = _start()

    def verify(self, bundle: Path, digest: str) -> Integrity:
        """What a fresh process finds out about a bundle."""
        process, self._waiting = self._waiting or _start(), None
        question = json.dumps({"bundle": str(bundle), "digest": digest}) + "\n"
        try:
            out, err = process.communicate(question.encode(), timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return _broken(f"no answer within {TIMEOUT_SECONDS} s")
        try:
            return Integrity.model_validate_json(out)
        except ValueError:
            tail = err.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            return _broken(f"the process ended with exit code {process.returncode}: {tail[0]}")

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """End a process that was prepared and not needed."""
        if self._waiting is not None:
            self._waiting.kill()
            self._waiting.communicate()
            self._waiting = None


def _start() -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER_")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mlops_assets.scoring.verify", "--wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=kept,
    )


def _broken(error: str) -> Integrity:
    values: dict[str, Any] = {"mismatched": [], "loads": False, "error": error}
    return Integrity(**values, max_difference=None)
