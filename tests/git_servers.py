"""Repositories elsewhere, and programs on PATH that stand before git and ssh to watch them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlops_assets.spec import ModelSpec, parse_model
from resources.git import GitSource
from tests.repository import MODEL_YAML, Repository

#: An ssh that reaches every host by staying here.
SSH_SCRIPT = 'echo "$*" >> {calls}; for last; do :; done; exec sh -c "$last"'
GIT_SCRIPT = 'echo "$*" >> {calls}; exec {real} "$@"'


def model(url: Path | str = ".", name: str = "rent", branch: str = "main") -> ModelSpec:
    """A model whose code lies in the repository ``url``."""
    text = MODEL_YAML + f"source: {{repository: '{url}', branch: {branch}}}\n"
    return parse_model(text, name, "model.yaml")


def bare_of(repository: Repository, name: str = "bare.git") -> Repository:
    """A bare clone beside a repository, as a server would have it, partial fetches allowed."""
    bare = Repository(repository.path.parent / name)
    repository.git("clone", "--quiet", "--bare", str(repository.path), str(bare.path))
    bare.git("config", "uploadpack.allowFilter", "true")
    return bare


def head_of(git: GitSource, spec: ModelSpec) -> str:
    """The head of a model's branch."""
    heads = git.heads([spec])
    assert not heads.errors
    return heads.found[git.branch(spec)]


def wrapped(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A program on PATH before the real one; the file that may get a line per call."""
    calls, program = folder / f"{name}.calls", folder / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script.format(calls=calls, real=shutil.which(name))}\n")
    program.chmod(0o755)
    calls.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


def held(git: GitSource) -> dict[str, set[str]]:
    """Type -> names of the objects that lie in the only mirror of heads."""
    (mirror,) = Path(git.mirrors).glob("*.heads.git")
    found: dict[str, set[str]] = {"blob": set(), "commit": set(), "tree": set()}
    listing = Repository(mirror).git("cat-file", "--batch-all-objects", "--batch-check")
    for line in listing.splitlines():
        name, kind, _ = line.split()
        found[kind].add(name)
    return found
