"""Azure's own documents as files: JSON objects in which ``${NAME}`` is an environment variable."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlops_assets.strict import SpecError

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def own_or_common(folder: Path, model: str, name: str) -> Path:
    """A document of an environment: that of the model's own folder, where it has one."""
    own = folder / model / name
    return own if own.is_file() else folder / name


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; SpecError, also for a key that is written twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"written twice: {', '.join(twice)}")
        return dict(pairs)

    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=unique)
    except FileNotFoundError:
        raise SpecError(path, ["no such file; it is one of Azure's own documents"]) from None
    except OSError as error:
        raise SpecError(path, [f"cannot be read: {error.strerror}"]) from None
    except ValueError as error:
        raise SpecError(path, [f"not readable as JSON: {error}"]) from None
    if not isinstance(found, dict):
        raise SpecError(path, ["must be a JSON object"])
    return found


def read_filled(path: Path) -> dict[str, Any]:
    """The JSON object in a file with its variables' values; SpecError names those not set."""
    found = read_object(path)
    missing = sorted(name for name in variables_of(found) if not os.environ.get(name))
    if missing:
        raise SpecError(path, [f"environment variable {name} is not set" for name in missing])
    return filled(found, os.environ)


def variables_of(value: Any) -> set[str]:
    """Names of the environment variables that stand somewhere in a document as ``${NAME}``."""
    if isinstance(value, str):
        return set(_VARIABLE.findall(value))
    children = value.values() if isinstance(value, dict) else value
    found = children if isinstance(value, (dict, list)) else ()
    return {name for child in found for name in variables_of(child)}


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """The same document with the values of its environment variables; all of them are set."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: variables[match[1]], value)
    if isinstance(value, dict):
        return {name: filled(child, variables) for name, child in value.items()}
    if isinstance(value, list):
        return [filled(child, variables) for child in value]
    return value
