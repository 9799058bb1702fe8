"""Does an installed wheel answer as the version's endpoint does?"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlops_assets.files import read_json
from mlops_assets.packaging.wheel import Wheel
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.predictor import MANIFEST, SAMPLE
from mlops_assets.scoring.schema import Schema
from resources.clean_environment import InstallError, install
from resources.registry import Version

#: Relative difference of two numbers that count as the same: a runtime of another release may
#: add up in another order.
TOLERANCE = 1e-6
TIMEOUT_SECONDS = 300
#: What the installed wheel is asked with, in a process that sees nothing else.
ASK = """\
import importlib, json, sys
model = importlib.import_module(sys.argv[1])
json.dump([model.predict(rows) for rows in json.load(sys.stdin)], sys.stdout)
"""


Outcome = Literal["same", "different", "not_tried"]


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    outcome: Outcome
    reason: str


class _AskError(Exception):
    """A process gave no answers; the message is its last line."""


def bodies_of(version: Version, samples: Sequence[Any]) -> list[Any]:
    """What is asked: the bundle's own sample, all rows at once and one by one, and more bodies."""
    records = read_json(version.bundle / SAMPLE)["input"]
    return [{"data": records}, *({"data": [record]} for record in records), *samples]


def try_out(wheel: Wheel, file: Path, bodies: Sequence[Any], folder: Path) -> Trial:
    """Install a wheel in an environment of its own, and compare its answers with the endpoint's.

    Args:
        wheel: what the file is of.
        file: the built wheel.
        bodies: of requests; what the endpoint refuses is not asked of the wheel.
        folder: where the environment comes to lie; absent.
    """
    version = wheel.version
    arguments = ("-P", "-m", "mlops_assets.packaging.answers", str(version.bundle), version.digest)
    with _start(sys.executable, *arguments) as endpoint:
        try:
            python = install(file, folder)
            expected = _answers(endpoint, bodies)
        except InstallError as error:
            endpoint.kill()
            return Trial("not_tried", f"{file.name} cannot be installed here: {error}")
        except _AskError as error:
            return Trial("not_tried", f"the version itself gives no answer: {error}")
    schema = Schema.from_manifest(read_json(version.bundle / MANIFEST))
    asked = [(body, answer) for body, answer in zip(bodies, expected, strict=True) if answer]
    if not asked:
        return Trial("not_tried", "the endpoint refuses every request")
    with _start(str(python), "-I", "-c", ASK, wheel.package) as embedded:
        try:
            found = _answers(embedded, [_rows(body, schema) for body, _ in asked])
        except _AskError as error:
            return Trial("different", f"the installed wheel gives no answer: {error}")
    for (body, answer), other in zip(asked, found, strict=True):
        for place in differences(answer, other):
            return Trial("different", f"{place}; asked {_shown(body)}")
    return Trial("same", f"{len(asked)} requests are answered as by the endpoint")


def differences(expected: Any, found: Any, place: str = "answer") -> Iterator[str]:
    """Where two answers differ, each with its place."""
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        for key, value in expected.items():
            yield from differences(value, found[key], f"{place}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif not _same(expected, found):
        yield f"{place}: the endpoint says {_shown(expected)}, the wheel {_shown(found)}"


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE**2)
    return type(expected) is type(found) and expected == found


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _rows(body: Any, schema: Schema) -> Any:
    """A request's rows as the wheel takes them: records as they are, all else as columns."""
    if isinstance(body.get("data"), list) and isinstance(body["data"][0], dict):
        return body["data"]
    columns = parse(json.dumps(body).encode(), schema).columns
    return {name: [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _start(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _answers(process: subprocess.Popen[str], requests: Sequence[Any]) -> list[Any]:
    try:
        out, err = process.communicate(json.dumps(requests), TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise _AskError(f"no answer within {TIMEOUT_SECONDS} s") from None
    if process.returncode:
        tail = err.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise _AskError(tail[0])
    return json.loads(out)
