"""Markdown of values that anybody may have put into the data: none breaks out of its place."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

#: So many characters of a value are shown.
LONGEST = 60
#: Needs no escape, whatever reads it.
_PLAIN = re.compile(r"[\w.,:;+()=%'-]+(?: [\w.,:;+()=%'-]+)*", re.ASCII)
_BARS = "▁▂▃▄▅▆▇█"


def code(value: object, longest: int = LONGEST) -> str:
    """A value as code: not a link, a mention, a tag or the end of a cell, whatever it holds.

    Args:
        value: anything; its text is shown.
        longest: so many characters of it.
    """
    text = "missing" if value is None else _visible(str(value)[: 4 * longest])
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    if _PLAIN.fullmatch(text):
        return f"`{text}`"
    if not text:
        return "empty"
    # Numbers of characters, within an element in which nobody is mentioned.
    return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in text)}</code>"


def number(value: float | None) -> str:
    """A number with four digits, so that noise in the fifth changes no text."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.4g}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bars(shares: Sequence[float]) -> str:
    """Shares as bars of one character each; the greatest is the highest."""
    known = [0.0 if math.isnan(share) else max(0.0, share) for share in shares]
    greatest = max(known, default=0.0)
    if greatest == 0:
        return ""
    return "".join(_BARS[round(share / greatest * (len(_BARS) - 1))] for share in known)


def block(text: str) -> str:
    """Lines as a block of code, whatever fences they hold."""
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, 1 + max(runs, default=0))
    return f"{fence}\n{text}\n{fence}"


def _visible(text: str) -> str:
    """Without what is not to be seen, or turns the order of what is: as its number instead."""
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in hidden else c for c in text)
