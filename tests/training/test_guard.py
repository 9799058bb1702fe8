from __future__ import annotations

import logging
import warnings

import pytest

from mlops_assets.training.guard import LINE_LENGTH, Lines, LogHandler, format_warning


@pytest.mark.parametrize(
    ("written", "logged"),
    [
        (["a\nb\n"], ["a", "b"]),
        (["a", "b", "\n", "c"], ["ab", "c"]),
        (["\n \n"], []),
        (["a\r\nb"], ["a", "b"]),
        (["\r 1 %", "\r50 %", "\r100 %\n", "done\n"], ["100 %", "done"]),
        (
            ["x" * (LINE_LENGTH + 5), "y" * 10 + "\nz\n"],
            ["x" * LINE_LENGTH + "… (15 characters more)", "z"],
        ),
    ],
)
def test_lines(written: list[str], logged: list[str]) -> None:
    found: list[str] = []
    lines = Lines(found.append)
    for text in written:
        assert lines.write(text) == len(text)
        lines.flush()
    lines.end()
    assert found == logged
    assert not lines.isatty()


def test_a_line_is_logged_as_it_comes() -> None:
    found: list[str] = []
    print("one\ntwo", end="", file=Lines(found.append))
    assert found == ["one"]


def test_log_records_keep_their_level(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = LogHandler(logging.getLogger("to"))
    source = logging.getLogger("from")
    source.propagate = False
    source.setLevel(logging.DEBUG)
    monkeypatch.setattr(source, "handlers", [handler])
    with caplog.at_level(logging.DEBUG, "to"):
        source.debug("no")
        source.info("%d rows", 3)
        source.error("oh")
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "3 rows"),
        ("ERROR", "oh"),
    ]


def test_a_warning_is_one_line() -> None:
    text = format_warning(UserWarning("careful"), UserWarning, "/tmp/x/train.py", 7, "code")
    assert text == "train.py:7: UserWarning: careful\n"
    assert warnings.formatwarning is not format_warning
