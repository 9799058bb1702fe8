"""Registries: what the tests of a folder and those of Azure ML have in common.

Whoever imports all of it has fixtures ``registry``, an empty one, and ``another``, which opens the
same one as another process does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.files import digest_file, to_json, write_atomic
from resources.registry import Registry, RegistryError, Version


def bundle(path: Path, identity: str, content: str = "pickle") -> Path:
    write_atomic(path / "model.pkl", content)
    files = {"model.pkl": digest_file(path / "model.pkl")}
    write_atomic(path / "manifest.json", to_json({"identity": identity, "files": files}))
    return path


def test_versions_count_up(registry: Registry, tmp_path: Path) -> None:
    found = [registry.register("rent", bundle(tmp_path / name, name)) for name in "abc"]
    assert [v.version for v in found] == [1, 2, 3]
    assert registry.versions("rent") == found
    assert registry.find("rent", "b") == found[1]
    assert registry.find("rent", "d") is None
    assert registry.versions("other") == []


def test_the_same_identity_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    first = registry.register("rent", bundle(tmp_path / "one", "same"))
    again = registry.register("rent", bundle(tmp_path / "two", "same", "other bytes"))
    assert again == first
    assert len(registry.versions("rent")) == 1


def test_many_at_once_each_get_a_number(
    registry: Registry, another: Callable[[], Registry], tmp_path: Path
) -> None:
    found: list[Version] = []

    def register(name: str) -> None:
        found.append(another().register("rent", bundle(tmp_path / name, name[0])))

    threads = [threading.Thread(target=register, args=(f"{i % 6}-{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert [v.version for v in registry.versions("rent")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: (v.bundle / "model.pkl").write_text("other"), ["model.pkl"]),
        (lambda v: (v.bundle / "model.pkl").unlink(), ["model.pkl"]),
        (lambda v: (v.bundle / "more.py").write_text(""), ["more.py"]),
        (lambda v: (v.bundle / "manifest.json").write_text("{}"), ["manifest.json"]),
        (lambda v: (v.bundle / "manifest.json").unlink(), ["manifest.json"]),
    ],
)
def test_files_changed_on_disk_are_named(
    registry: Registry, tmp_path: Path, change: object, named: list[str]
) -> None:
    version = registry.register("rent", bundle(tmp_path / "one", "a"))
    assert version.mismatched() == []
    change(version)  # type: ignore[operator]
    assert version.mismatched() == named


def test_a_damaged_version_does_not_hide_the_others(registry: Registry, tmp_path: Path) -> None:
    first = registry.register("rent", bundle(tmp_path / "one", "a"))
    second = registry.register("rent", bundle(tmp_path / "two", "b"))
    (second.bundle / "manifest.json").write_text("not json")
    assert registry.find("rent", "a") == first


def test_a_version_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="rent has no version 1; registered: none"):
        registry.version("rent", 1)
    registry.register("rent", bundle(tmp_path / "one", "a"))
    with pytest.raises(RegistryError, match="no version 7; registered: 1"):
        registry.version("rent", 7)


def test_records_are_only_added(registry: Registry) -> None:
    assert registry.records("rent", "releases") == []
    numbers = [registry.record("rent", "releases", {"version": i}) for i in (5, 6)]
    assert numbers == [1, 2]
    assert registry.records("rent", "releases") == [
        {"version": 5, "number": 1},
        {"version": 6, "number": 2},
    ]


def test_a_signature_is_kept_and_replaced(
    registry: Registry, another: Callable[[], Registry], tmp_path: Path
) -> None:
    registry.register("rent", bundle(tmp_path / "one", "a"))
    assert not registry.signature("rent", 1).exists()
    for signature in (b"first", b"second"):
        assert "1.sig" in registry.keep_signature("rent", 1, signature)
        assert another().signature("rent", 1).read_bytes() == signature
    assert registry.version("rent", 1).mismatched() == []
