"""v1's inference configuration: code and environment of the deployment.

What v1 read is ``file_to_inference_config`` of the v1 command line; ``extraDockerFileSteps``, as
its documentation spelt it, was not among it.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.convert import environment, values
from mlops_assets.convert.book import Book
from mlops_assets.convert.paths import find, relative, slashes
from mlops_assets.convert.report import is_secret

_GROUP_SERVES = "in a container group the platform's own scoring server loads the version"


@dataclass
class Inference:
    """What goes into the deployment, and into the container group."""

    deployment: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def read_inference(book: Book, folder: Path, *, deployment: bool) -> Inference:
    """Take all that an inference configuration says.

    Args:
        book: the file's account.
        folder: where ``deployment.json`` will lie; paths become relative to it.
        deployment: whether there is one; a container group takes environment variables alone.
    """
    code = _code(book, folder)
    given = book.source.group("environment")
    if isinstance(given, str):
        made = environment.named(book)
    elif isinstance(given, dict):
        made = environment.described(book)
    else:
        made = environment.older(book, folder)
    variables = _variables(book)
    if isinstance(given, str | dict):
        environment.ignore_older(book)
    if not deployment:
        book.open_ends.clear()
        book.report.rows = [
            row
            if row.went.startswith("environment variable")
            else type(row)(row.key, row.found, "", "lost", _GROUP_SERVES, row.line)
            for row in book.report.rows
            if row.line
        ]
        return Inference(variables=variables)
    parts: dict[str, Any] = {"code_configuration": code}
    if made:
        parts["environment"] = made
    if variables:
        parts["environment_variables"] = variables
    return Inference(parts, variables)


def _code(book: Book, folder: Path) -> dict[str, str]:
    script = book.take("entryScript", values.text)
    source = book.take("sourceDirectory", values.text)
    if script.value is None:
        book.problem(script.entry, "missing, which v1 refused; name score.py", "entryScript")
        return {}
    name = slashes(script.value)
    place = "deployment.json: code_configuration"
    if source.value is not None:
        path, missing = _place(book, slashes(source.value), folder)
        book.keep(source, f'{place}.code = "{path}"', missing)
        book.keep(script, f'{place}.scoring_script = "{name}"')
        return {"code": path, "scoring_script": name}
    directory, script_name = posixpath.split(name)
    path, missing = _place(book, directory or ".", folder)
    book.lose(source, "v1 took it as absent")
    book.keep(
        script,
        f'{place}: code = "{path}", scoring_script = "{script_name}"',
        missing or "v2 uploads the script's whole folder, v1 the script alone",
    )
    return {"code": path, "scoring_script": script_name}


def _place(book: Book, path: str, folder: Path) -> tuple[str, str]:
    """A path of the file as one from ``folder``; and what to say where there is nothing."""
    found = find(book.source.path, path)
    missing = "" if found else "there is nothing at that place yet: mend the path, or put it there"
    return relative(found or book.source.path.parent / path, folder), missing


def _variables(book: Book) -> dict[str, str]:
    variables: dict[str, str] = {}
    for entry in book.below(("environment", "environmentVariables")):
        name = ".".join(entry.path[2:])
        found = book.claim(entry)
        if is_secret(entry.path[2:], entry.value):
            book.lose(found, "a secret; keep it in a key vault, and let the code ask for it")
        elif entry.text is None or not name or entry.value is None:
            book.lose(found, "no value that a variable can have")
        else:
            variables[name] = entry.text
            book.keep(found, f"environment variable {name}")
    return variables
