"""The account of one file: every entry is taken by a converter, or explained at the end."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any

from mlops_assets.convert.read import Entry, KeyPath, Source
from mlops_assets.convert.report import (
    HIDDEN,
    FileReport,
    Kind,
    Row,
    is_secret,
    plain_name,
)
from mlops_assets.convert.values import Reader
from mlops_assets.strict import SpecError

#: Names that people use for v1's keys: those of the SDK's parameters, of older and of newer files.
_OTHER_NAMES = {
    "cpucores": "containerResourceRequirements.cpu",
    "numcores": "containerResourceRequirements.cpu",
    "memory": "containerResourceRequirements.memoryInGB",
    "memorygb": "containerResourceRequirements.memoryInGB",
    "cpucoreslimit": "containerResourceRequirements.cpuLimit",
    "memorygblimit": "containerResourceRequirements.memoryInGBLimit",
    "gpu": "gpuCores",
    "enableappinsights": "appInsightsEnabled",
    "enableauth": "authEnabled",
    "enablessl": "sslEnabled",
    "sslcname": "cname",
    "sslcertpemfile": "sslCertificate",
    "sslkeypemfile": "sslKey",
    "dnslabel": "dnsNameLabel",
    "region": "location",
    "replicas": "numReplicas",
    "instancecount": "numReplicas",
    "autoscaleminreplicas": "autoScaler.minReplicas",
    "autoscalemaxreplicas": "autoScaler.maxReplicas",
    "autoscaletargetutilization": "autoScaler.targetUtilization",
    "autoscalerefreshseconds": "autoScaler.refreshPeriodInSeconds",
    "collectmodeldata": "dataCollection.storageEnabled",
    "replicamaxconcurrentrequests": "maxConcurrentRequestsPerContainer",
    "maxrequestwaittime": "maxQueueWaitMs",
    "requesttimeoutms": "scoringTimeoutMs",
    "computename": "computeTargetName",
    "aadauthenabled": "tokenAuthEnabled",
    "condadependenciesfile": "condaFile",
    "script": "entryScript",
    "scoringscript": "entryScript",
}


_WISHED = "if you want it, write it into the document"


@dataclass(frozen=True)
class Found:
    """A key that a converter asked for."""

    key: str
    #: None where the file does not have the key.
    entry: Entry | None
    #: None where absent, null or wrong.
    value: Any
    note: str = ""


class Book:
    """Rows and problems of one file."""

    def __init__(self, source: Source, title: str) -> None:
        self.source = source
        self.report = FileReport(source.path, title)
        self.open_ends: list[str] = []
        self._problems: list[tuple[int, str]] = []
        self._left = dict(source.entries)
        #: Keys that v1 read, with what it ran with and where that went.
        self._ran: dict[str, str] = {}

    def take(self, key: str, read: Reader) -> Found:
        """The value of one of v1's keys; what is wrong with it becomes a problem."""
        path = tuple(key.split("."))
        self._ran.setdefault(key, "")
        entry = self._left.pop(path, None)
        if entry is None or entry.value is None:
            return Found(key, entry, None)
        if entry.value in ("", [], {}):
            return Found(key, entry, None, "read as absent: it is empty")
        try:
            value, note = read(entry)
        except ValueError as error:
            self.problem(entry, f"{error}; found {_shown(path, entry.value)}")
            return Found(key, entry, None)
        return Found(key, entry, value, note)

    def setting(self, key: str, read: Reader, went: str, default: Any, v2: Any = None) -> Any:
        """Take a key that one place of a document says; v1's default where the file is silent.

        Args:
            key: v1's key.
            read: how its value is read.
            went: document and place.
            default: what v1 ran with without the key.
            v2: what v2 takes without the place; the default is worth a row where they differ.
        """
        found = self.take(key, read)
        if found.value is not None:
            self.keep(found, f"{went} = {_json(found.value)}")
            return found.value
        self.default(found, went, default, v2)
        return default

    def keep(self, found: Found, went: str, reason: str = "") -> None:
        """A value that is in effect as in v1."""
        self._ran[found.key] = went
        if found.entry is not None:
            reasons = [text for text in (found.note, reason) if text]
            self._row(found, went, "read as" if found.note else "kept", "; ".join(reasons))

    def default(self, found: Found, went: str, default: Any, v2: Any) -> None:
        """A key without a value: v1's default, written out."""
        written = f"{went} = {_json(default)}"
        self._ran[found.key] = written
        if default != v2:
            other = "v2 has none" if v2 is None else f"v2's is {_json(v2)}"
            self.change(found, written, f"v1's default is {_json(default)}, {other}; written out")
        elif found.entry is not None:
            kind: Kind = "read as" if found.note else "kept"
            self._row(found, written, kind, found.note or "null is v1's default")

    def change(self, found: Found, went: str, reason: str) -> None:
        """What v1 did by default, and v2 does not."""
        self._ran[found.key] = went
        self._row(found, went, "default changed", reason)

    def lose(self, found: Found, reason: str) -> None:
        """A value that no document takes; no row where the file does not have the key."""
        if found.entry is None:
            return
        if found.entry.value is None:
            self._row(found, "", "kept", "null: as without it")
        elif found.note and found.value is None:
            self._row(found, "", "read as", found.note)
        else:
            self._row(found, "", "lost", reason)

    def read_as(self, entry: Entry, went: str, reason: str) -> None:
        """An entry under another key than v1's, whose meaning is plain."""
        self._row(self.claim(entry), went, "read as", reason)

    def lose_below(self, path: KeyPath, reason: str) -> None:
        """All that is left below a place goes nowhere."""
        for entry in self.below(path):
            self.lose(self.claim(entry), reason)

    def claim(self, entry: Entry) -> Found:
        """Take an entry as it stands."""
        self._left.pop(entry.path, None)
        return Found(entry.key, entry, entry.value)

    def below(self, path: KeyPath) -> list[Entry]:
        """What is left below a place, still to be taken."""
        return [e for p, e in self._left.items() if p[: len(path)] == path]

    def problem(self, entry: Entry | None, text: str, key: str = "") -> None:
        """Something that cannot be converted, with its mend."""
        line, name = (entry.line, entry.key) if entry else (1, key)
        self._problems.append((line, f"line {line}: {name}: {text}"))

    def close(self) -> None:
        """Explain what nobody took.

        Raises:
            SpecError: with every problem of the file.
        """
        for key in ("tags", "properties", "description"):
            self.lose_below((key,), f"v1 took it from its command line alone; {_WISHED}")
        for entry in list(self._left.values()):
            self._explain(entry)
        for entry in self.source.overwritten:
            self._row(
                Found(entry.key, entry, entry.value),
                "",
                "lost",
                "written again below; v1 took that",
            )
        if self._problems:
            raise SpecError(self.source.path, [text for _, text in sorted(self._problems)])

    def _explain(self, entry: Entry) -> None:
        found = Found(entry.key, entry, entry.value)
        if entry.value == {} or entry.value is None:
            if any(key.startswith(f"{entry.key}.") for key in self._ran):
                self._row(found, "", "read as", "read as absent: it is empty; its defaults hold")
                return
        elif any(key.startswith(f"{entry.key}.") for key in self._ran):
            self.problem(entry, "must be a group of keys; write them below it, indented")
            return
        meant = self._meant(entry.path)
        if meant is None:
            self._row(found, "", "lost", f"v1 never read it; {_WISHED}")
            return
        ran = self._ran[meant]
        effect = f"v1 ran without it: {ran}" if ran else "v1 ran without it"
        self._row(
            found,
            "",
            "misspelt",
            f"v1 never read it; {meant} is probably meant. {effect}; {_WISHED}",
            secret=is_secret(meant.split("."), entry.value),
        )

    def _meant(self, path: KeyPath) -> str | None:
        """The key of v1 that an unknown key probably stands for."""
        by_name: dict[str, str] = {}
        for key in self._ran:
            by_name.setdefault(plain_name(key.rsplit(".")[-1]), key)
        for other, key in _OTHER_NAMES.items():
            if key in self._ran:
                by_name.setdefault(other, key)
        by_path = {plain_name(key): key for key in self._ran}
        whole, last = plain_name("".join(path)), plain_name(path[-1])
        for names, name in ((by_path, whole), (by_name, last)):
            if name in names:
                return names[name]
        for names, name in ((by_path, whole), (by_name, last)):
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
            if close and len(name) > 3:
                return names[close[0]]
        return None

    def _row(
        self, found: Found, went: str, kind: Kind, reason: str, *, secret: bool = False
    ) -> None:
        shown, line = "", 0
        if found.entry is not None:
            shown = HIDDEN if secret else _shown(found.entry.path, found.entry.value)
            line = found.entry.line
        self.report.rows.append(Row(found.key, shown, went, kind, reason, line))


def _shown(path: KeyPath, value: Any) -> str:
    return HIDDEN if is_secret(path, value) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
