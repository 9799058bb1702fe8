from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from resources.clean_environment import InstallError, install

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1"
dependencies = {dependencies}
"""


def wheel(folder: Path, name: str, *dependencies: str) -> Path:
    """A wheel of one empty module."""
    project = folder / name
    project.mkdir()
    (project / f"{name}.py").write_text("")
    text = PROJECT.format(name=name, dependencies=list(dependencies))
    (project / "pyproject.toml").write_text(text)
    build = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=project, check=True)
    return next(folder.glob(f"{name}-1-*.whl"))


def modules(python: Path) -> list[str]:
    """What there is to import beside the standard library."""
    listing = "import pkgutil, sys; print(*(m.name for m in pkgutil.iter_modules([sys.argv[1]])))"
    site = next(python.parent.parent.glob("lib/python*/site-packages"))
    command = [str(python), "-I", "-c", listing, str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture(autouse=True)
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds what lies in the test's folder, and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


def test_what_the_platform_has_is_taken_from_there(tmp_path: Path) -> None:
    python = install(wheel(tmp_path, "one", "uvicorn>=0.1", "PyYAML"), tmp_path / "clean")
    assert set(modules(python)) == {"one", "uvicorn", "click", "h11", "yaml", "_yaml"}
    ask = "import uvicorn; print(uvicorn.__version__, uvicorn.__file__)"
    done = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True)
    version, place = done.stdout.split()
    assert version == distribution("uvicorn").version
    assert place.startswith(str(tmp_path / "clean"))


def test_what_it_has_not_is_fetched(tmp_path: Path) -> None:
    wheel(tmp_path, "two")
    python = install(wheel(tmp_path, "one", "two==1", "click"), tmp_path / "clean")
    assert set(modules(python)) == {"one", "two", "click"}


def test_another_release_than_the_platforms_is_fetched(tmp_path: Path) -> None:
    before = distribution("click").version
    assert before != "1"
    wheel(tmp_path, "click")
    wheel(tmp_path, "two", "click==1")
    # The first wants any, so the platform's is taken; the second's wish then replaces it there.
    python = install(wheel(tmp_path, "one", "click", "two"), tmp_path / "clean")
    ask = "from importlib.metadata import version; print(version('click'))"
    done = subprocess.run([python, "-I", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert distribution("click").version == before
    assert all(Path(str(f.locate())).is_file() for f in distribution("click").files or [])


def test_what_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"No matching distribution found for nowhere>=3"):
        install(wheel(tmp_path, "one", "nowhere>=3"), tmp_path / "clean")
