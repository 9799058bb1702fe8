import json
from typing import Any

import pytest
from pydantic import ValidationError

from mlops_assets.strict import describe_errors
from resources.environment import Environment
from resources.traffic import Limits


def parse(traffic: Any) -> Environment:
    content = {"name": "staging", "target": "local", "traffic": traffic}
    return Environment.model_validate_json(json.dumps(content))


def test_all_at_once_by_default() -> None:
    content = '{"name": "staging", "target": "local"}'
    traffic = Environment.model_validate_json(content).traffic
    assert [(step.percent, step.seconds) for step in traffic.steps] == [(100, 0)]
    assert (traffic.sticky_header, traffic.mirror_percent, traffic.mirror_seconds) == (None, 0, 0)
    assert traffic.limits == Limits()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"percent": 10, "seconds": 30}], [(10, 30), (100, 0)]),
        ([{"percent": 10, "seconds": 1.5}, {"percent": 50}], [(10, 1.5), (50, 0), (100, 0)]),
        ([{"percent": 5}, {"percent": 100, "seconds": 60}], [(5, 0), (100, 60)]),
        ([], [(100, 0)]),
    ],
)
def test_all_the_traffic_follows_the_last_step(
    steps: list[Any], expected: list[tuple[int, float]]
) -> None:
    found = parse({"steps": steps}).traffic.steps
    assert [(step.percent, step.seconds) for step in found] == expected


def test_a_header_is_known_in_lower_case() -> None:
    assert parse({"sticky_header": "X-User-Id"}).traffic.sticky_header == "x-user-id"


@pytest.mark.parametrize(
    ("traffic", "problem"),
    [
        ({"steps": [{"percent": 50}, {"percent": 20}]}, "traffic.steps: the percents must rise, "),
        ({"steps": [{"percent": 20}, {"percent": 20}]}, "traffic.steps: the percents must rise, "),
        ({"steps": [{"percent": 0}]}, "traffic.steps.0.percent: input should be greater"),
        ({"steps": [{"percent": 101}]}, "traffic.steps.0.percent: input should be less"),
        ({"steps": [{"percent": 9, "second": 3}]}, "traffic.steps.0.second: unknown key; "),
        ({"steps": [{"percent": 9, "seconds": -1}]}, "traffic.steps.0.seconds: input should be"),
        ({"mirror_percent": 51, "mirror_seconds": 9}, "traffic.mirror_percent: input should be"),
        ({"mirror_percent": 5}, "traffic: mirror_percent and mirror_seconds must be given toget"),
        ({"mirror_seconds": 5}, "traffic: mirror_percent and mirror_seconds must be given toget"),
        ({"sticky_header": "no header"}, "traffic.sticky_header: string should match"),
        ({"limits": {"p95": 2}}, "traffic.limits.p95: unknown key; allowed here: minimum_requ"),
        ({"limits": {"too_few": "wait"}}, "traffic.limits.too_few: input should be 'continue' or"),
    ],
)
def test_each_mistake_is_named(traffic: Any, problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(traffic)
    (line,) = describe_errors(caught.value, Environment)
    assert line.startswith(problem), line
