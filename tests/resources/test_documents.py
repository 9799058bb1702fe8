import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resources.documents import Documents, FolderDocuments


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    return FolderDocuments(root=str(tmp_path))


def test_made_once(documents: Documents) -> None:
    assert documents.read("a/b.json") is None
    assert documents.create("a/b.json", "first")
    assert not documents.create("a/b.json", "second")
    assert documents.read("a/b.json") == b"first"


def test_replaced_and_removed(documents: Documents) -> None:
    documents.write("a/b.json", "first")
    documents.write("a/b.json", "zweites: ä")
    assert documents.read("a/b.json") == "zweites: ä".encode()
    for _ in range(2):
        documents.remove("a/b.json")
    assert documents.read("a/b.json") is None


def test_names_are_those_of_one_folder(documents: Documents) -> None:
    for name in ("a/2.json", "a/10.json", "a/below/3.json", "b/4.json"):
        documents.write(name, "{}")
    assert documents.names("a") == ["a/10.json", "a/2.json"]
    assert documents.names("c") == []


@pytest.mark.parametrize("how", ["write", "create"])
def test_what_a_killed_writer_left_is_no_document(tmp_path: Path, how: str) -> None:
    script = (
        "import os, signal, sys; from resources.documents import FolderDocuments\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "getattr(FolderDocuments(root=sys.argv[1]), sys.argv[2])('a/b.json', 'first')\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path), how], check=False)
    assert killed.returncode == -signal.SIGKILL
    documents = FolderDocuments(root=str(tmp_path))
    assert list((tmp_path / "a").iterdir()), "it left something"
    assert documents.names("a") == []
    assert documents.create("a/b.json", "second")
    assert documents.names("a") == ["a/b.json"]
