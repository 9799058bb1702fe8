"""What the image is made of; tests/system/test_container_start.py starts it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from resources.environment import checkout
from tests.dockerfile import ignored, read

GROUPS = ("serving", "pickle", "azure", "signing")
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)( ;[^\\]+)? \\$", re.MULTILINE)


def pins(path: Path) -> set[tuple[str, str]]:
    return {(found[1], found[2]) for found in PIN.finditer(path.read_text())}


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_installed_is_what_was_tested(group: str) -> None:
    found = pins(checkout() / "docker" / f"{group}.lock")
    assert found
    assert found <= pins(checkout() / "requirements.lock")


def test_an_onnx_version_needs_little() -> None:
    names = {name for name, _ in pins(checkout() / "docker" / "serving.lock")}
    assert {"onnxruntime", "msgspec", "uvicorn"} <= names
    assert not names & {"pandas", "scikit-learn", "dagster", "pydantic", "starlette", "httpx"}


def test_base_images_are_named_with_their_digest() -> None:
    before, *stages = read()
    assert before.steps == [("ARG", "BASE")]  # no default
    assert {stage.base.split()[0] for stage in stages} == {"${BASE}"}
    first = stages[0].all("RUN")[0]
    for base, code in (("python:3.11", 1), ("", 1), (f"python@sha256:{'0' * 64}", 0)):
        done = subprocess.run(
            ["sh", "-c", first], env={"BASE": base}, capture_output=True, check=False
        )
        assert done.returncode == code
        assert code == 0 or f"found '{base}'" in done.stderr.decode()


def test_what_runs_is_not_root_and_has_no_shell_before_it() -> None:
    final = read()[-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", final.one("USER"))
    for instruction in ("ENTRYPOINT", "HEALTHCHECK"):
        assert final.command(instruction)[:3] == ["python", "-P", "-m"]
    assert final.variables()["MLOPS_PORT"] == final.one("EXPOSE")
    names = [name for name, _ in final.steps]
    assert "RUN" not in names
    assert "ADD" not in names


def test_only_what_is_needed_is_sent_to_the_builder() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=checkout(), capture_output=True, check=True, text=True
    ).stdout.splitlines()
    sent = [name for name in tracked if not ignored(name)]
    assert {name.rsplit("/", 1)[0] for name in sent} == {
        "docker", "mlops_assets", "mlops_assets/scoring", "mlops_assets/scoring/capture"
    }  # fmt: skip
    assert {f"docker/{group}.lock" for group in GROUPS} <= set(sent)
    assert ignored(".mlops/endpoints/production/rent/keys")
    assert ignored("mlops_assets/models/rent/train.py")


def test_make_image_says_what_is_missing(tmp_path: Path) -> None:
    def make(*arguments: str) -> str:
        done = subprocess.run(
            ["make", "image", *arguments], cwd=checkout(), capture_output=True, check=False,
            text=True, env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"},
        )  # fmt: skip
        return done.stdout + done.stderr

    for name in ("docker", "podman"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    buildah = tmp_path / "buildah"
    buildah.write_text('#!/bin/sh\ntest "$1" = info || echo "buildah $*"\n')
    assert "BASE must name an image of Python with its digest" in make()
    assert "BASE must name" in make("BASE=python:3.11")
    base = f"python@sha256:{'0' * 64}"
    if not Path("/usr/bin/buildah").exists():
        assert "neither docker, podman nor buildah works here" in make(f"BASE={base}")
    buildah.chmod(0o755)
    said = make(f"BASE={base}", "PICKLE=false")
    wanted = f"--format docker --build-arg BASE={base} --build-arg PICKLE=false"
    assert f"buildah build {wanted} --tag mlops-serving ." in said
