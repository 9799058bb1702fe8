"""What parses every file that people write: strict, with one line per problem."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mlops_assets.errors import UserError


class SpecError(UserError):
    """A file that people wrote does not say what it must; the message lists every place."""

    def __init__(self, path: Path | str, problems: list[str]) -> None:
        self.path = str(path)
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


class Strict(BaseModel):
    """Base of everything parsed from a file: no unknown key, no coerced type, no change later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML that refuses a key written twice: the first one would be lost without a word."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be one word", key_node.start_mark
            )
        key = loader.construct_object(key_node)  # pyright: ignore[reportUnknownMemberType]
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' is written twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


#: YAML 1.1, which pyyaml reads, takes 1e-4 for a text: its floats have a point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def load_yaml(text: str, path: Path | str) -> Any:
    """Parse YAML in which no key is written twice.

    Args:
        text: the file's content.
        path: where the text comes from; the problem is reported under it.

    Raises:
        SpecError: not readable as YAML, with the place.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(path, [f"{line}not readable as YAML: {error.problem}"]) from None
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a ValueError
        raise SpecError(path, [f"not readable as YAML: {error}"]) from None


def describe_errors(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line per problem: key path, what is wrong, what was found, what is allowed."""
    return [_describe(item, model) for item in error.errors(include_url=False)]


def _describe(item: Any, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in item["loc"])
    prefix = f"{place}: " if place else ""
    message = str(item["msg"])
    if item["type"] == "extra_forbidden":
        return f"{prefix}unknown key; allowed here: {_allowed_keys(model, item['loc'][:-1])}"
    if item["type"] == "missing":
        return f"{prefix}missing"
    if item["type"] == "value_error":
        return prefix + message.removeprefix("Value error, ")
    found = item["input"]
    shown = repr(found) if len(repr(found)) <= 80 else f"a {type(found).__name__}"
    return f"{prefix}{message[0].lower()}{message[1:]}; found {shown}"


def _allowed_keys(model: type[BaseModel], path: tuple[Any, ...]) -> str:
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:  # dict[str, X] or list[X]: the value's type is the last argument
            arguments = getattr(current, "__args__", ())
            current = arguments[-1] if arguments else None
        current = _present(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return ", ".join(n for n, f in current.model_fields.items() if not f.exclude)
    return "none"


def _present(annotation: Any) -> Any:
    """X of ``X | None``: what a block that may be absent is where it is there."""
    arguments = getattr(annotation, "__args__", ())
    others = [a for a in arguments if a is not type(None)]
    return others[0] if len(others) == 1 and len(arguments) > 1 else annotation
