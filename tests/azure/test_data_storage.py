"""Raw data in blob storage, and the data sensor over it."""

from __future__ import annotations

import pytest
from upath import UPath

from mlops_assets.contract import write_checked
from resources.azure.storage import BlobStorage, root_of
from resources.storage import MissingFolderError, Storage, StorageError
from tests.azure.faults import Fault
from tests.azure.platforms import clients
from tests.azure.server import AzureServer
from tests.repository import rows
from tests.sensors.any_storage import *  # noqa: F403
from tests.sensors.any_storage import Make, model, put


@pytest.fixture
def storage(azure: AzureServer) -> BlobStorage:
    found = clients(azure)
    return BlobStorage.of(found, root=root_of(found.settings.storage))


@pytest.fixture
def root(storage: BlobStorage) -> UPath:
    return storage.place(".")


@pytest.fixture
def many() -> int:
    return 50


def names(storage: Storage, location: str, suffix: str = ".csv") -> list[str]:
    return [file.within for file in storage.files(location, suffix)]


def test_files_of_a_location_with_their_etags(storage: BlobStorage, root: UPath) -> None:
    for name in ("a.csv", "deep/b.csv", ".hidden.csv", ".parts/c.csv", "d.csv.part", "e.parquet"):
        put(root / "rent" / name)
    put(root / "rental" / "f.csv")
    assert names(storage, "rent") == ["a.csv", "deep/b.csv"]
    assert names(storage, "rent", ".parquet") == ["e.parquet"]
    first, second = storage.files("rent", ".csv")
    put(root / "rent" / "a.csv", "y\n")
    changed, same = storage.files("rent", ".csv")
    assert (first.version, first.size) != (changed.version, changed.size)
    assert (first.size, changed.size) == (2, 2)
    assert second == same
    assert changed.changed >= first.changed > 1_000_000_000
    assert (changed.path.read_text(), changed.name) == ("y\n", "a.csv")


def test_absolute_addresses_of_the_same_account(azure: AzureServer, storage: BlobStorage) -> None:
    put(storage.place("rent/a.csv"))
    clients(azure).container.get_blob_client("elsewhere/b.csv").upload_blob(b"1")
    account = azure.blob.account
    for address, expected in {
        "abfs://mlops/data/rent": ["a.csv"],
        f"abfs://mlops@{account}.dfs.core.windows.net/data/rent/": ["a.csv"],
        f"abfss://mlops@{account}.blob.core.windows.net/elsewhere": ["b.csv"],
        "az://mlops/elsewhere": ["b.csv"],
    }.items():
        assert names(storage, address) == expected
    with pytest.raises(StorageError, match=r"account other\..*; this profile's is"):
        storage.files("abfs://mlops@other.dfs.core.windows.net/data", ".csv")
    for address in ("/srv/data", "file:///srv/data", "s3://bucket/data"):
        with pytest.raises(StorageError, match=f"'{address}': not in blob storage; name a folder"):
            storage.files(address, ".csv")


def test_what_is_not_there(storage: BlobStorage, root: UPath) -> None:
    with pytest.raises(StorageError, match=r"'rent': no folder abfs://mlops/data/rent; create it"):
        storage.files("rent", ".csv")
    with pytest.raises(MissingFolderError, match="no folder abfs://other/data"):
        storage.listing("abfs://other/data")
    put(root / "rent" / "a.csv")
    with pytest.raises(StorageError, match=r"no \.parquet file below abfs://mlops/data/rent"):
        storage.files("rent", ".parquet")


def test_folders_of_a_hierarchical_namespace_are_no_files(
    azure: AzureServer, storage: BlobStorage, root: UPath
) -> None:
    put(root / "rent" / "a.csv")
    container = clients(azure).container
    container.upload_blob("data/rent/deep.csv", b"", metadata={"hdi_isfolder": "true"})
    assert names(storage, "rent") == ["a.csv"]


def test_all_models_below_a_root_are_one_listing(
    azure: AzureServer, storage: BlobStorage, make: Make, root: UPath
) -> None:
    put(root / "one" / "a.csv")
    put(root / "two" / "a.csv")
    ticks = make(model("one"), model("two"), model("three", "two"))
    assert ticks.tick() == ["one", "two", "three"]
    azure.record.clear()
    assert ticks.tick() == []
    assert [e.status for e in azure.record.exchanges("blob.core")] == [200]


def test_variables_in_the_address_are_filled_in_when_it_is_asked(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = clients(azure, container="${DATA_CONTAINER}")
    storage = BlobStorage.of(found, root=root_of(found._given.storage))
    assert storage.root_of("rent") == storage.root_of(".") == "abfs://${DATA_CONTAINER}/data"
    monkeypatch.setenv("DATA_CONTAINER", "filled")
    assert found.container.container_name == "filled"
    put(storage.place("rent/a.csv"))
    assert names(storage, "rent") == ["a.csv"]


@pytest.mark.parametrize("by", ["account_key", "sas"])
def test_secrets_open_it_and_are_never_shown(
    azure: AzureServer, root: UPath, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    put(root / "rent" / "a.csv", rows(3))
    secret = azure.blob.key if by == "account_key" else azure.blob.account_sas(expired=False)
    monkeypatch.setenv("STORAGE_SECRET", secret)
    found = clients(azure, **{by: "STORAGE_SECRET"})
    storage = BlobStorage.of(found, root=root_of(found.settings.storage))
    files = storage.files("rent", ".csv")
    assert files[0].path.read_text() == rows(3)
    shown = f"{storage!r} {files} {files[0].path} {files[0].path!r} {storage.place('.')!r}"
    for word in (secret, secret.rpartition("sig=")[2]):
        assert word not in shown
    if by == "sas":
        monkeypatch.setenv("STORAGE_SECRET", azure.blob.account_sas(expired=True))
        found = clients(azure, sas="STORAGE_SECRET")
        storage = BlobStorage.of(found, root=root_of(found.settings.storage))
        with pytest.raises(StorageError, match="environment variable STORAGE_SECRET") as caught:
            storage.files("rent", ".csv")
        assert "sig=" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_storage_that_is_throttled_for_a_while(
    azure: AzureServer, storage: BlobStorage, root: UPath, status: int
) -> None:
    put(root / "rent" / "a.csv")
    azure.faults.add(Fault("GET .*comp=list", status, retry_after=1, times=2))
    assert names(storage, "rent") == ["a.csv"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_listing_that_fails_says_why_and_takes_nothing(
    azure: AzureServer, storage: BlobStorage, make: Make, root: UPath, status: int
) -> None:
    put(root / "rent" / "a.csv")
    ticks = make(model())
    assert ticks.tick() == ["rent"]
    put(root / "rent" / "b.csv")
    cursor = ticks.cursor
    azure.faults.add(Fault("GET .*comp=list", status))
    with pytest.raises(StorageError, match=r"listing of https://.*/mlops/data/: .*nothing was tak"):
        ticks.tick()
    assert ticks.cursor == cursor
    assert [ticks.tick(), ticks.tick()] == [["rent"], []]


def test_a_file_that_cannot_be_read_is_one_sentence(
    azure: AzureServer, storage: BlobStorage, root: UPath, tmp_path: object
) -> None:
    from pathlib import Path

    put(root / "rent" / "a.csv", rows(30))
    files = storage.files("rent", ".csv")
    azure.faults.add(Fault("GET .*a.csv", 403, times=None))
    with pytest.raises(StorageError, match=r"a\.csv"):
        write_checked(files, model().data, Path(str(tmp_path)) / "out.parquet")
