from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.scoring.deployments import Deployment, Deployments, Serving
from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.generation import (
    Ack,
    Entry,
    Generation,
    GenerationError,
    GenerationFile,
    read_acks,
    write_ack,
)
from mlops_assets.scoring.mirror import Mirror
from resources.endpoints.base import VersionRef
from tests.bundles import broken, classifier, regression, tried
from tests.local_servers import eventually


def _entry(version: VersionRef, traffic: int = 0, mirror: int = 0) -> Entry:
    return Entry(str(version.bundle), version.digest, version.version, traffic, mirror)


def test_a_generation_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = GenerationFile(tmp_path)
    assert file.read() == Generation(0, {})
    assert not file.changed()
    wanted = Generation().next({"v1": Entry("/bundle", "digest", 1, 100, 5)}, "x-user")
    GenerationFile(tmp_path).write(wanted)
    assert file.changed()
    assert file.read() == wanted
    assert not file.changed()


def test_a_generation_of_before_there_were_copies_is_read(tmp_path: Path) -> None:
    entry = {"bundle": "/bundle", "digest": "digest", "version": 1, "traffic": 100}
    text = json.dumps({"number": 3, "deployments": {"v1": entry}})
    (tmp_path / "generation.json").write_text(text)
    expected = Generation(3, {"v1": Entry("/bundle", "digest", 1, 100, mirror=0)}, None)
    assert GenerationFile(tmp_path).read() == expected


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"number": 1, "deployments": {"v1": {"bundle": "x"}}}',
     '{"number": 1, "deployments": {"v1": {"no": 1}}}', '{"number": "x", "deployments": {}}'],
)  # fmt: skip
def test_a_damaged_generation_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation.json").write_text(text)
    with pytest.raises(GenerationError, match=r"generation\.json: not a generation .* remove this"):
        GenerationFile(tmp_path).read()


def test_acks(tmp_path: Path) -> None:
    ack = Ack(5, 1.5, 7, {"v1": "why"})
    write_ack(tmp_path, ack)
    (tmp_path / "acks" / "6.json").write_text("{")
    assert read_acks(tmp_path) == [ack]


def test_loads_swaps_and_acknowledges(tmp_path: Path) -> None:
    acks: list[tuple[int, set[str], set[str]]] = []

    def acknowledge(serving: Serving) -> None:
        acks.append((serving.number, set(serving.deployments), set(serving.errors)))

    first, second = regression(tmp_path, 1), regression(tmp_path, 2)
    file = GenerationFile(tmp_path)
    deployments = Deployments(GenerationFile(tmp_path), acknowledge)

    async def scenario() -> None:
        file.write(Generation(1, {"v1": _entry(first, 100)}))
        await deployments.update()
        before = deployments.serving
        following = asyncio.create_task(deployments.follow())
        file.write(Generation(2, {"v1": _entry(first, 50), "v2": _entry(second, 50)}))
        while deployments.serving.number != 2 or len(acks) < 2:
            await asyncio.sleep(0.01)
        following.cancel()
        # Not loaded twice; and who still holds the old state is not disturbed.
        assert deployments.serving.pick("v1").predictor is before.pick("v1").predictor
        assert set(before.deployments) == {"v1"}

    asyncio.run(scenario())
    assert acks == [(1, {"v1"}, set()), (2, {"v1", "v2"}, set())]


def test_a_version_that_cannot_be_loaded_leaves_the_others(tmp_path: Path) -> None:
    good, bad, silent = regression(tmp_path, 1), regression(tmp_path, 2), broken(tmp_path, 3)
    (bad.bundle / "model.pkl").write_bytes(b"changed")
    (silent.bundle / "sample.json").write_text("{}")
    deployments = Deployments(GenerationFile(tmp_path))
    entries = {"v1": _entry(good, 100), "v2": _entry(bad), "v3": _entry(silent)}
    GenerationFile(tmp_path).write(Generation(1, entries))
    asyncio.run(deployments.update())
    assert set(deployments.serving.deployments) == {"v1"}
    errors = deployments.serving.errors
    assert "model.pkl: SHA-256" in errors["v2"]
    assert "sample.json: SHA-256" in errors["v3"]
    assert deployments.serving.pick(None).name == "v1"
    with pytest.raises(RequestError, match="could not be loaded"):
        deployments.serving.pick("v2")


def test_a_damaged_generation_keeps_the_last_one_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployments = Deployments(GenerationFile(tmp_path))
    GenerationFile(tmp_path).write(Generation(4, {"v1": _entry(regression(tmp_path, 1), 100)}))
    asyncio.run(deployments.update())
    (tmp_path / "generation.json").write_text("damaged")
    with caplog.at_level(logging.ERROR):
        asyncio.run(deployments.update())
    assert deployments.serving.number == 4
    assert "generation 4 goes on serving" in caplog.text


def test_a_failing_acknowledgement_does_not_end_the_following(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full_disk(_: Serving) -> None:
        raise OSError(28, "No space left on device")

    deployments = Deployments(GenerationFile(tmp_path), full_disk)
    with caplog.at_level(logging.ERROR):
        asyncio.run(deployments.update())
    assert deployments.serving.number == 0
    assert "No space left" in caplog.text


def test_a_discarded_version_is_let_go(tmp_path: Path) -> None:
    version = regression(tmp_path, 1)
    file = GenerationFile(tmp_path)
    deployments = Deployments(GenerationFile(tmp_path))
    file.write(Generation(1, {"v1": _entry(version, 100)}))
    asyncio.run(deployments.update())
    held = deployments.serving
    predictor = weakref.ref(held.pick("v1").predictor)
    file.write(Generation(2, {}))
    asyncio.run(deployments.update())
    gc.collect()
    assert predictor() is not None  # a request in flight holds it
    del held
    gc.collect()
    assert predictor() is None


def test_traffic_follows_the_shares(tmp_path: Path) -> None:
    deployments = Deployments(GenerationFile(tmp_path))
    shares = {1: 75, 2: 25, 3: 0}
    entries = {f"v{n}": _entry(regression(tmp_path, n), share) for n, share in shares.items()}
    GenerationFile(tmp_path).write(Generation(1, entries))
    asyncio.run(deployments.update())
    counts = Counter(deployments.serving.pick(None).name for _ in range(4000))
    assert set(counts) == {"v1", "v2"}
    assert 0.70 < counts["v1"] / 4000 < 0.80  # seven standard deviations


def _shared(*shares: int, sticky: bytes | None = b"x-user") -> Serving:
    """Deployments v1, v2 ... with shares; who picks asks no predictor."""
    predictor: Any = None
    deployments = {
        f"v{n}": Deployment(f"v{n}", Entry("", f"d{n}", n, share), predictor)
        for n, share in enumerate(shares, 1)
    }
    return Serving(1, deployments, sticky=sticky)


@given(
    values=st.lists(st.binary(max_size=40), min_size=1, max_size=50),
    shares=st.tuples(st.integers(1, 99), st.integers(1, 99)),
)
def test_nobody_leaves_a_deployment_whose_share_grows(
    values: list[bytes], shares: tuple[int, int]
) -> None:
    less, more = sorted(shares)
    before, after = _shared(100 - less, less), _shared(100 - more, more)
    for value in values:
        first = before.pick(None, value).name
        assert before.pick(None, value).name == first
        assert _shared(100 - less, less).pick(None, value).name == first  # in any process
        if first == "v2":
            assert after.pick(None, value).name == "v2"


def test_values_are_spread_by_the_shares() -> None:
    values = [b"user %d" % number for number in range(4000)]
    before = [_shared(70, 20, 10).pick(None, value).name for value in values]
    counts = Counter(before)
    for name, share in (("v1", 0.7), ("v2", 0.2), ("v3", 0.1)):
        assert abs(counts[name] / 4000 - share) < 0.04  # five standard deviations
    # As few move as must.
    after = [_shared(55, 20, 25).pick(None, value).name for value in values]
    moves = Counter((one, other) for one, other in zip(before, after, strict=True) if one != other)
    assert moves.total() / 4000 < 0.19
    assert ("v3", "v1") not in moves
    assert ("v3", "v2") not in moves


def test_what_every_request_asks_is_worked_out_before() -> None:
    alone = _shared(100, 0)
    assert alone.only is alone.pick(None) is alone.pick(None, b"anybody")
    assert alone.sticky is None  # nothing is there to decide
    assert alone.pick("v2").name == "v2"
    two = _shared(50, 50)
    assert two.only is None
    assert two.sticky == b"x-user"
    assert _shared(50, 50, sticky=None).sticky is None
    nobody = _shared(0)
    assert nobody.only is None
    with pytest.raises(RequestError, match="no deployment has traffic"):
        nobody.pick(None, b"anybody")


def test_a_version_on_trial_is_counted_by_the_buckets_of_the_oldest(tmp_path: Path) -> None:
    one, two, other = tried(tmp_path, 1), tried(tmp_path, 2), classifier(tmp_path, 3)
    file, deployments = GenerationFile(tmp_path), Deployments(GenerationFile(tmp_path))
    entries = {"v1": _entry(one, 100), "v2": _entry(two), "v3": _entry(other)}
    file.write(Generation(1, entries))
    asyncio.run(deployments.update())
    found = deployments.serving.deployments
    assert found["v1"].reference is None
    assert found["v2"].reference is found["v1"].predictor.schema
    assert found["v2"].reference is not found["v2"].predictor.schema
    assert found["v3"].reference is None  # labels are no numbers
    file.write(Generation(2, {"v2": _entry(two, 100)}))
    asyncio.run(deployments.update())
    assert deployments.serving.deployments["v2"].reference is None


def test_copies_begin_and_end_with_the_generation(tmp_path: Path) -> None:
    one, two = tried(tmp_path, 1), tried(tmp_path, 2)
    file, deployments = GenerationFile(tmp_path), Deployments(GenerationFile(tmp_path))

    def follow(number: int, entry: Entry) -> Mirror | None:
        file.write(Generation(number, {"v1": _entry(one, 100), "v2": entry}))
        asyncio.run(deployments.update())
        return deployments.serving.mirror

    def running() -> int:
        return sum(thread.name == "mirror" for thread in threading.enumerate())

    before = running()
    assert follow(1, _entry(two)) is None
    mirror = follow(2, _entry(two, mirror=20))
    assert mirror is not None
    assert mirror.deployment.name == "v2"
    assert follow(3, _entry(two, mirror=20)) is mirror
    assert follow(4, _entry(two, mirror=30)) is not mirror
    assert follow(5, _entry(two, 10, mirror=30)) is None  # it is asked itself
    eventually(lambda: running() == before)
