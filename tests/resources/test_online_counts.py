"""Counts of an online deployment's instances, of which nobody can ask a certain one."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from resources.endpoints.azureml_counts import MOST, Instances
from resources.endpoints.base import Answer, Counts, EndpointError, Request, summed


class Replicas:
    """A deployment: whichever instance is drawn answers for itself."""

    def __init__(self, **answered: int) -> None:
        self.answered = answered
        self.asked: Counter[str] = Counter()
        self._random = random.Random(7)

    def ask(self, _: str, request: Request) -> Answer:
        """As a server does."""
        assert json.loads(request.body) == {"metrics": True}
        instance = self._random.choice(sorted(self.answered))
        self.asked[instance] += 1
        count = self.answered[instance]
        text = f"""\
# TYPE mlops_requests_total counter
mlops_requests_total{{deployment="v1",status="200"}} {count}
# TYPE mlops_predictions_total counter
mlops_predictions_total{{deployment="v1",bucket="0"}} {count}
# TYPE mlops_compared_predictions_total counter
mlops_compared_predictions_total{{deployment="v1",bucket="3"}} {count}
"""
        told = {"instance": instance, "deployment": "v1", "edges": [1, 2], "metrics": text}
        return Answer(200, json.dumps(told).encode(), {}, 0.01)


def test_the_sum_of_all() -> None:
    replicas = Replicas(a=3, b=40, c=500)
    instances = Instances(replicas.ask)
    assert instances.counts("v1-x", oldest=True).answered == 543
    replicas.answered["b"] = 50
    assert instances.counts("v1-x", oldest=True).answered == 553
    assert instances.one("v1-x").edges == (1.0, 2.0)


def test_the_oldest_counts_by_its_own_buckets_the_others_by_the_oldests() -> None:
    instances = Instances(Replicas(a=3).ask)
    assert instances.counts("v1-x", oldest=True).predictions == {"0": 3}
    assert instances.counts("v1-x", oldest=False).predictions == {"3": 3}


def test_what_is_gone_stays_counted_and_is_not_waited_for_twice() -> None:
    replicas = Replicas(a=3, b=40)
    instances = Instances(replicas.ask)
    assert instances.counts("v1-x", oldest=True).answered == 43
    del replicas.answered["b"]
    replicas.answered["c"] = 1  # one that was started anew
    assert instances.counts("v1-x", oldest=True).answered == 44
    replicas.asked.clear()
    assert instances.counts("v1-x", oldest=True).answered == 44
    assert replicas.asked.total() < MOST


def test_one_instance_is_asked_a_few_times() -> None:
    replicas = Replicas(a=3)
    Instances(replicas.ask).counts("v1-x", oldest=True)
    assert replicas.asked.total() <= 8


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, b"{}", "it answers 400; its image must be of this platform's version"),
        (200, b"nothing", "no answer to"),
        (200, b'{"predictions": [1]}', "no answer to"),
        (200, b"[]", "no answer to"),
    ],
)
def test_a_server_that_knows_no_such_question(status: int, body: bytes, text: str) -> None:
    def ask(_: str, __: Request) -> Answer:
        return Answer(status, body, {}, 0.01)

    instances = Instances(ask)
    with pytest.raises(EndpointError, match=text):
        instances.counts("v1-x", oldest=True)


def test_sums() -> None:
    one = Counts(1, 2, 3, {0.1: 4, 0.2: 1}, {"a": 1})
    two = Counts(10, 20, 30, {0.1: 40}, {"b": 2})
    assert summed([one, two]) == Counts(11, 22, 33, {0.1: 44, 0.2: 1}, {"a": 1, "b": 2})
    assert summed([]) == Counts()
