import errno
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from upath import UPath

from resources import listing
from resources.storage import (
    Clock,
    MissingFolderError,
    Storage,
    StorageError,
    StoredFile,
    fingerprint,
    newest,
)

LONG_AGO = 1_600_000_000


def put(folder: Path | UPath, *names: str, text: str = "a,b\n1,2\n") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(files: list[StoredFile]) -> list[str]:
    return sorted(file.within for file in files)


@pytest.fixture(params=["folder", "file URL", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    kinds = {
        "folder": str(tmp_path / "data"),
        "file URL": f"file://{tmp_path}/data",
        "memory": f"memory://{uuid4().hex}",
    }
    return kinds[request.param]


# -- what is listed


def test_one_listing_of_the_root_serves_every_location(root: str) -> None:
    storage, place = Storage(root=root), UPath(root)
    put(place, "rent/a.csv", "rent/deep/er/b.csv", "rent/c.parquet", "rental/d.csv", "e.csv")
    put(place, "rent/.part.csv", "rent/.uploading/f.csv", ".hidden/g.csv", "rent/README.md")
    wanted = [("rent", ".csv"), ("rent", ".parquet"), ("rent/deep", ".csv"), (".", ".csv")]
    assert {storage.root_of(location) for location, _ in wanted} == {storage.root_of(".")}
    listed = storage.listing(storage.root_of("rent"), [".csv", ".parquet"])
    picked = storage.pick(listed, [*wanted, ("no", ".csv")])
    assert names(picked["rent", ".csv"]) == ["a.csv", "deep/er/b.csv"]
    assert names(picked["rent/deep", ".csv"]) == ["er/b.csv"]
    assert picked["no", ".csv"] == []
    for location, suffix in wanted:
        alone = storage.files(location, suffix)
        assert names(alone) == names(picked[location, suffix])
        assert fingerprint(alone) == fingerprint(picked[location, suffix])
        for file in picked[location, suffix]:
            assert file.path.read_text() == "a,b\n1,2\n"
            assert file.size == 8
            assert file.name == file.within.rpartition("/")[2]


def test_no_folder_and_no_file(root: str) -> None:
    storage, place = Storage(root=root), UPath(root)
    with pytest.raises(MissingFolderError, match="no folder"):
        storage.listing(root)
    with pytest.raises(StorageError, match=r"'rent': no folder .*rent; create it and put the .csv"):
        storage.files("rent", ".csv")
    put(place, "rent/a.txt", "file.csv")
    with pytest.raises(StorageError, match=r"'rent': no .csv file below .*correct data.format"):
        storage.files("rent", ".csv")
    with pytest.raises(StorageError, match=r"no folder .*file\.csv"):
        storage.files("file.csv", ".csv")


def test_the_root_of_a_location(tmp_path: Path) -> None:
    base = str(tmp_path / "data")
    storage = Storage(root=base)
    for below in ("rent", "rent/", "a/b", ".", f"{base}/rent", f"file://{base}/rent", base):
        assert storage.root_of(below) == base
    assert storage.root_of("../other") == storage.root_of(f"{tmp_path}/other/")
    assert storage.root_of(f"file://{tmp_path}/other") == f"{tmp_path}/other"
    assert storage.root_of(f"{base}2") == f"{base}2"
    assert storage.root_of(".hidden/rent") == f"{base}/.hidden/rent"
    assert storage.root_of("memory://bucket/rent/") == "memory://bucket/rent"
    bucket = Storage(root="memory://bucket/")
    assert bucket.root_of("rent") == bucket.root_of("memory://bucket/rent") == "memory://bucket"
    assert bucket.root_of("memory://bucket2") == "memory://bucket2"
    assert bucket.root_of(base) == base


def test_a_location_that_is_itself_hidden(tmp_path: Path) -> None:
    put(tmp_path, ".data/a.csv")
    storage = Storage(root=str(tmp_path))
    listed = storage.listing(storage.root_of(".data"))
    assert names(storage.pick(listed, [(".data", ".csv")])[".data", ".csv"]) == ["a.csv"]
    assert names(storage.files(".data", ".csv")) == ["a.csv"]


def test_a_url_of_a_kind_that_is_not_known(tmp_path: Path) -> None:
    storage = Storage(root=str(tmp_path))
    root = storage.root_of("gopher://example.org/data")
    for use in (storage.listing, lambda place: storage.files(place, ".csv")):
        with pytest.raises(StorageError, match=r"gopher.*correct data.location"):
            use(root)


def test_links_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "far.csv")
    put(tmp_path / "data" / "rent", "a.csv")
    rent = tmp_path / "data" / "rent"
    (rent / "linked").symlink_to(tmp_path / "elsewhere")
    (rent / "up").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "back").symlink_to(rent)
    (rent / "b.csv").symlink_to(tmp_path / "elsewhere" / "far.csv")
    (rent / "broken.csv").symlink_to(tmp_path / "nothing.csv")
    (rent / "self.csv").symlink_to(rent / "self.csv")
    os.mkfifo(rent / "pipe.csv")
    found = names(Storage(root=str(tmp_path / "data")).files("rent", ".csv"))
    assert found[:2] == ["a.csv", "b.csv"]
    assert found[-1] == "linked/far.csv"
    assert len(found) < 10
    # Another version of what a link leads to is another version here.
    before = fingerprint(Storage(root=str(rent)).files(".", ".csv"))
    os.utime(tmp_path / "elsewhere" / "far.csv", (LONG_AGO, LONG_AGO))
    assert fingerprint(Storage(root=str(rent)).files(".", ".csv")) != before


def test_names_that_are_no_text(tmp_path: Path) -> None:
    put(tmp_path, "line\nbreak.csv", "b\x01.csv")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).write_text("")
    files = Storage(root=str(tmp_path)).files(".", ".csv")
    assert len(files) == 3
    assert len(fingerprint(files)) == 64


# -- listings that fail


def meddle(monkeypatch: pytest.MonkeyPatch, folder: Path, act: Callable[[], Any]) -> None:
    """Do something right after the names in ``folder`` were read."""
    real = os.scandir

    def scandir(path: str) -> Any:
        with real(path) as entries:
            found = list(entries)
        if path == str(folder):
            act()
        return nullcontext(iter(found))

    monkeypatch.setattr(listing.os, "scandir", scandir)


def test_a_file_that_vanishes_is_listed_again_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.csv", "b.csv", "sub/c.csv")
    meddle(monkeypatch, tmp_path, lambda: (tmp_path / "b.csv").unlink(missing_ok=True))
    assert names(Storage(root=str(tmp_path)).listing(tmp_path)) == ["a.csv", "sub/c.csv"]


def test_files_that_keep_vanishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a0.csv")
    moves = iter(range(9))

    def move() -> None:
        number = next(moves)
        (tmp_path / f"a{number}.csv").rename(tmp_path / f"a{number + 1}.csv")

    meddle(monkeypatch, tmp_path, move)
    with pytest.raises(StorageError, match=r"a1\.csv' vanished while the folder was listed"):
        Storage(root=str(tmp_path)).listing(tmp_path)


def test_a_listing_that_fails_half_way_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.csv", "locked/b.csv")

    def refuse() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "locked"))

    with monkeypatch.context() as patched:
        meddle(patched, tmp_path / "locked", refuse)
        with pytest.raises(StorageError, match=r"failed at .*/locked: Permission denied; nothing"):
            Storage(root=str(tmp_path)).listing(tmp_path)
    assert len(Storage(root=str(tmp_path)).listing(tmp_path)) == 2


def test_files_that_move_while_they_are_listed(tmp_path: Path) -> None:
    """Whatever a listing gives, it holds every file that stays where it is."""
    stable = {f"{n}/{m}.csv" for n in range(5) for m in range(20)}
    put(tmp_path, *stable)
    put(tmp_path, "moving0.csv")
    stop = threading.Event()

    def move() -> None:
        number = 0
        while not stop.is_set():
            (tmp_path / f"moving{number}.csv").rename(tmp_path / f"moving{number + 1}.csv")
            number += 1

    mover = threading.Thread(target=move)
    mover.start()
    complete = 0
    try:
        for _ in range(100):
            with suppress(StorageError):
                assert set(names(Storage(root=str(tmp_path)).listing(tmp_path))) >= stable
                complete += 1
    finally:
        stop.set()
        mover.join()
    assert complete


class Unsteady(LocalFileSystem):
    """A file system of its own that refuses one folder, and knows etags."""

    protocol = "unsteady"
    refused: str | None = None
    etags: dict[str, str]

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        if self.refused and path.endswith(self.refused):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        found = super().ls(path, detail=detail, **options)
        for info in found if detail else []:
            info.pop("mtime", None)
            if info["type"] == "file":
                info["etag"] = f"tag of {Path(info['name']).read_text()!r}"
        return found


@pytest.mark.filterwarnings("ignore:UPath")
def test_a_file_system_with_etags_that_fails_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    put(tmp_path, "rent/a.csv", "rent/sub/b.csv")
    storage = Storage(root=f"unsteady://{tmp_path}")
    files = storage.files("rent", ".csv")
    assert names(files) == ["a.csv", "sub/b.csv"]
    assert files[0].version == "tag of 'a,b\\n1,2\\n'"
    put(tmp_path, "rent/a.csv")  # the same content: no other version, whatever the date
    assert fingerprint(storage.files("rent", ".csv")) == fingerprint(files)
    put(tmp_path, "rent/a.csv", text="a,b\n1,3\n")
    assert fingerprint(storage.files("rent", ".csv")) != fingerprint(files)
    with monkeypatch.context() as patched:
        patched.setattr(Unsteady, "refused", "/sub")
        with pytest.raises(StorageError, match=r"failed at .*/sub: Permission denied; nothing"):
            storage.files("rent", ".csv")
    assert len(storage.files("rent", ".csv")) == 2


# -- fingerprints


def test_replaced_by_a_file_of_the_same_size(root: str) -> None:
    storage, place = Storage(root=root), UPath(root)
    put(place, "rent/a.csv")
    before = storage.files("rent", ".csv")
    put(place, "rent/a.csv", text="a,b\n1,3\n")
    after = storage.files("rent", ".csv")
    assert before[0].size == after[0].size
    assert fingerprint(before) != fingerprint(after)
    assert newest(after) >= newest(before)


# -- files that are being changed


class Hours:
    """A clock that stands still but when it is slept by; each sleep may do something."""

    def __init__(self, *acts: Callable[[float], object]) -> None:
        self.time = 2_000_000_000.0
        self.slept: list[float] = []
        self.acts = list(acts)
        self.clock = Clock(lambda: self.time, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        if self.acts:
            self.acts.pop(0)(self.time)


def write(path: Path, text: str, when: float) -> None:
    path.write_text(text)
    os.utime(path, (when, when))


def test_files_that_lie_still_are_taken_at_once(tmp_path: Path) -> None:
    put(tmp_path, "rent/a.csv")
    hours, said = Hours(), []
    storage = Storage(root=str(tmp_path))
    assert names(storage.settled("rent", ".csv", 5, said.append, hours.clock)) == ["a.csv"]
    assert (hours.slept, said) == ([], [])
    # Without a time to settle there is no wait either, however fresh they are.
    write(tmp_path / "rent" / "a.csv", "fresh", hours.time)
    assert len(storage.settled("rent", ".csv", 0, said.append, hours.clock)) == 1
    assert (hours.slept, said) == ([], [])


def test_an_upload_is_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "rent/a.csv")
    path = tmp_path / "rent" / "a.csv"
    hours = Hours(
        lambda now: write(path, "more", now - 1),
        lambda now: write(tmp_path / "rent" / "b.csv", "another", now - 2),
        lambda _: write(tmp_path / "rent" / "old.csv", "a copy that keeps its date", LONG_AGO),
    )
    os.utime(path, (hours.time - 3, hours.time - 3))
    said: list[str] = []
    files = Storage(root=str(tmp_path)).settled("rent", ".csv", 5, said.append, hours.clock)
    assert names(files) == ["a.csv", "b.csv", "old.csv"]
    assert hours.slept == [2, 5, 5, 5]
    assert said == [
        "data.location 'rent': files are being changed; waiting until they have lain still for 5 s"
    ]


def test_a_date_in_the_future_holds_nothing_up_for_long(tmp_path: Path) -> None:
    put(tmp_path, "rent/a.csv")
    hours = Hours()
    os.utime(tmp_path / "rent" / "a.csv", (hours.time + 9e6, hours.time + 9e6))
    assert Storage(root=str(tmp_path)).settled("rent", ".csv", 5, print, hours.clock)
    assert hours.slept == [5]


def test_files_that_never_lie_still_are_named(tmp_path: Path) -> None:
    put(tmp_path, "rent/a.csv", "rent/still.csv")
    path = tmp_path / "rent" / "a.csv"
    acts = [lambda now, n=n: write(path, "x" * n, now) for n in range(99)]
    hours = Hours(*acts)
    write(path, "", hours.time)
    with pytest.raises(StorageError, match=r"kept changing for 100 s: 'a\.csv'; start again"):
        Storage(root=str(tmp_path)).settled("rent", ".csv", 5, print, hours.clock)


def test_a_file_that_is_written_to_in_real_time(tmp_path: Path) -> None:
    path = tmp_path / "rent" / "a.csv"
    put(tmp_path, "rent/a.csv", text="")

    def upload() -> None:
        for _ in range(20):
            with path.open("a") as stream:
                stream.write("1,2\n")
            stop.wait(0.02)

    stop = threading.Event()
    uploader = threading.Thread(target=upload)
    uploader.start()
    try:
        storage = Storage(root=str(tmp_path))
        (file,) = storage.settled("rent", ".csv", 1, print)
    finally:
        uploader.join()
    assert file.size == 80
