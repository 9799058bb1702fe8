"""Documents as blobs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.azure.blobs import Blobs
from resources.azure.clients import AzureError
from resources.azure.documents import BlobDocuments
from tests.azure.faults import Fault
from tests.azure.platforms import clients
from tests.azure.server import AzureServer

CREATE = "PUT .*blob.core.*/mlops/a/one.json"


@pytest.fixture
def documents(azure: AzureServer) -> BlobDocuments:
    return BlobDocuments.of(clients(azure))


def test_a_document_is_whole_or_absent(documents: BlobDocuments) -> None:
    assert documents.read("a/one.json") is None
    assert documents.names("a") == []
    documents.write("a/one.json", "1")
    documents.write("a/one.json", "„2“")
    documents.write("a/b/deeper.json", "3")
    documents.write("ab/beside.json", "4")
    assert documents.read("a/one.json") == "„2“".encode()
    assert documents.names("a") == ["a/one.json"]
    for _ in range(2):
        documents.remove("a/one.json")
    assert documents.read("a/one.json") is None


def test_of_many_that_make_a_document_one_does(azure: AzureServer) -> None:
    each = [BlobDocuments.of(clients(azure)) for _ in range(8)]
    each[0].write("made/container.json", "")
    with ThreadPoolExecutor(len(each)) as pool:
        made = list(pool.map(lambda d: d[1].create("a/one.json", str(d[0])), enumerate(each)))
    assert made.count(True) == 1
    assert each[0].read("a/one.json") == str(made.index(True)).encode()


@pytest.mark.parametrize("drop", ["request", "answer"])
def test_a_connection_that_drops_makes_no_difference(
    azure: AzureServer, documents: BlobDocuments, drop: str
) -> None:
    documents.write("made/container.json", "")
    azure.faults.add(Fault(CREATE, drop=drop, times=2))  # pyright: ignore[reportArgumentType]
    assert documents.create("a/one.json", "same")
    assert not documents.create("a/one.json", "same")  # equal, and not made here
    expected = [None, None, 201 if drop == "request" else 409, 409]
    assert [e.status for e in azure.record.exchanges(CREATE)] == expected


@pytest.mark.parametrize(
    ("status", "code"), [(429, "TooManyRequests"), (500, None), (503, "ServerBusy")]
)
def test_what_passes_is_waited_for(
    azure: AzureServer, documents: BlobDocuments, status: int, code: str | None
) -> None:
    documents.write("made/container.json", "")
    azure.faults.add(Fault(CREATE, status, code, retry_after=1, times=2))
    assert documents.create("a/one.json", "1")
    assert documents.read("a/one.json") == b"1"
    assert [e.status for e in azure.record.exchanges(CREATE)] == [status, status, 201]


@pytest.mark.parametrize(
    ("status", "mend"),
    [(401, "az login"), (403, "lacks a role"), (404, "BlobNotFound"), (409, "BlobAlreadyExists")],
)
def test_what_does_not_pass_is_one_sentence(
    azure: AzureServer, documents: BlobDocuments, status: int, mend: str
) -> None:
    documents.write("a/one.json", "1")
    code = None if status != 409 else "BlobAlreadyExists"
    azure.faults.add(Fault("PUT .*one.json", status, code, times=None))
    with pytest.raises(AzureError) as caught:
        documents.write("a/one.json", "2")
    said = str(caught.value)
    assert f"https://{azure.blob.account}.blob.core.windows.net/mlops/a/one.json" in said
    assert mend in said
    assert "\n" not in said
    azure.faults.clear()
    assert documents.read("a/one.json") == b"1"


def test_storage_that_never_answers_is_one_sentence(
    azure: AzureServer, documents: BlobDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.azure.retries.RETRIES", 1)
    documents.write("a/one.json", "1")
    azure.faults.add(Fault("GET .*one.json", 500, times=None))
    with pytest.raises(AzureError, match=r"one\.json: Azure answers 500"):
        documents.read("a/one.json")
    azure.faults.clear()
    azure.faults.add(Fault("GET .*one.json", drop="request", times=None))
    with pytest.raises(AzureError, match=r"one\.json: .*(closed|abort)"):
        documents.read("a/one.json")


@pytest.mark.parametrize("by", ["account_key", "sas"])
def test_the_key_or_a_signature_opens_it_and_is_never_shown(
    azure: AzureServer, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    secret = azure.blob.key if by == "account_key" else azure.blob.account_sas(expired=False)
    BlobDocuments.of(clients(azure)).write("a/one.json", "1")
    monkeypatch.setenv("STORAGE_SECRET", secret)
    documents = BlobDocuments.of(clients(azure, **{by: "STORAGE_SECRET"}))
    assert documents.read("a/one.json") == b"1"
    assert azure.record.exchanges("/oauth2/")[1:] == []
    old = "AAAA" * 22 if by == "account_key" else azure.blob.account_sas(expired=True)
    monkeypatch.setenv("STORAGE_SECRET", old)
    documents = BlobDocuments.of(clients(azure, **{by: "STORAGE_SECRET"}))
    with pytest.raises(AzureError, match="environment variable STORAGE_SECRET") as caught:
        documents.write("a/two.json", "2")
    shown = f"{caught.value} {documents!r} {documents._clients!r} {documents._blobs!r}"
    for word in (secret, old, old.rpartition("sig=")[2]):
        assert word not in shown


def test_large_files_come_back_as_they_went(azure: AzureServer, tmp_path: Path) -> None:

    blobs, folder = Blobs(clients(azure)), tmp_path
    (folder / "large").write_bytes(bytes(range(256)) * 300_000)  # more than one block
    assert blobs.upload("large", folder / "large")
    assert not blobs.upload("large", folder / "large")
    blobs.download("large", folder / "again")
    assert (folder / "again").read_bytes() == (folder / "large").read_bytes()
