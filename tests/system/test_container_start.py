"""The image, made by hand: its packages alone, its user, its command, on a tree it cannot write."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.scoring.supervisor import bind
from resources.endpoints.base import VersionRef
from tests.bundles import exported, regression
from tests.dockerfile import follow, libraries, read

FINAL = read()[-1]
ROOT = os.geteuid() == 0
USER = int(FINAL.one("USER").split(":")[0]) if ROOT else None


@pytest.fixture(scope="module", params=["false", "true"], ids=["onnx", "pickle"])
def image(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """A folder with what the image has, and whether it serves pickles."""
    root = Path(tempfile.mkdtemp(prefix="mlops-image-"))
    root.chmod(0o755)
    try:
        follow(read()[1], root, BASE=f"x@sha256:{'0' * 64}", PICKLE=request.param)
        subprocess.run(["chmod", "-R", "a-w,a+rX", root], check=True)
        yield root, request.param
    finally:
        subprocess.run(["chmod", "-R", "u+w", root], check=True)
        shutil.rmtree(root)


def tree(root: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


def test_it_starts_answers_and_ends(image: tuple[Path, str]) -> None:
    root, pickled = image
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        version = (regression if pickled == "true" else exported)(Path(folder), 3)
        model, scratch = Path(folder) / "model", Path(folder) / "tmp"
        shutil.copytree(version.bundle, model / "tiny-3")
        scratch.mkdir(mode=0o777)
        scratch.chmod(0o777)
        before = tree(root), tree(model)
        run(root, model, scratch, version)
        assert (tree(root), tree(model)) == before
        assert not [*scratch.iterdir()]


def run(root: Path, model: Path, scratch: Path, version: VersionRef) -> None:
    with bind(None, None) as free:
        port = free.getsockname()[1]
    environment = {
        **{name: value.replace("/opt/mlops", f"{root}/opt/mlops").replace("$PATH", "/bin")
           for name, value in FINAL.variables().items()},
        "MLOPS_HOST": "127.0.0.1",  # no network of its own here
        "MLOPS_PORT": str(port),
        "MLOPS_BUNDLE": str(model),
        "MLOPS_BUNDLE_DIGEST": version.digest,
        "MLOPS_PRIMARY_KEY": "first",
        "TMPDIR": str(scratch),
        **libraries(root),
    }  # fmt: skip

    def command(instruction: str) -> list[str]:
        python, *rest = FINAL.command(instruction)
        return [str(root / "opt/mlops/bin" / python), *rest]

    who = {"user": USER, "group": USER, "extra_groups": []} if ROOT else {}
    health = {"env": environment, "cwd": scratch, "capture_output": True, "check": False, **who}
    # Before it starts: a server may be ready sooner than a command that asks for it.
    assert subprocess.run(command("HEALTHCHECK"), **health).returncode != 0
    started = time.perf_counter()
    server = subprocess.Popen(command("ENTRYPOINT"), env=environment, cwd=scratch, **who)
    try:
        while subprocess.run(command("HEALTHCHECK"), **health).returncode != 0:
            assert server.poll() is None
            assert time.perf_counter() - started < 60
            time.sleep(0.05)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/score",
            json.dumps({"data": [{"a": 1, "b": 2}]}).encode(),
            {"authorization": "Bearer first"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            assert json.load(answer) == {"predictions": [3003.0]}
            assert answer.headers["x-mlops-version"] == "3"
        assert Path(f"/proc/{server.pid}").stat().st_uid == (USER or os.geteuid())
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.wait()
    assert subprocess.run(command("HEALTHCHECK"), **health).returncode != 0
