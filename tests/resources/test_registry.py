import threading
from pathlib import Path

import pytest

from mlops_assets.files import digest_file, to_json, write_atomic
from resources.registry import LocalRegistry, RegistryError, Version


def bundle(path: Path, identity: str, content: str = "pickle") -> Path:
    write_atomic(path / "model.pkl", content)
    files = {"model.pkl": digest_file(path / "model.pkl")}
    write_atomic(path / "manifest.json", to_json({"identity": identity, "files": files}))
    return path


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(root=str(tmp_path / "registry"))


def test_versions_count_up(registry: LocalRegistry, tmp_path: Path) -> None:
    found = [registry.register("rent", bundle(tmp_path / name, name)) for name in "abc"]
    assert [v.version for v in found] == [1, 2, 3]
    assert registry.versions("rent") == found
    assert registry.find("rent", "b") == found[1]
    assert registry.find("rent", "d") is None
    assert registry.versions("other") == []


def test_the_same_identity_is_the_same_version(registry: LocalRegistry, tmp_path: Path) -> None:
    first = registry.register("rent", bundle(tmp_path / "one", "same"))
    again = registry.register("rent", bundle(tmp_path / "two", "same", "other bytes"))
    assert again == first
    assert len(registry.versions("rent")) == 1


def test_many_at_once_each_get_a_number(registry: LocalRegistry, tmp_path: Path) -> None:
    found: list[Version] = []

    def register(name: str) -> None:
        own = LocalRegistry(root=registry.root)
        found.append(own.register("rent", bundle(tmp_path / name, name[0])))

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
    registry: LocalRegistry, tmp_path: Path, change: object, named: list[str]
) -> None:
    version = registry.register("rent", bundle(tmp_path / "one", "a"))
    assert version.mismatched() == []
    change(version)  # type: ignore[operator]
    assert version.mismatched() == named


def test_a_damaged_version_does_not_hide_the_others(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    first = registry.register("rent", bundle(tmp_path / "one", "a"))
    second = registry.register("rent", bundle(tmp_path / "two", "b"))
    (second.bundle / "manifest.json").write_text("not json")
    assert registry.find("rent", "a") == first


def test_a_version_that_is_not_there(registry: LocalRegistry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="rent has no version 1; registered: none"):
        registry.version("rent", 1)
    registry.register("rent", bundle(tmp_path / "one", "a"))
    with pytest.raises(RegistryError, match="no version 7; registered: 1"):
        registry.version("rent", 7)


def test_records_are_only_added(registry: LocalRegistry) -> None:
    assert registry.records("rent", "deployments") == []
    numbers = [registry.record("rent", "deployments", {"version": i}) for i in (5, 6)]
    assert numbers == [1, 2]
    assert registry.records("rent", "deployments") == [
        {"version": 5, "number": 1},
        {"version": 6, "number": 2},
    ]
