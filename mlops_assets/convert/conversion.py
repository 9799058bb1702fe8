"""From files to documents: one environment per kind of target."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlops_assets.convert import aci, aks, inference
from mlops_assets.convert.book import Book
from mlops_assets.convert.read import Entry, Source, read_source
from mlops_assets.convert.report import FileReport, plain_name, render
from mlops_assets.errors import UserError
from mlops_assets.files import write_atomic
from mlops_assets.strict import SpecError

FileKind = Literal["aci", "aks", "inference"]

_COMPUTE_TYPES: dict[str, FileKind] = {
    "aci": "aci",
    "azurecontainerinstance": "aci",
    "azurecontainerinstances": "aci",
    "aks": "aks",
    "aksendpoint": "aks",
    "azurekubernetesservice": "aks",
    "kubernetes": "aks",
}
# Keys that one kind alone has.
_SIGNS: dict[FileKind, set[str]] = {
    "aci": {"location", "dnsNameLabel", "vnetName", "subnetName", "vaultBaseUrl"},
    "aks": {
        "autoScaler", "numReplicas", "scoringTimeoutMs", "maxConcurrentRequestsPerContainer",
        "maxQueueWaitMs", "livenessProbeRequirements", "gpuCores", "namespace",
        "tokenAuthEnabled", "computeTargetName", "versionName", "trafficPercentile",
    },
    "inference": {"entryScript", "sourceDirectory", "condaFile", "environment", "baseImage"},
}  # fmt: skip

#: The first environment of the chain, and the one that promotes from it.
_STAGING, _PRODUCTION = "staging", "production"

_TITLES: dict[FileKind, str] = {
    "aci": "A container group, `container_group.json`.",
    "aks": "A Kubernetes online endpoint, `endpoint.json`, and its deployment, `deployment.json`. "
    "Memory in GB is written in Gi, 7 % more, so that no replica has less than in v1.",
    "inference": "Code and environment of the deployment.",
}


@dataclass(frozen=True)
class Conversion:
    """What a set of files becomes; nothing is written yet."""

    #: Relative path -> JSON value.
    documents: dict[str, Any]
    reports: list[FileReport]
    #: What v1's files did not hold, and no document can do without.
    open_ends: list[str]

    @property
    def report(self) -> str:
        """All of it, in Markdown."""
        return render(self.reports, self.open_ends)

    def files(self) -> dict[str, str]:
        """Relative path -> text of every file, the report with them."""
        texts = {
            name: json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            for name, document in self.documents.items()
        }
        return {**texts, "report.md": self.report}


def convert(paths: Sequence[Path], folder: Path) -> Conversion:
    """Convert deployment and inference configurations of v1.

    Args:
        paths: at most one each for ACI, for AKS, and of inference.
        folder: where the documents will lie; paths in them are relative to it.

    Raises:
        SpecError: a file that cannot be converted, with every place and its mend.
        UserError: files that do not belong together.
    """
    books: dict[FileKind, Book] = {}
    for path in paths:
        kind, book = _open(read_source(path))
        if kind in books:
            raise UserError(
                f"{path}: a second file for {kind}, after {books[kind].source.path}; convert it "
                "by itself, into another folder"
            )
        books[kind] = book
    if "aci" not in books and "aks" not in books:
        raise UserError(
            f"{paths[0]}: an inference configuration says how, not where; give the deployment "
            "configuration with it, aciDeploymentConfig or aksDeploymentConfig"
        )
    documents = _documents(books, folder)
    for book in books.values():
        book.close()
    reports = [book.report for book in books.values()]
    open_ends = [end for book in books.values() for end in book.open_ends]
    return Conversion(documents, reports, open_ends)


def write(conversion: Conversion, folder: Path) -> list[Path]:
    """Write the files of a conversion; what is there and says the same stays.

    Raises:
        UserError: a file is there and says something else; nothing is written then.
    """
    files = {folder / name: text for name, text in conversion.files().items()}
    try:
        for path, content in files.items():
            if path.exists() and path.read_text(encoding="utf-8") != content:
                raise UserError(f"{path}: is there already, and differs; name another folder")
        for path, content in files.items():
            write_atomic(path, content)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder}: cannot be written: {error}; name another folder") from None
    return list(files)


def _documents(books: dict[FileKind, Book], folder: Path) -> dict[str, Any]:
    said = inference.Inference()
    if "inference" in books:
        said = inference.read_inference(
            books["inference"], folder / _PRODUCTION, deployment="aks" in books
        )
    documents: dict[str, Any] = {}
    if "aci" in books:
        documents[f"{_STAGING}/environment.json"] = {"name": _STAGING, "target": "aci"}
        documents[f"{_STAGING}/container_group.json"] = aci.container_group(
            books["aci"], said.variables
        )
    if "aks" in books:
        environment = {"name": _PRODUCTION, "target": "aks"}
        if "aci" in books:
            environment["promotes_from"] = _STAGING
        endpoint = aks.online_endpoint(books["aks"], _PRODUCTION)
        deployment = aks.online_deployment(books["aks"], _PRODUCTION)
        documents[f"{_PRODUCTION}/environment.json"] = environment
        documents[f"{_PRODUCTION}/endpoint.json"] = endpoint
        documents[f"{_PRODUCTION}/deployment.json"] = deployment | said.deployment
    return documents


def _open(source: Source) -> tuple[FileKind, Book]:
    """What kind of file it is, and its account with ``computeType`` in it."""
    entry = source.entries.get(("computeType",)) or next(
        (e for e in source.entries.values() if plain_name(e.key) == "computetype"), None
    )
    word = plain_name(entry.text or "") if entry else ""
    if word == "local":
        raise SpecError(
            source.path,
            [
                f"line {entry.line if entry else 1}: computeType: Local is a container on your own "
                "machine, here the profile `local`; leave this file out"
            ],
        )
    kind = _COMPUTE_TYPES.get(word) or _guess(source, entry)
    book = Book(source, _TITLES[kind])
    if entry is not None:
        target = f"environment.json: target = {json.dumps(kind)}"
        if entry.key == "computeType" and word in ("aci", "aks", "aksendpoint"):
            book.keep(book.take("computeType", _as_written), target)
        else:
            size = (
                "a VM size is a managed endpoint's instance_type; "
                if "_" in (entry.text or "")
                else ""
            )
            book.read_as(entry, target, f"v1 refused it; {size}the file's keys or name say {kind}")
    return kind, book


def _as_written(entry: Entry) -> tuple[Any, str]:
    return entry.text, ""


def _guess(source: Source, entry: Entry | None) -> FileKind:
    """The kind by the file's name and by keys that one kind alone has."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", source.path.stem)
    by_name: set[FileKind] = {kind for kind in _SIGNS if kind in [word.lower() for word in words]}
    keys = {path[0] for path in source.entries}
    by_keys: set[FileKind] = {kind for kind, signs in _SIGNS.items() if signs & keys}
    found = by_name & by_keys or by_name | by_keys
    if len(found) != 1:
        line = entry.line if entry else 1
        problem = "is none that v1 knew" if entry else "missing"
        raise SpecError(
            source.path,
            [f"line {line}: computeType: {problem}; write aci, aks or aksendpoint"],
        )
    return found.pop()
