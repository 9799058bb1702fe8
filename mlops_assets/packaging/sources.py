"""The Python source of a wheel: its own few lines, and a copy of what scores.

The copy is this platform's own ``scoring``, put below the wheel's package: an application needs
nothing of the platform, and two models in one application share nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlops_assets

#: What is copied, as patterns below ``mlops_assets/``.
RUNTIME = ("scoring/*.py", "scoring/capture/*.py", "errors.py", "files.py")
#: Where it goes, below the wheel's package.
RUNTIME_PACKAGE = "_runtime"

_PYTHON_TYPES = {
    "float": "float",
    "integer": "int",
    "string": "str",
    "boolean": "bool",
    "timestamp": "str",
}

_INIT = '''\
"""{model}, version {version}: ``predict`` answers as its endpoint does, in this process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypedDict

from {package}.{runtime}.scoring.embedded import Embedded
from {package}.{runtime}.scoring.errors import IntegrityError, RequestError

__all__ = [
    "MODEL_CARD",
    "SCHEMA",
    "Answer",
    "Columns",
    "IntegrityError",
    "Record",
    "RequestError",
    "predict",
]
__version__: Final[str] = "{distribution_version}"

_BUNDLE = Path(__file__).with_name("bundle")
#: What the version is for, how good it is and where it comes from, in Markdown.
MODEL_CARD: Final = (_BUNDLE / "MODEL_CARD.md").read_text("utf-8")
#: Names, types, ranges and categories of what goes in, and what comes out.
SCHEMA: Final[dict[str, Any]] = json.loads((_BUNDLE / "schema.json").read_text("utf-8"))

#: One row{times}. What its values may be is in ``SCHEMA``.
Record = TypedDict(
    "Record",
    {{
{fields}
    }},
)


class Columns(Protocol):
    """``{{column: values}}``: a dict of lists or arrays, or a pandas frame."""

    def keys(self) -> Iterable[Any]:
        """Names of the columns."""
        ...

    def __getitem__(self, name: Any, /) -> Any:
        """Values of one column."""
        ...


class _Warned(TypedDict, total=False):
    #: Values outside the contract that were let through, each with row and column.
    warnings: list[str]


class Answer(_Warned):
    """What was predicted, row by row."""

    predictions: list[{answer}]
{probabilities}

_model = Embedded(_BUNDLE, "{digest}")


def predict(rows: Sequence[Record] | Columns) -> Answer:
    """Predict, row by row.

    The model is loaded at the first call; any thread may call.

    Args:
        rows: records, or columns. None and NaN are missing values.

    Raises:
        RequestError: the rows do not fit ``SCHEMA``; the message names row and column.
        IntegrityError: a file of this package was changed.
    """
    return _model.predict(rows)  # type: ignore[return-value]
'''

_PROBABILITIES = """\
    #: Probability by label.
    probabilities: list[dict[str, float]]
"""

_MAIN = '''\
"""``python -m {package} serve``: this version as a server; ``serve --help`` has its options."""

import sys
from pathlib import Path

if sys.argv[1:2] != ["serve"]:
    sys.exit("usage: python -m {package} serve [options]; serve --help lists them")
try:
    from {package}.{runtime}.scoring import standalone
except ModuleNotFoundError as error:
    sys.exit(f"{{error}}; to serve, install {distribution}[serve]")

bundle = str(Path(__file__).with_name("bundle"))
version = ["--bundle", bundle, "--digest", "{digest}", "--version", "{version}"]
sys.exit(standalone.main([*version, *sys.argv[2:]], package="python -m {package} serve"))
'''


class SourceError(Exception):
    """The platform's own source cannot be copied into a wheel; names the file."""


def write_runtime(package: Path) -> None:
    """Copy what scores below a wheel's package, its imports turned to the copy."""
    root = Path(mlops_assets.__file__).parent
    here = f"{package.name}.{RUNTIME_PACKAGE}"
    for pattern in RUNTIME:
        for source in sorted(root.glob(pattern)):
            text = source.read_text("utf-8").replace("mlops_assets.", f"{here}.")
            if re.search(r"\bmlops_assets\b", text):
                raise SourceError(f"{source}: names mlops_assets in a way that cannot be rewritten")
            target = package / RUNTIME_PACKAGE / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    docstring = '"""What scores, as the platform has it."""\n'
    (package / RUNTIME_PACKAGE / "__init__.py").write_text(docstring, "utf-8")


def write_interface(
    package: Path, schema: dict[str, Any], distribution: str, distribution_version: str
) -> None:
    """Write the wheel's own modules: ``predict`` with its types, and ``python -m``."""
    names = {
        "package": package.name,
        "runtime": RUNTIME_PACKAGE,
        "distribution": distribution,
        "distribution_version": distribution_version,
        "model": schema["model"],
        "version": schema["version"],
        "digest": schema["digest"],
        "times": ", times as ISO 8601 texts"
        if any(f["type"] == "timestamp" for f in schema["features"])
        else "",
        "fields": "\n".join(map(_field, schema["features"])),
        "answer": _answer(schema["labels"]),
        "probabilities": _PROBABILITIES if schema["probabilities"] else "",
    }
    (package / "__init__.py").write_text(_INIT.format(**names), "utf-8")
    (package / "__main__.py").write_text(_MAIN.format(**names), "utf-8")
    (package / "py.typed").write_text("", "utf-8")


def _field(feature: dict[str, Any]) -> str:
    kind = _PYTHON_TYPES[feature["type"]] + (" | None" if feature["nullable"] else "")
    return f'        {feature["name"]!r}: "{kind}",'


def _answer(labels: list[Any] | None) -> str:
    if labels is None:
        return "float"
    if any(isinstance(label, float) for label in labels):
        return "float"  # no Literal of its own
    return f"Literal[{', '.join(map(repr, labels))}]"
