"""One version served without the platform, by real processes over real HTTP."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_assets.files import files_below, write_atomic
from mlops_assets.scoring.health import problem
from mlops_assets.scoring.supervisor import bind
from resources.endpoints.base import VersionRef
from tests.bundles import NUMBERS, exported, regression, write_manifest
from tests.local_servers import eventually, processes_of
from tests.scoring.test_archive import tarred, zipped
from tests.standalone_servers import COMMAND, KEYS, Standalone, environment, refused, standalone

ROW = {"data": [{"a": 1, "b": 2}]}


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> VersionRef:
    """Version 3, served from ONNX."""
    return exported(tmp_path_factory.mktemp("bundles"), 3)


def answers(server: Standalone, version: str = "3") -> None:
    status, body, headers = server.ask(body=ROW)
    assert (status, body) == (200, {"predictions": [3003.0]})
    assert headers["x-mlops-version"] == version


def test_from_a_folder(version: VersionRef, tmp_path: Path) -> None:
    arguments = ("--bundle", version.bundle, "--digest", version.digest, "--version", "3")
    with standalone(tmp_path / "state", *arguments, "--workers", "2", **KEYS) as server:
        answers(server)
        for key, status in {"second": 200, "third": 401, None: 401}.items():
            assert server.ask(body=ROW, key=key)[0] == status
            assert server.ask("/metrics", key=key)[0] == status
        workers = processes_of(tmp_path, "scoring.worker")
        assert len(workers) == 2
        for worker in workers:
            assert not {"first", "second"} & {*worker.environ().values()}
        listening = {c.laddr.ip for w in workers for c in w.net_connections("tcp")}
        assert listening == {"127.0.0.1"}
        code, line = refused("--state", tmp_path / "state", "--bundle", version.bundle, **KEYS)
        assert (code, "another server has it" in line) == (3, True)
        assert stat.S_IMODE((tmp_path / "state" / "keys").stat().st_mode) == 0o600
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not processes_of(tmp_path)


def test_as_azure_mounts_it(version: VersionRef, tmp_path: Path) -> None:
    """AZUREML_MODEL_DIR ends in the model's name and version; the bundle lies below."""
    mounted = tmp_path / "azureml-models" / "tiny" / "7"
    shutil.copytree(version.bundle, mounted / "outputs" / "bundle")
    (mounted / ".hidden").mkdir()
    shutil.copy(version.bundle / "manifest.json", mounted / ".hidden")
    before = {p: p.read_bytes() for p in files_below(mounted)}
    variables = {"AZUREML_MODEL_DIR": str(mounted), "MLOPS_NO_KEYS": "true"}
    with standalone(tmp_path / "state", "--host", "0.0.0.0", **variables) as server:
        status, _, headers = server.ask(body=ROW, key=None)
        assert (status, headers["x-mlops-version"]) == (200, "7")
        asked = {"MLOPS_HOST": "0.0.0.0", "MLOPS_PORT": str(server.port)}
        assert problem(asked) is None
    assert {p: p.read_bytes() for p in files_below(mounted)} == before
    assert "does not answer" in str(problem(asked))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_from_a_url(version: VersionRef, tmp_path: Path, make: object) -> None:
    assert callable(make)
    archive = tmp_path / "archive"
    archive.write_bytes(
        make({f"tiny-3/{p.name}": p.read_bytes() for p in files_below(version.bundle)})
    )
    variables = {
        **KEYS,
        "MLOPS_BUNDLE_URL": f"{archive.as_uri()}?sig=secret",
        "MLOPS_BUNDLE_DIGEST": version.digest,
    }
    with standalone(tmp_path / "state", **variables) as server:
        answers(server)
        for worker in processes_of(tmp_path, "scoring.worker"):
            assert "secret" not in str(worker.environ())
    # Started again on what it left.
    with standalone(tmp_path / "state", **variables) as server:
        answers(server)
    wrong = {**variables, "MLOPS_BUNDLE_DIGEST": "0" * 64}
    code, line = refused(**wrong)
    assert (code, "manifest.json: SHA-256 is" in line) == (6, True)


def test_keys_in_a_file_are_followed(version: VersionRef, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    write_atomic(keys, "first\nsecond\n", 0o600)
    with standalone(tmp_path / "state", "--bundle", version.bundle, "--keys", keys) as server:
        assert server.ask(body=ROW)[0] == 200
        write_atomic(keys, "third\nsecond\n", 0o600)
        assert server.ask(body=ROW, key="third")[0] == 200
        assert server.ask(body=ROW, key="first")[0] == 401
        assert server.ask(body=ROW, key="second")[0] == 200


def test_a_temporary_folder_is_removed(version: VersionRef, tmp_path: Path) -> None:
    with bind(None, None) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*COMMAND, "--bundle", version.bundle, "--port", str(port)],
        env=environment({**KEYS, "TMPDIR": str(tmp_path)}),
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: problem({"MLOPS_PORT": str(port)}) is None)
        assert [*tmp_path.iterdir()]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not [*tmp_path.iterdir()]


def test_told_to_end_before_it_serves(version: VersionRef, tmp_path: Path) -> None:
    """The first process of a container has no default that would end it."""
    pipe = tmp_path / "archive"
    os.mkfifo(pipe)  # a download that hangs
    process = subprocess.Popen(
        [*COMMAND, "--url", pipe.as_uri(), "--digest", version.digest],
        env=environment({**KEYS, "TMPDIR": str(tmp_path)}),
        stderr=subprocess.PIPE,
    )
    eventually(lambda: [*tmp_path.glob("mlops-*/fetched")] != [])
    process.terminate()
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["archive"]


def test_no_version(version: VersionRef, tmp_path: Path) -> None:
    code, line = refused(**KEYS)
    assert (code, "give --bundle or --url, or mount it and set AZUREML_MODEL_DIR" in line) == (
        5,
        True,
    )
    deep = tmp_path / "1" / "2" / "3"
    shutil.copytree(version.bundle, deep)
    code, line = refused("--bundle", tmp_path, **KEYS)
    assert code == 5
    assert f"{tmp_path}: no manifest.json in it, nor in a folder at most 2 levels below" in line
    shutil.copytree(version.bundle, tmp_path / "1" / "4")
    shutil.copytree(version.bundle, tmp_path / "1" / "5")
    code, line = refused("--bundle", tmp_path, **KEYS)
    assert (code, "1/4" in line, "1/5" in line) == (5, True, True)
    code, line = refused("--bundle", tmp_path / "nowhere", **KEYS)
    assert (code, "nowhere: No such file or directory" in line) == (5, True)


def test_no_keys(version: VersionRef, tmp_path: Path) -> None:
    bundle = ("--bundle", version.bundle)
    code, line = refused(*bundle)
    assert (code, "give --keys, or set MLOPS_PRIMARY_KEY and MLOPS_SECONDARY_KEY" in line) == (
        7,
        True,
    )
    code, line = refused(*bundle, "--no-keys", "--host", "0.0.0.0")
    assert (code, "--no-keys on 0.0.0.0 would let anybody in" in line) == (7, True)
    code, line = refused(*bundle, "--keys", tmp_path / "keys")
    assert (code, "keys: No such file or directory" in line) == (7, True)
    (tmp_path / "keys").write_text("first")
    (tmp_path / "keys").chmod(0o644)
    code, line = refused(*bundle, "--keys", tmp_path / "keys")
    assert (code, "others may read it (mode 644)" in line) == (7, True)
    code, line = refused(*bundle, "--key-variables", "SECRET", SECRET="a b")
    assert (code, "SECRET: a key has no space in it" in line) == (7, True)


def test_a_port_that_is_taken(version: VersionRef) -> None:
    with bind(None, None) as taken:
        port = taken.getsockname()[1]
        code, line = refused("--bundle", version.bundle, "--port", str(port), **KEYS)
    assert (code, f"port {port} of 127.0.0.1: Address already in use" in line) == (4, True)
    code, line = refused("--bundle", version.bundle, "--host", "203.0.113.1", **KEYS)
    assert (code, "port 5001 of 203.0.113.1: Cannot assign requested address" in line) == (4, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "70000"), "argument --port: not a number from 0 to 65535: '70000'"),
        (("--workers", "0"), "argument --workers: not a number from 1 to 64: '0'"),
        (("--digest", "abc"), "argument --digest: not a SHA-256: 64 hexadecimal digits"),
        (("--url", "https://x"), "--url asks for --digest: what comes from elsewhere is checked"),
        (("--url", "x", "--bundle", "y"), "--bundle and --url exclude each other"),
        (("--keys", "x", "--no-keys"), "--keys and --no-keys exclude each other"),
        (("--surprise",), "unrecognized arguments: --surprise"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], message: str) -> None:
    code, line = refused(*arguments)
    assert (code, message in line) == (2, True), line


def test_wrong_variables_and_help(tmp_path: Path) -> None:
    code, line = refused(MLOPS_NO_KEYS="maybe")
    assert (code, "argument --no-keys: neither true nor false: 'maybe'" in line) == (2, True)
    (tmp_path / "file").touch()
    code, line = refused("--state", tmp_path / "file" / "state", MLOPS_PORT="")
    assert (code, "state: cannot be written: Not a directory" in line) == (3, True)
    said = subprocess.run([*COMMAND, "--help"], capture_output=True, check=True).stdout.decode()
    assert "[MLOPS_BUNDLE_DIGEST]" in said
    assert "7 no usable keys" in said


class Unloadable:
    """Raises where it is unpickled."""

    def __reduce__(self) -> Any:
        return (int, ("no number",))


def test_a_model_that_cannot_be_loaded(tmp_path: Path) -> None:
    version = exported(tmp_path / "onnx", 1)
    (version.bundle / "model.onnx").write_bytes(b"no model")
    write_manifest(version.bundle, NUMBERS, None)
    code, line = refused("--bundle", version.bundle, "--port", "0", **KEYS)
    assert (code, "model.onnx: onnxruntime cannot load it" in line) == (6, True)
    version = regression(tmp_path / "pickle", 1)
    (version.bundle / "model.pkl").write_bytes(pickle.dumps(Unloadable()))
    write_manifest(version.bundle, NUMBERS, None)
    code, line = refused("--bundle", version.bundle, "--port", "0", **KEYS)
    assert (code, "the version cannot be loaded: ValueError: invalid literal" in line) == (9, True)


def test_a_worker_that_is_killed_comes_back(version: VersionRef, tmp_path: Path) -> None:
    with standalone(tmp_path / "state", "--bundle", version.bundle, **KEYS) as server:
        (worker,) = processes_of(tmp_path, "scoring.worker")
        worker.kill()
        psutil.wait_procs([worker], 5)
        assert server.ask(body=ROW)[0] == 200


def test_it_serves_from_the_pickle_too(tmp_path: Path) -> None:
    version = regression(tmp_path, 3)
    with standalone(tmp_path / "state", "--bundle", version.bundle, **KEYS) as server:
        answers(server, "0")
