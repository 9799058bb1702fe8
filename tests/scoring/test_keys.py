from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from mlops_assets.files import write_atomic
from mlops_assets.scoring import keys as keys_module
from mlops_assets.scoring.keys import KeyFile, KeyFileError, Role, ensure_keys, read_keys, rotate


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


def test_a_new_key_is_accepted_at_once_and_an_old_one_no_longer_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(keys_module, "monotonic", lambda: now)
    path = tmp_path / "keys"
    write_atomic(path, "one two", 0o600)
    keys = KeyFile(path)
    looks = 0
    stamp = keys._stamp

    def counted() -> tuple[int, ...]:
        nonlocal looks
        looks += 1
        return stamp()

    monkeypatch.setattr(keys, "_stamp", counted)
    assert keys.accepts(b"Bearer one")
    write_atomic(path, "three two", 0o600)
    assert keys.accepts(b"Bearer one")
    assert looks == 0  # not once per request
    assert keys.accepts(b"Bearer three")
    assert not keys.accepts(b"Bearer one")
    write_atomic(path, "four two", 0o600)
    now = keys_module.FOLLOW_SECONDS
    assert not keys.accepts(b"Bearer three")
    assert keys.accepts(b"Bearer two")


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (b"Bearer one", True),
        (b"bearer  two ", True),
        (b"Bearer", False),
        (b"Bearer ", False),
        (b"Basic one", False),
        (b"one", False),
        (b"Bearer \xff", False),
        (None, False),
    ],
)
def test_a_header(tmp_path: Path, header: bytes | None, accepted: bool) -> None:
    write_atomic(tmp_path / "keys", "one two", 0o600)
    assert KeyFile(tmp_path / "keys").accepts(header) is accepted


@pytest.mark.parametrize("role", ["primary", "secondary"])
@pytest.mark.parametrize("before", ["one\ntwo\n", "one\n"])
def test_one_key_is_made_anew(tmp_path: Path, role: Role, before: str) -> None:
    path = tmp_path / "keys"
    write_atomic(path, before, 0o600)
    rotate(path, role)
    made = read_keys(path)
    assert len(made) == 2
    assert len({*made, b"one", b"two"}) == (4 if before == "one\n" and role == "primary" else 3)
    assert made[0] == b"one" if role == "secondary" else made[0] not in (b"one", b"two")
    if before == "one\ntwo\n" and role == "primary":
        assert made[1] == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_mounted_secret_may_be_our_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    write_atomic(path, "one two", 0o640)
    with pytest.raises(KeyFileError, match=r"others may read it \(mode 640\); run chmod 600"):
        read_keys(path)
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert read_keys(path) == [b"one", b"two"]
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=r"others may read it \(mode 644\); mount it with 440"):
        read_keys(path)
