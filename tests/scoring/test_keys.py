from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from mlops_assets.files import write_atomic
from mlops_assets.scoring.keys import KeyFile, KeyFileError, ensure_keys, read_keys


def test_two_keys_are_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ensure_keys(path)
    primary, secondary = read_keys(path)
    assert primary != secondary
    assert min(len(primary), len(secondary)) >= 43  # 256 bits
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ensure_keys(path)
    assert read_keys(path) == [primary, secondary]


def test_an_open_file_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ensure_keys(path)
    keys = read_keys(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=r"others may read it \(mode 644\); run chmod 600"):
        KeyFile(path)
    ensure_keys(path)
    assert read_keys(path) == keys


def test_a_missing_or_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(KeyFileError, match="No such file"):
        read_keys(path)
    write_atomic(path, "\n", 0o600)
    with pytest.raises(KeyFileError, match="holds no key"):
        read_keys(path)
    ensure_keys(path)
    assert len(read_keys(path)) == 2


def test_a_file_that_went_bad_leaves_the_keys_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    write_atomic(path, "one two", 0o600)
    keys = KeyFile(path)
    with caplog.at_level(logging.ERROR):
        write_atomic(path, "three", 0o644)
        assert not keys.accepts(b"Bearer three")  # an unknown key is a reason to look
        assert keys.accepts(b"Bearer one")
        path.unlink()
        assert not keys.accepts(b"Bearer three")
        assert keys.accepts(b"Bearer two")
    assert caplog.text.count("stay in force") == 2
    assert "three" not in caplog.text
