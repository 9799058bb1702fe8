"""A package as a server of its own: the same answers, over HTTP, without the platform."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.standalone import check
from mlops_assets.scoring.supervisor import read_state
from resources import clean_environment
from tests.bundles import exported_classifier
from tests.packages import built, registered

ROWS = [{"size": 12.5, "colour": "red"}, {"size": 50.0, "colour": None}]
SECONDS = 60


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return built(registered(exported_classifier(folder)), folder / "built")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel with its extra, and no more."""
    python = clean_environment.install(wheel, tmp_path_factory.mktemp("clean") / "environment")
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    extra = [line for line in clean_environment._requirements(wheel) if line.marker]
    assert all(line.marker.evaluate({"extra": "serve"}) for line in extra if line.marker)
    for line in extra:
        line.marker = None
    for distribution in clean_environment._at_hand(extra):
        clean_environment._link(distribution, site)
    # Nothing that the extra names is missing: pip finds no reason to fetch.
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index"]
    subprocess.run([*command, "--quiet", "tiny-model[serve]"], check=True)
    return python


@contextmanager
def serving(python: Path, folder: Path) -> Iterator[str]:
    """The address of a server of the package; it ends when it is told to."""
    keys, state = folder / "keys", folder / "state"
    keys.touch(mode=0o600)
    keys.write_text("first-key\nsecond-key\n")
    command = [python, "-I", "-m", "tiny_model", "serve", "--port", "0", "--state", state]
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen([*command, "--keys", keys], stderr=file)
    try:
        yield _address(server, state, log)
    finally:
        server.terminate()
        assert server.wait(SECONDS) == 0, log.read_text()


def _address(server: subprocess.Popen[bytes], state: Path, log: Path) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        found = read_state(state)
        if found is not None:
            address = f"http://127.0.0.1:{found.port}"
            if httpx.get(address, timeout=SECONDS).status_code == 200:
                return address
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_the_same_answer_as_predict(python: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys, tiny_model as m; print(json.dumps(m.predict(json.loads(sys.argv[1]))))"
    )
    command = [python, "-I", "-c", code, json.dumps(ROWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with serving(python, tmp_path) as address:
        headers = {"Authorization": "Bearer first-key"}
        answer = httpx.post(f"{address}/score", json={"data": ROWS}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json() == json.loads(done.stdout)
        assert answer.headers["x-mlops-version"] == "1"
        assert httpx.post(f"{address}/score", json={"data": ROWS}).status_code == 401
        described = httpx.get(f"{address}/swagger.json", headers=headers).json()
        assert described["info"] == {"title": "tiny", "version": "1"}
        assert "mlops_predictions_total" in httpx.get(f"{address}/metrics", headers=headers).text


def test_a_file_that_was_changed_is_not_served(python: Path, tmp_path: Path) -> None:
    (bundle,) = python.parent.parent.glob("lib/python*/site-packages/tiny_model/bundle")
    model = bundle / "model.onnx"
    content = model.read_bytes()
    model.write_bytes(content + b" ")
    command = [python, "-I", "-m", "tiny_model", "serve", "--port", "0", "--no-keys"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    finally:
        model.write_bytes(content)
    assert done.returncode != 0
    assert done.stderr.startswith(f"tiny_model serve: {model}: not what the manifest says")


@pytest.mark.parametrize("name", ["requirements.txt", "model.pkl", "model.onnx", "sample.json"])
def test_only_a_package_may_lack_what_is_not_loaded(tmp_path: Path, name: str) -> None:
    version = registered(exported_classifier(tmp_path))
    (version.bundle / name).unlink()
    for packaged in (False, True):
        allowed = name == "model.pkl" or (packaged and name == "requirements.txt")
        if allowed:
            assert check(version.bundle, version.digest, packaged) == version.digest
        else:
            with pytest.raises(IntegrityError, match=f"{name}: No such file"):
                check(version.bundle, version.digest, packaged)


def test_what_can_be_said_on_the_command_line(python: Path) -> None:
    command = [python, "-I", "-m", "tiny_model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usage: python -m tiny_model serve [options]")
    done = subprocess.run([*command, "serve", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m tiny_model serve [-h]")
    assert "--workers" in done.stdout
