"""What became of every value, as a table that people read before they deploy."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["kept", "default changed", "lost", "misspelt", "read as"]

_MEANINGS: dict[Kind, str] = {
    "kept": "what v1 did stays, and v2 says it too",
    "read as": "not as v1 wanted it written; taken for what it plainly means",
    "default changed": "v2 has another default, or none; what v1 did is written out where v2 can",
    "misspelt": "v1 never read it and ran with its default, and so do these documents",
    "lost": "nothing in v2 takes it",
}

_SECRET_NAMES = re.compile(
    r"password|passwd|pwd|secret|token|credential|connectionstring|sslkey|keys?$|^sas|sastoken"
    r"|privatekey|accountkey|apikey|accesskey|primarykey|secondarykey"
)
_NO_SECRETS = {"keyname", "keyversion"}
_SECRET_VALUES = re.compile(
    r"-----BEGIN|AccountKey=|SharedAccess|[?&]sig=|[Pp]assword\s*=|://[^/\s]*:[^/\s]*@|[Bb]earer "
    r"|\b(?<!sha256:)(?=\S*[0-9A-Z])[A-Za-z0-9+]{32,}"  # as long as a key, and as unreadable
)
HIDDEN = "(not shown: a secret)"


def plain_name(name: str) -> str:
    """A key as people remember it: letters and digits, small."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_secret(path: Sequence[str], value: Any) -> bool:
    """Whether a value must not be shown or written, by its keys' names or by its look."""
    if value is None or isinstance(value, bool) or value in ({}, [], ""):
        return False
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return False
    names = [plain_name(part) for part in path]
    if any(_SECRET_NAMES.search(name) and name not in _NO_SECRETS for name in names):
        return True
    return bool(_SECRET_VALUES.search(value if isinstance(value, str) else json.dumps(value)))


@dataclass(frozen=True)
class Row:
    """What became of one key."""

    key: str
    #: As JSON; empty where the file does not have the key.
    found: str
    #: Document and place; empty where it went nowhere.
    went: str
    kind: Kind
    #: Why, and what to do.
    reason: str
    #: In the file; 0 where it does not have the key.
    line: int = 0


@dataclass
class FileReport:
    """The rows of one file."""

    path: Path
    title: str
    rows: list[Row] = field(default_factory=list)

    def in_order(self) -> list[Row]:
        """The file's own keys by line, then the defaults it relied on."""
        return sorted(self.rows, key=lambda row: (not row.line, row.line))


def render(reports: Sequence[FileReport], open_ends: Sequence[str]) -> str:
    """The report in Markdown."""
    kinds = Counter(row.kind for report in reports for row in report.rows)
    lines = ["# Converted from Azure ML SDK v1", ""]
    lines += [f"- **{kind}** ({kinds[kind]}): {text}" for kind, text in _MEANINGS.items()]
    if open_ends:
        lines += [
            "",
            "## Still to write",
            "",
            "v1 took these from its command line, or chose them.",
        ]
        lines += ["", *(f"- {_cell(end)}" for end in open_ends)]
    for report in reports:
        lines += ["", f"## {_cell(str(report.path))}", "", report.title, ""]
        lines += ["| line | key | found | went to | kind | reason |", "|---|---|---|---|---|---|"]
        lines += [_line(row) for row in report.in_order()]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    cells = [row.key, row.found or "(absent)", row.went or "-", row.kind, row.reason]
    return " | ".join([f"| {row.line or '-'}", *map(_cell, cells)]) + " |"


def _cell(text: str) -> str:
    """Text that stays in its cell of the table, and on its line."""
    printable = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    return printable.replace("|", "\\|")
