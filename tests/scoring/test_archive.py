from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.files import files_below
from mlops_assets.scoring.archive import ArchiveError, Bounds, unpack

Files = dict[str, bytes]


def zipped(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(files: Files, **special: int) -> bytes:
    """A .tar.gz; ``special`` members have another type than a regular file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, kind in special.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = bytes([kind]), "/etc/passwd"
            archive.addfile(entry)
    return made.getvalue()


MAKERS = pytest.mark.parametrize("make", [zipped, tarred])


def unpacked(folder: Path, data: bytes, bounds: Bounds | None = None) -> Files:
    """What an archive holds; nothing may ever lie outside its folder."""
    (folder / "archive").write_bytes(data)
    to = folder / "to"
    to.mkdir()
    try:
        unpack(folder / "archive", to, bounds or Bounds())
    finally:
        outside = {p for p in files_below(folder) if not p.is_relative_to(to)}
        assert outside == {folder / "archive"}
        assert not [p for p in folder.rglob("*") if p.is_symlink()]
    return {p.relative_to(to).as_posix(): p.read_bytes() for p in files_below(to)}


NAMES = st.text("abcé- .", min_size=1, max_size=8).filter(lambda n: n.strip(". ") == n)


@MAKERS
@given(files=st.dictionaries(NAMES.map(lambda n: f"rent-1/{n}"), st.binary(max_size=200)))
def test_what_was_packed_comes_out(make: Callable[[Files], bytes], files: Files) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = make(files)
        if not files and make is zipped:
            return  # an empty one begins with another mark
        assert unpacked(Path(folder), data) == files


@MAKERS
@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/tmp/out", "..", "a/..", "..\\out", "a\\..\\..\\out"]
)
def test_a_name_outside_the_folder(
    tmp_path: Path, make: Callable[[Files], bytes], name: str
) -> None:
    with pytest.raises(ArchiveError, match="no name inside a folder"):
        unpacked(tmp_path, make({"good": b"1", name: b"2"}))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_a_tar_holds_files_alone(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ArchiveError, match="'link', which is no regular file"):
        unpacked(tmp_path, tarred({"good": b"1"}, link=kind[0]))


def test_a_zip_holds_files_alone(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="'link', which is no regular file"):
        unpacked(tmp_path, made.getvalue())


@MAKERS
def test_the_same_name_twice(tmp_path: Path, make: Callable[[Files], bytes]) -> None:
    with pytest.raises(ArchiveError, match="File exists"):
        unpacked(tmp_path, make({"a": b"1", "./a": b"2"}))


@MAKERS
def test_more_than_it_may_hold(tmp_path: Path, make: Callable[[Files], bytes]) -> None:
    data = make({"a": bytes(600_000), "b": bytes(600_000)})
    assert len(data) < 10_000
    with pytest.raises(ArchiveError, match="holds more than 1000000 bytes"):
        unpacked(tmp_path, data, Bounds(unpacked=1_000_000))
    many = tmp_path / "many"
    many.mkdir()
    with pytest.raises(ArchiveError, match="more than 9 files"):
        unpacked(many, make({f"{i}": b"" for i in range(10)}), Bounds(files=9))


def test_a_zip_that_understates_its_size(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": bytes(1000)}))
    directory = data.index(b"PK\1\2")
    data[directory + 24 : directory + 28] = struct.pack("<I", 10)
    with pytest.raises(ArchiveError, match="Bad CRC"):
        unpacked(tmp_path, bytes(data))


def test_a_list_of_files_too_long_to_be_read(tmp_path: Path) -> None:
    data = zipped({"a": b"", "n" * 60_000: b""})
    with pytest.raises(ArchiveError, match="more than 2 files"):
        unpacked(tmp_path, data, Bounds(files=2))
    commented = tmp_path / "commented"
    commented.mkdir()
    made = io.BytesIO(data)
    with zipfile.ZipFile(made, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(ArchiveError, match="has a comment"):
        unpacked(commented, made.getvalue())


def test_a_tar_with_endless_headers(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("n" * 3_000_000))
    with pytest.raises(ArchiveError, match="longer names"):
        unpacked(tmp_path, made.getvalue())


def test_an_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"1"}))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    with pytest.raises(ArchiveError, match="encrypted"):
        unpacked(tmp_path, bytes(data))


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"neither a \.zip nor a \.tar\.gz"):
        unpacked(tmp_path, b"<html>")


GOOD = {
    "zip": zipped({"rent-1/manifest.json": b"{}" * 50, "rent-1/model.onnx": bytes(range(256))}),
    "tar": tarred({"rent-1/manifest.json": b"{}" * 50, "rent-1/model.onnx": bytes(range(256))}),
    "bare tar": gzip.decompress(tarred({"rent-1/model.onnx": bytes(range(256))})),
}


@given(
    kind=st.sampled_from(sorted(GOOD)),
    cut=st.integers(0, 100),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=5),
)
def test_damage_is_one_error(kind: str, cut: int, flips: list[tuple[float, int]]) -> None:
    data = bytearray(GOOD[kind])
    for place, value in flips:
        data[int(place * len(data))] = value
    damaged = bytes(data[: len(data) - cut])
    if kind == "bare tar":
        damaged = gzip.compress(damaged)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ArchiveError):
        unpacked(Path(folder), damaged, Bounds(unpacked=1 << 20))
