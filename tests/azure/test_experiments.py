"""Experiments that colleagues keep, each on a machine of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlops_assets.files import digest_file, to_json
from resources.azure.artifacts import BlobArtifacts
from resources.azure.documents import BlobDocuments
from resources.experiments import Experiments
from resources.registry import RegistryError
from tests.azure.platforms import clients
from tests.azure.server import AzureServer


def bundle(folder: Path, identity: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.pkl").write_bytes(identity.encode())
    files = {"model.pkl": digest_file(folder / "model.pkl")}
    (folder / "manifest.json").write_text(to_json({"identity": identity, "files": files}))
    return folder


def test_what_one_keeps_the_others_find(azure: AzureServer, tmp_path: Path) -> None:
    def of(name: str) -> Experiments:
        store = BlobArtifacts.of(clients(azure), root=str(tmp_path / name))
        return Experiments(store, BlobDocuments.of(clients(azure)))

    hers, his = of("her laptop"), of("his laptop")
    with pytest.raises(RegistryError, match="Kept so far: none"):
        his.newest("rent", "Feature/ü b")
    first = hers.keep("rent", bundle(tmp_path / "one", "one"), "Feature/ü b")
    second = his.keep("rent", bundle(tmp_path / "two", "two"), "other")
    assert (first.version, second.version) == (1, 2)
    assert hers.keep("rent", bundle(tmp_path / "again", "one"), "other").version == 1
    found = his.newest("rent", "Feature/ü b")
    assert (found.version, found.digest, found.mismatched()) == (1, first.digest, [])
    assert (found.bundle / "model.pkl").read_bytes() == b"one"
    assert found.bundle.is_relative_to(tmp_path / "his laptop")
    assert {k: v.version for k, v in his.branches("rent").items()} == {"Feature/ü b": 1, "other": 1}
    with pytest.raises(RegistryError):
        his.newest("another", "other")

    bundles = [bundle(tmp_path / f"{n}", f"{n}") for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(lambda n: (hers, his)[n % 2].keep("m", bundles[n], f"b{n}"), range(6)))
    assert sorted(version.version for version in kept) == [1, 2, 3, 4, 5, 6]
    assert {b: v.digest for b, v in his.branches("m").items()} == {
        f"b{n}": digest_file(bundles[n] / "manifest.json") for n in range(6)
    }
