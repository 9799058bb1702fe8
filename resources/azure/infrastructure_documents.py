"""``environments/azure/<environment>/infrastructure/*.json``: what there is to be on Azure.

Documents of Azure ML's command line, version 2: ``workspace.json``, ``registry.json`` and
``compute-….json``. ``${NAME}`` stands for an environment variable, as in ``profile.json``.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlops_assets.strict import SpecError
from resources.azure.document_files import filled, read_object, variables_of
from resources.azure.settings import FILE, AzureSettings
from resources.environment import Profile

FOLDER = "infrastructure"
Kind = Literal["workspace", "registry", "compute"]

_NAMES: dict[Kind, tuple[str, str]] = {
    "workspace": (
        r"[A-Za-z0-9][\w-]{2,32}",
        "3 to 33 letters, digits, hyphens and underscores, no hyphen first",
    ),
    "registry": (
        r"[A-Za-z0-9][\w-]{2,32}",
        "3 to 33 letters, digits, hyphens and underscores, no hyphen first",
    ),
    "compute": (
        r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]",
        "3 to 32 letters, digits and hyphens, a letter first and no hyphen last",
    ),
}
#: What can be made here of the kinds of compute that Azure ML has.
_COMPUTES = ("amlcompute", "kubernetes")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One document, its variables filled in."""

    kind: Kind
    name: str
    environment: str
    #: For people: the file, below the folder of the profile.
    place: str
    content: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a file."""

    environment: str
    #: The file, below the folder of the profile.
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def read_infrastructure(profile: Profile, environment: str) -> list[Wanted]:
    """The documents of all environments, in the order in which they are made.

    Raises:
        SpecError: with every problem of the files of one environment; what is wrong with those of
            another is no reason to leave this one alone.
    """
    found, problems = examine(profile, os.environ)
    mine = [str(problem) for problem in problems if problem.environment == environment]
    if mine:
        raise SpecError(f"environments/{profile.name}", mine)
    return found


def examine(profile: Profile, variables: Mapping[str, str]) -> tuple[list[Wanted], list[Problem]]:
    """What can be read of the documents, and what is wrong with them; asks nobody."""
    found: list[Wanted] = []
    problems: list[Problem] = []
    for environment in (e.name for e in profile.environments):
        for path in sorted((profile.documents_of(environment) / FOLDER).glob("*")):
            place = f"{environment}/{FOLDER}/{path.name}"
            wanted, wrong = _read(path, environment, place, variables)
            problems += [Problem(environment, place, text) for text in wrong]
            found += [wanted] if wanted else []
    problems += _twice(found) + _disagreements(profile, found, variables)
    order: list[Kind] = ["workspace", "registry", "compute"]
    return sorted(found, key=lambda w: (order.index(w.kind), w.place)), problems


def _read(
    path: Path, environment: str, place: str, variables: Mapping[str, str]
) -> tuple[Wanted | None, list[str]]:
    """The document, also where it is known by its name alone, and what is wrong with it."""
    kind = _kind(path.name)
    if kind is None:
        return None, ["is to be called workspace.json, registry.json or compute-….json"]
    try:
        content = read_object(path)
    except SpecError as error:
        return None, error.problems
    missing = sorted(name for name in variables_of(content) if not variables.get(name))
    problems = [f"environment variable {name} is not set" for name in missing]
    known = {**dict.fromkeys(missing, "${}"), **variables}
    content = filled({k: v for k, v in content.items() if k != "$schema"}, known)
    name, (pattern, said) = content.get("name"), _NAMES[kind]
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        return None, problems or [f"name: found {name!r}, must be {said}"]
    problems += _problems_of_compute(content) if kind == "compute" else []
    if kind == "registry" and "description" in content:
        problems.append("description: azure-ai-ml does not send that of a registry; use tags")
    return Wanted(kind, name, environment, place, content), problems


def _kind(file: str) -> Kind | None:
    if re.fullmatch(r"compute-[\w-]+\.json", file):
        return "compute"
    kinds: dict[str, Kind] = {"workspace.json": "workspace", "registry.json": "registry"}
    return kinds.get(file)


def _problems_of_compute(content: Mapping[str, Any]) -> list[str]:
    kind = content.get("type")
    if str(kind).lower() not in _COMPUTES:
        return [f"type: found {kind!r}, must be one of: {', '.join(_COMPUTES)}"]
    if str(kind).lower() == "kubernetes" and not content.get("resource_id"):
        return ["resource_id: missing; it says which cluster is attached"]
    return []


def _twice(found: list[Wanted]) -> list[Problem]:
    """A resource with two documents would be changed to and fro."""
    places: dict[tuple[str, str], str] = {}
    problems: list[Problem] = []
    for wanted in found:
        first = places.setdefault((wanted.kind, wanted.name.lower()), wanted.place)
        if first != wanted.place:
            text = f"{wanted} is in {first} too; remove one of them"
            problems.append(Problem(wanted.environment, wanted.place, text))
    return problems


def _disagreements(
    profile: Profile, found: list[Wanted], variables: Mapping[str, str]
) -> list[Problem]:
    """Where documents and ``profile.json`` mean different things."""
    if profile.azure is None or profile.azure.missing(variables):
        return []
    settings = profile.azure.resolved(variables)
    return [
        Problem(
            wanted.environment,
            wanted.place,
            f"{key}: found '{said}', {FILE} says '{meant}'; make them agree",
        )
        for wanted in found
        for key, said, meant in _said(wanted, settings)
        if str(said).replace(" ", "").lower() != meant.replace(" ", "").lower()
    ]


def _said(wanted: Wanted, settings: AzureSettings) -> list[tuple[str, Any, str]]:
    if wanted.kind == "workspace":
        location = wanted.content.get("location", settings.location)
        return [
            ("name", wanted.name, settings.workspace),
            ("location", location, settings.location),
        ]
    if wanted.kind == "registry":
        return [("name", wanted.name, settings.registry or "no registry")]
    return []


def entity(wanted: Wanted) -> Any:
    """The document as azure-ai-ml has it; SpecError with what its own loader finds wrong."""
    from azure.ai.ml import load_compute, load_registry, load_workspace
    from azure.ai.ml.exceptions import MlException
    from marshmallow import ValidationError

    load = {"workspace": load_workspace, "registry": load_registry, "compute": load_compute}
    try:
        return load[wanted.kind](io.StringIO(json.dumps(dict(wanted.content))))
    except ValidationError as error:
        # The client's own message has pages of advice around what the cause says.
        cause = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
        raise SpecError(wanted.place, _flat(cause.messages)) from None
    except (MlException, KeyError) as error:
        raise SpecError(wanted.place, [str(error)]) from None


def _flat(messages: Any, place: str = "") -> list[str]:
    if isinstance(messages, dict):
        return [
            line
            for key, child in messages.items()
            for line in _flat(child, f"{place}.{key}" if place else str(key))
        ]
    said = messages if isinstance(messages, list) else [messages]
    return [f"{place}: {text}" for text in said]
