"""What must hold in a world that has come to rest."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from pathlib import Path

from resources.attempts import Attempt
from resources.registry import Registry, Version
from tests.repository import TRAIN_PY
from tests.world import FOLDER, World

ENVIRONMENTS = ("staging", "production")


def check(world: World) -> None:
    """Every promise of the automation."""
    assert world.unfinished() == []
    registry: Registry = world.resources["registry"]
    versions = registry.versions("rent")
    identities = Counter(v.manifest.identity for v in versions)
    assert [i for i, count in identities.items() if count > 1] == []
    assert [v.mismatched() for v in versions] == [[] for _ in versions]
    assert list((world.home / "artifacts" / "scratch").glob("*")) == []
    # A failing train.py is tried once per change, and what was cut short a few times more.
    assert world.trainings <= 1 + world.changes + world.lost
    _deployments(world, registry)
    _serves(world, registry)


def code_of(version: Version) -> str:
    """The train.py that a version was trained with."""
    return (version.bundle / "code" / FOLDER / "train.py").read_text()


def good(code: str) -> bool:
    """Whether a train.py is one whose models pass the gates."""
    return code.startswith(TRAIN_PY.rstrip())


def _deployments(world: World, registry: Registry) -> None:
    """Each change of what serves is on record once, and nothing that is not good ever served."""
    for environment in ENVIRONMENTS:
        served = [
            record["version"]
            for record in registry.records("rent", "deployments")
            if record["environment"] == environment
        ]
        assert all(a != b for a, b in itertools.pairwise(served)), served
        assert all(good(code_of(registry.version("rent", number))) for number in set(served))
        status = world.serving.status("rent", environment)
        assert (status.version, status.healthy) == ((served[-1], True) if served else (None, False))


def _serves(world: World, registry: Registry) -> None:
    serving = [world.serving.status("rent", environment).version for environment in ENVIRONMENTS]
    releases = [registry.version("rent", r["version"]) for r in _releases(registry)]
    wanted = world.bare.git("show", f"main:{FOLDER}/train.py")
    if good(wanted) and (releases or not _broken_data(world)):
        # The newest code is good: it serves, trained on the newest data that met the contract.
        (number,) = set(serving)
        assert number is not None, "nothing serves"
        version = registry.version("rent", number)
        assert code_of(version).strip() == wanted.strip()
        if not _broken_data(world):
            assert _rows_of(world, version) == _rows(world)
            assert _outcomes(world) == {"succeeded"}
    else:
        assert set(serving) <= _newest_good(releases), "the newest good release does not serve"


def _newest_good(releases: list[Version]) -> set[int | None]:
    """The newest release that is good, or none."""
    newest = [version.version for version in releases if good(code_of(version))]
    return {newest[-1]} if newest else {None}


def _releases(registry: Registry) -> list[dict[str, int]]:
    """The releases, without the further commits of each."""
    found = {r["release"]: r for r in reversed(registry.records("rent", "releases"))}
    assert sorted(found) == list(range(1, len(found) + 1))
    return [found[number] for number in sorted(found)]


def _broken_data(world: World) -> bool:
    return (world.home / "storage" / "rent" / "broken.csv").exists()


def _rows(world: World) -> list[tuple[int, float]]:
    """Flat and rent of everything that lies in the storage."""
    found: list[tuple[int, float]] = []
    for path in (world.home / "storage" / "rent").glob("*.csv"):
        with path.open() as file:
            found += [(int(row["flat"]), float(row["rent"])) for row in csv.DictReader(file)]
    return sorted(found)


def _rows_of(world: World, version: Version) -> list[tuple[int, float]]:
    """Flat and rent of what a version was trained on."""
    import pyarrow.parquet as pq

    folder = world.home / "artifacts" / "snapshots" / version.manifest.snapshot.digest
    table = pq.read_table(folder / "data.parquet", columns=["flat", "rent"])
    return sorted((row["flat"], row["rent"]) for row in table.to_pylist())


def _outcomes(world: World) -> set[str]:
    """How the last attempts ended."""
    paths = Path(world.home / "attempts" / "rent").glob("*.json")
    return {Attempt.model_validate_json(path.read_bytes()).outcome for path in paths}
