from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections import Counter
from pathlib import Path

import pytest

from mlops_assets.scoring.deployments import Deployments, Serving
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
from resources.endpoints.base import VersionRef
from tests.bundles import broken, regression


def _entry(version: VersionRef, traffic: int = 0) -> Entry:
    return Entry(str(version.bundle), version.digest, version.version, traffic)


def test_a_generation_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = GenerationFile(tmp_path)
    assert file.read() == Generation(0, {})
    assert not file.changed()
    wanted = Generation().next({"v1": Entry("/bundle", "digest", 1, 100)})
    GenerationFile(tmp_path).write(wanted)
    assert file.changed()
    assert file.read() == wanted
    assert not file.changed()


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
