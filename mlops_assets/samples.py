"""Named requests of an environment, and what their answers must look like.

``samples/requests/<model>/<environment>.json`` is a JSON list of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field, ValidationError, model_validator

from mlops_assets.spec import Scalar
from mlops_assets.strict import SpecError, Strict, describe_errors
from resources.endpoints.base import Answer

#: A latency limit is held by the fastest of this many answers: one pause of the machine is no
#: reason to refuse a version.
LATENCY_TRIES = 3
#: Sends one payload to an endpoint or to one of its deployments.
Ask = Callable[[Any], Answer]


class Expectation(Strict):
    """What the answer to a sample must look like."""

    status: int = Field(200, ge=200, le=599)
    predictions: int | None = Field(None, ge=1, description="Number of predictions.")
    minimum: float | None = Field(None, description="Least prediction, for regression.")
    maximum: float | None = Field(None, description="Greatest prediction, for regression.")
    labels: list[Scalar] | None = Field(None, min_length=1, description="Labels allowed.")
    latency_ms: float | None = Field(None, gt=0, description="Time of the answer at most.")

    @model_validator(mode="after")
    def _consistent(self) -> Expectation:
        wanted = [self.predictions, self.minimum, self.maximum, self.labels]
        if self.status != 200 and any(value is not None for value in wanted):
            raise ValueError(f"an answer with status {self.status} holds no predictions to expect")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is greater than maximum {self.maximum}")
        return self


class Sample(Strict):
    """A named request with what its answer must look like."""

    name: str = Field(min_length=1)
    request: Any = Field(description="The body, as JSON.")
    expect: Expectation = Field(default_factory=lambda: Expectation.model_validate({}))


@dataclass(frozen=True, slots=True)
class SampleResult:
    """How a sample was answered."""

    name: str
    status: int
    seconds: float
    #: What is wrong with the answer; empty if it is as expected.
    problems: tuple[str, ...]
    #: The answer's body, shortened for a message.
    answer: str

    def __str__(self) -> str:
        """The sample, what was expected and what came."""
        found = f"the answer was {self.status} {self.answer}"
        return f"sample '{self.name}': {'; '.join(self.problems) or 'as expected'}; {found}"


def load_samples(path: Path) -> list[Sample]:
    """Read the file of an environment's samples: a JSON list of at least one.

    Raises:
        SpecError: with every problem of the file.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        raise SpecError(
            path, ["missing; write a list of named requests, each with what it expects"]
        ) from None
    except ValueError as error:
        raise SpecError(path, [f"not readable as JSON: {error}"]) from None
    if not isinstance(entries, list) or not entries:
        raise SpecError(path, ["must be a list of at least one sample: {name, request, expect}"])
    samples: list[Sample] = []
    problems: list[str] = []
    for index, entry in enumerate(entries):
        try:
            samples.append(Sample.model_validate(entry))
        except ValidationError as error:
            problems += [f"[{index}] {line}" for line in describe_errors(error, Sample)]
    names = [sample.name for sample in samples]
    problems += [f"name '{name}' is used twice" for name in names if names.count(name) > 1]
    if problems:
        raise SpecError(path, list(dict.fromkeys(problems)))
    return samples


def run_sample(ask: Ask, sample: Sample) -> SampleResult:
    """Send a sample and judge its answer."""
    answer = ask(sample.request)
    limit = sample.expect.latency_ms
    for _ in range(LATENCY_TRIES - 1):
        if limit is None or answer.seconds * 1000 <= limit:
            break
        answer = min(answer, ask(sample.request), key=lambda a: a.seconds)
    shown = answer.body[:500].decode(errors="replace")
    problems = tuple(judge(sample, answer))
    return SampleResult(sample.name, answer.status, answer.seconds, problems, shown)


def run_samples(ask: Ask, samples: Sequence[Sample]) -> tuple[SampleResult, ...]:
    """Send every sample, also after one that was not answered as expected."""
    return tuple(run_sample(ask, sample) for sample in samples)


def judge(sample: Sample, answer: Answer) -> list[str]:
    """What is wrong with an answer, each as ``expected ..., found ...``; empty if nothing is."""
    expect = sample.expect
    problems = [] if answer.status == expect.status else [
        f"expected status {expect.status}, found {answer.status}"
    ]  # fmt: skip
    if not problems and answer.status == 200:
        problems = _judge_predictions(expect, answer)
    limit = expect.latency_ms
    if limit is not None and answer.seconds * 1000 > limit:
        problems.append(f"expected at most {limit:g} ms, found {answer.seconds * 1000:.1f} ms")
    return problems


def _judge_predictions(expect: Expectation, answer: Answer) -> list[str]:
    try:
        values = answer.json()["predictions"]
        count = len(values)
    except (ValueError, TypeError, KeyError):
        return ["expected JSON with predictions"]
    problems: list[str] = []
    if expect.predictions is not None and count != expect.predictions:
        problems.append(f"expected {expect.predictions} predictions, found {count}")
    for value in values:
        if expect.labels is not None and value not in expect.labels:
            problems.append(f"expected one of the labels {expect.labels}, found {value!r}")
        if expect.minimum is not None and not (_is_number(value) and value >= expect.minimum):
            problems.append(f"expected at least {expect.minimum:g}, found {value!r}")
        if expect.maximum is not None and not (_is_number(value) and value <= expect.maximum):
            problems.append(f"expected at most {expect.maximum:g}, found {value!r}")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
