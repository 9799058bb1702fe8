"""Values as people write them in deployment files, where their meaning is plain.

A reader returns the value and, where it is not what the file literally says, a note of how it was
read; it raises ValueError with what is wrong and the mend.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from mlops_assets.convert.read import Entry
from mlops_assets.convert.report import is_secret

Reader = Callable[[Entry], tuple[Any, str]]

_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_LARGEST = 2**31 - 1  # Azure's integers have 32 bits


def boolean(entry: Entry) -> tuple[Any, str]:
    """True or false; also as text, 1 or 0."""
    if isinstance(entry.value, bool):
        return entry.value, ""
    word = _text_of(entry, "true or false").lower()
    if word not in _WORDS:
        raise ValueError("is neither true nor false; write one of them, without quotes")
    return _WORDS[word], f"read as {str(_WORDS[word]).lower()}"


def number(entry: Entry) -> tuple[Any, str]:
    """A number above zero; also as text."""
    value, note = _number(entry, "a number")
    if value <= 0:
        raise ValueError("must be above 0; v1 refused it too")
    return value, note


def integer(minimum: int, maximum: int = _LARGEST) -> Reader:
    """A whole number in a range; also as text, or as 3.0."""

    def read(entry: Entry) -> tuple[Any, str]:
        value, note = _number(entry, "a whole number")
        if value != int(value):
            raise ValueError("must be a whole number")
        if not minimum <= value <= maximum:
            raise ValueError(f"must be from {minimum} to {maximum}")
        return int(value), note or ("" if isinstance(value, int) else f"read as {int(value)}")

    return read


def text(entry: Entry) -> tuple[Any, str]:
    """One line of text; a number is taken as it is written."""
    found = _text_of(entry, "text")
    if not found:
        raise ValueError("holds spaces alone; write a value, or remove it")
    if is_secret((), found):
        raise ValueError("looks like a secret; take it out of this file, and out of git")
    if not found.isprintable():
        raise ValueError("holds characters that do not print; write one line of text")
    return found, ""


def anything(entry: Entry) -> tuple[Any, str]:
    """Whatever it is: nothing takes it."""
    return entry.value, ""


def name(longest: int) -> Reader:
    """A name that Azure takes: small letters, digits and hyphens; others are mended."""

    def read(entry: Entry) -> tuple[Any, str]:
        found, _ = text(entry)
        mended = re.sub(r"[^a-z0-9]+", "-", found.lower()).strip("-")
        if mended and len(mended) < 3:
            mended = f"version-{mended}"
        if not re.fullmatch(r"[a-z][a-z0-9-]*", mended) or len(mended) > longest:
            raise ValueError(
                f"is no name that Azure takes; write 3 to {longest} small letters, digits and "
                "hyphens, a letter first"
            )
        return mended, "" if mended == found else f"Azure refuses it; read as {mended}"

    return read


def region(entry: Entry) -> tuple[Any, str]:
    """An Azure region by its name or by what the portal shows, ``West Europe``."""
    found, _ = text(entry)
    mended = found.lower().replace(" ", "")
    if not re.fullmatch(r"[a-z0-9]{3,40}", mended):
        raise ValueError("is no region; write one such as westeurope")
    return mended, "" if mended == found else f"read as {mended}"


def compute(entry: Entry) -> tuple[Any, str]:
    """The name of an attached cluster, with or without ``azureml:``."""
    found, _ = text(entry)
    bare = found.removeprefix("azureml:")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", bare):
        raise ValueError("is no name of a cluster; write the name it is attached under")
    return f"azureml:{bare}", ""


def _number(entry: Entry, wanted: str) -> tuple[int | float, str]:
    value: Any = entry.value
    note = ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        found = _text_of(entry, wanted)
        if not re.fullmatch(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?", found):
            raise ValueError(f"is not {wanted}; write the number alone, without unit or quotes")
        value = int(found) if re.fullmatch(r"[+-]?\d+", found) else float(found)
        note = f"read as {value}"
    if not math.isfinite(value) if isinstance(value, float) else abs(value) > 10**18:
        raise ValueError(f"is not {wanted} that anything has; write a smaller one")
    return value, note


def _text_of(entry: Entry, wanted: str) -> str:
    if entry.text is None:
        kind = "a list" if isinstance(entry.value, list) else "a group of keys"
        raise ValueError(f"must be {wanted}, not {kind}")
    return entry.text.strip()
