"""Reads a deployment file of Azure ML's SDK v1: YAML, or JSON as people really write it.

The v1 command line parsed every such file as YAML, where the last of two equal keys counts; so does
this. What the file says is flattened to entries with their lines, so that a report can name all.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mlops_assets.errors import UserError
from mlops_assets.strict import SpecError

KeyPath = tuple[str, ...]

_LARGEST_FILE = 1_000_000  # bytes
_MOST_VALUES = 20_000  # after aliases: a few lines of YAML can stand for billions

_DOCSTRING = re.compile(r"\A(?:\s|#[^\n]*\n)*(\"{3}|'{3}).*?\1", re.DOTALL)
# In JSON: strings and '#' comments stay, comments of JavaScript and tabs become spaces.
_JSON_NOISE = re.compile(
    r"""(?P<keep> "(?:\\.|[^"\\\n])*" | '[^'\n]*' | (?<!\S)\#[^\n]* )
      | (?<!:)//[^\n]* | /\*.*?\*/ | \t""",
    re.DOTALL | re.VERBOSE,
)
_COMMENT_LINE = re.compile(r"^[ \t]*//[^\n]*$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One value of a file: a scalar, a list of scalars, or an empty group (``{}``)."""

    path: KeyPath
    #: Where the key stands, from 1.
    line: int
    value: Any
    #: The scalar as written, without quotes; for lists None.
    text: str | None

    @property
    def key(self) -> str:
        """The key's place in the file, with dots."""
        return ".".join(self.path)


@dataclass
class Source:
    """What one file says."""

    path: Path
    #: Per place, in the file's order.
    entries: dict[KeyPath, Entry] = field(default_factory=dict)
    #: Written again further down: never in effect.
    overwritten: list[Entry] = field(default_factory=list)
    #: The whole as plain values.
    content: dict[str, Any] = field(default_factory=dict)

    def group(self, *path: str) -> Any:
        """The plain value at a place, None where there is none."""
        found: Any = self.content
        for part in path:
            found = found.get(part) if isinstance(found, dict) else None
        return found


def read_source(path: Path) -> Source:
    """Read one file.

    Raises:
        SpecError: with the line, where the file cannot be read.
    """
    text = _strip_docstring(_decode(path))
    try:
        root = _compose(text)
        if not isinstance(root, yaml.MappingNode):
            raise SpecError(path, [f"line 1: holds {_called(root)}; write keys and their values"])
        source = Source(path)
        reading = _Reading(source)
        source.content = reading.group(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = str(error.problem or error.context).replace("\t", "\\t")
        raise SpecError(
            path, [f"{line}neither YAML nor JSON: {problem}; mend that place and try again"]
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(
            path, [f"line {line}: holds a character that no text file has; remove it"]
        ) from None
    except RecursionError:
        raise SpecError(path, ["line 1: nested too deep; these files have three levels"]) from None
    return source


def _decode(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; name the files that v1 deployed with"
        ) from None
    if len(data) > _LARGEST_FILE:
        raise SpecError(path, ["larger than 1 MB; that is no deployment file"])
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # PowerShell's `>`
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError(path, [f"line {line}: not UTF-8; save the file as UTF-8"]) from None


def _strip_docstring(text: str) -> str:
    return _DOCSTRING.sub(lambda found: _blank(found.group()), text, count=1)


def _compose(text: str) -> yaml.Node | None:
    if text.lstrip().startswith(("{", "//", "/*")):
        # Not as it stands: to YAML, `// one "cpu": 1` would be a key of that name.
        return _compose_yaml(_JSON_NOISE.sub(_blank_noise, text))
    try:
        return _compose_yaml(text)
    except yaml.MarkedYAMLError:
        without = _COMMENT_LINE.sub(lambda found: _blank(found.group()), text)
        if without == text:
            raise
        return _compose_yaml(without)


def _compose_yaml(text: str) -> yaml.Node | None:
    loader = yaml.SafeLoader(text)  # not libyaml's: it does not survive deep nesting
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _blank_noise(found: re.Match[str]) -> str:
    return found["keep"] or _blank(found.group())


def _blank(text: str) -> str:
    """Spaces in place of text, so that lines and columns stay."""
    return re.sub(r"[^\n]", " ", text)


class _Reading:
    """One walk over the parsed nodes."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.constructor = yaml.constructor.SafeConstructor()
        self.count = 0
        self.open: set[int] = set()

    def group(self, node: yaml.MappingNode, path: KeyPath, *, overwritten: bool = False) -> Any:
        self._enter(node)
        self.constructor.flatten_mapping(node)  # `<<: *defaults`
        last = {self._key(key): place for place, (key, _) in enumerate(node.value)}
        content: dict[str, Any] = {}
        for place, (key_node, value_node) in enumerate(node.value):
            key = self._key(key_node)
            lost = overwritten or last[key] != place
            value = self._value(value_node, (*path, key), key_node, lost)
            if not lost:
                content[key] = value
        if not node.value and path:
            self._add(Entry(path, node.start_mark.line + 1, {}, None), overwritten)
        self.open.discard(id(node))
        return content

    def _value(self, node: yaml.Node, path: KeyPath, key: yaml.Node, overwritten: bool) -> Any:
        line = key.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self.group(node, path, overwritten=overwritten)
        if isinstance(node, yaml.SequenceNode):
            return self._list(node, path, line, overwritten)
        value, text = self._scalar(node)
        if value is None and ":" in path[-1] and getattr(key, "style", None) is None:
            name = path[-1].partition(":")[0]
            raise SpecError(
                self.source.path, [f"line {line}: {name}: write a space after its colon"]
            )
        self._add(Entry(path, line, value, text), overwritten)
        return value

    def _list(self, node: yaml.SequenceNode, path: KeyPath, line: int, overwritten: bool) -> Any:
        if any(isinstance(item, yaml.MappingNode | yaml.SequenceNode) for item in node.value):
            self._enter(node)
            items = [
                self._value(item, (*path, str(place)), item, overwritten)
                for place, item in enumerate(node.value)
            ]
            self.open.discard(id(node))
            return items
        items = [self._scalar(item)[0] for item in node.value]
        self._add(Entry(path, line, items, None), overwritten)
        return items

    def _scalar(self, node: yaml.Node) -> tuple[Any, str]:
        self._enter(node)
        self.open.discard(id(node))
        text = _whole_characters(str(node.value))
        if getattr(node, "style", None) is None:
            bare = re.split(r"\s+//", text, maxsplit=1)[0]
            if bare != text:  # `cpu: 1  // one core`
                return bare, bare
            if text == "None":  # copied from Python
                return None, text
        try:
            value = self.constructor.construct_object(node)
        except (ValueError, LookupError, AttributeError):  # 2020-02-31, `!!bool maybe`, 5000 digits
            return text, text
        if isinstance(value, bool | int | float) or value is None:
            return value, text
        return text, text  # also dates, which v1 passed on as text

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be one word", node.start_mark
            )
        return _whole_characters(node.value)

    def _add(self, entry: Entry, overwritten: bool) -> None:
        if overwritten:
            self.source.overwritten.append(entry)
        else:
            self.source.entries[entry.path] = entry

    def _enter(self, node: yaml.Node) -> None:
        self.count += 1
        line = node.start_mark.line + 1
        if self.count > _MOST_VALUES:
            raise SpecError(
                self.source.path, [f"line {line}: more than {_MOST_VALUES} values; remove aliases"]
            )
        if id(node) in self.open:
            raise SpecError(
                self.source.path, [f"line {line}: an alias stands for itself; write its value"]
            )
        self.open.add(id(node))


def _whole_characters(text: str) -> str:
    """JSON writes some characters as two escapes, which YAML reads as two halves."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _called(node: yaml.Node | None) -> str:
    if node is None:
        return "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "one value"
