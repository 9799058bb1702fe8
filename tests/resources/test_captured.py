"""Which files may hold rows of a span, on this machine."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.captured import CapturedFolder, CapturedWhereServed

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def _made(root: Path, *names: str) -> CapturedFolder:
    for name in names:
        path = root / "staging" / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 7)
    return CapturedFolder(root)


def test_files_of_a_span(tmp_path: Path) -> None:
    captured = _made(
        tmp_path,
        "2026-03-01/105400-a1.parquet",
        "2026-03-01/113000-b2.parquet",  # may go on into the span
        "2026-03-01/120000-c3.parquet",
        "2026-03-01/130400-d4.parquet",  # its first rows may be late
        "2026-03-01/140000-e5.parquet",
        "2026-03-01/.120000-f6.parquet.tmp",
        "2026-03-01/notes.parquet",
        "2026-02-28/120000-a7.parquet",
    )
    found = captured.files("tiny", "staging", NOON, NOON + HOUR)
    assert [file.name[11:17] for file in found] == ["113000", "120000", "130400"]
    assert {file.size for file in found} == {7}
    assert found[1].first == NOON
    paths = captured.fetch("tiny", "staging", found, tmp_path / "copies")
    assert [path.parent.parent for path in paths] == [tmp_path / "staging" / "tiny"] * 3
    paths[0].unlink()
    assert captured.fetch("tiny", "staging", found, tmp_path / "copies") == paths[1:]
    assert captured.files("other", "staging", NOON, NOON + HOUR) == []


def test_a_span_over_midnight_in_any_zone(tmp_path: Path) -> None:
    captured = _made(tmp_path, "2026-02-28/233000-a.parquet", "2026-03-01/001000-b.parquet")
    zone = dt.timezone(dt.timedelta(hours=5))
    since = dt.datetime(2026, 3, 1, 5, 0, tzinfo=zone)  # midnight, UTC
    found = captured.files("tiny", "staging", since, since + HOUR)
    assert [file.first.day for file in found] == [28, 1]


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (1, 2), (30, 3)])
def test_days_that_are_over(tmp_path: Path, keep: int, left: int) -> None:
    captured = _made(
        tmp_path,
        *(f"2026-{day}/000000-a.parquet" for day in ("02-20", "02-28", "03-01")),
    )
    (tmp_path / "staging" / "tiny" / "2026-notes").mkdir()
    assert captured.tidy("tiny", "staging", keep, NOON.date()) == 3 - left
    assert len([*tmp_path.rglob("*.parquet")]) == left


def test_what_the_server_removes_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = _made(
        tmp_path, "2026-03-01/115900-a.parquet", *(f"2026-03-01/12000{n}-a.parquet" for n in (0, 1))
    )
    glob = Path.glob

    def removed_meanwhile(folder: Path, pattern: str) -> Iterator[Path]:
        found = [*glob(folder, pattern)]
        for path in found:
            if path.name == "120000-a.parquet":
                path.unlink()
        return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "glob", removed_meanwhile)
        found = captured.files("tiny", "staging", NOON, NOON + HOUR)
    assert [file.name[11:17] for file in found] == ["115900", "120001"]
    _made(tmp_path, "2026-03-01/120000-a.parquet")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "glob", removed_meanwhile)
        assert captured.tidy("tiny", "staging", 0, dt.date(2026, 3, 2)) == 2
    assert not [*tmp_path.rglob("2026-*")]


def test_a_day_that_the_server_removes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = _made(tmp_path, "2026-03-01/120000-a.parquet")
    glob = Path.glob

    def gone(folder: Path, pattern: str) -> Iterator[Path]:
        yield from glob(folder, pattern)
        shutil.rmtree(tmp_path / "staging" / "tiny" / "2026-03-01", ignore_errors=True)
        if folder.name == "2026-03-01":
            raise FileNotFoundError(folder)

    monkeypatch.setattr(Path, "glob", gone)
    assert captured.tidy("tiny", "staging", 0, dt.date(2026, 3, 2)) == 0
    assert captured.files("tiny", "staging", NOON, NOON + HOUR) == []


def test_rows_are_looked_for_where_the_target_leaves_them(tmp_path: Path) -> None:
    own, other = _made(tmp_path / "own", "2026-03-01/120000-a.parquet"), _made(tmp_path / "other")
    captured = CapturedWhereServed({"staging": own, "production": other}.__getitem__)
    found = captured.files("tiny", "staging", NOON, NOON + HOUR)
    assert captured.fetch("tiny", "staging", found, tmp_path) == [
        tmp_path / "own/staging/tiny/2026-03-01/120000-a.parquet"
    ]
    assert captured.files("tiny", "production", NOON, NOON + HOUR) == []
    assert list(captured.listed("tiny", "staging", ["2026-03-01"])) == found
    assert captured.tidy("tiny", "staging", 0, dt.date(2026, 3, 2)) == 1
    with pytest.raises(KeyError):
        captured.files("tiny", "elsewhere", NOON, NOON + HOUR)
