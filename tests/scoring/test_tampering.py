"""One bit flipped anywhere in a bundle: refused by name, and nothing of it was loaded."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.scoring.deployments import Deployments
from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.generation import Entry, Generation, GenerationFile
from mlops_assets.scoring.standalone import check
from mlops_assets.scoring.verify import verify
from resources.endpoints.base import EndpointError, VersionRef
from resources.endpoints.local import LocalSettings
from tests.bundles import NUMBERS, exported, regression, write_manifest
from tests.local_servers import local_endpoints
from tests.standalone_servers import KEYS, refused

NAMES = ("model.onnx", "model.pkl", "manifest.json", "sample.json")


class Marker:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


class Loaded:
    """A version whose pickle tells that it was loaded."""

    def __init__(self, version: VersionRef, folder: Path) -> None:
        self.marker = folder / "unpickled"
        self.bundle = version.bundle
        (self.bundle / "model.pkl").write_bytes(pickle.dumps(Marker(self.marker)))
        digest = write_manifest(self.bundle, NUMBERS, None)
        self.version = VersionRef("tiny", 1, digest, self.bundle)

    @contextmanager
    def flipped(self, name: str, place: float, bit: int) -> Iterator[None]:
        """One bit of one file is another one; nothing was unpickled in the end."""
        path = self.bundle / name
        good = path.read_bytes()
        bad = bytearray(good)
        bad[int(place * len(bad))] ^= 1 << bit
        path.write_bytes(bad)
        try:
            yield
        finally:
            path.write_bytes(good)
        assert not self.marker.exists()


@pytest.fixture(scope="module", params=["onnx", "pickle"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("bundle")
    return Loaded((exported if request.param == "onnx" else regression)(folder, 1), folder)


def errors_of_a_server(version: VersionRef, folder: Path) -> dict[str, str]:
    """What an endpoint's worker says of a version that it is to load."""
    file = GenerationFile(folder)
    file.write(Generation(1, {"v1": Entry(str(version.bundle), version.digest, 1, 100)}))
    deployments = Deployments(file)
    asyncio.run(deployments.update())
    assert not deployments.serving.deployments
    return deployments.serving.errors


@given(
    data=st.data(),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_any_bit(
    loaded: Loaded,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    place: float,
    bit: int,
) -> None:
    name = data.draw(st.sampled_from([n for n in NAMES if (loaded.bundle / n).exists()]))
    version = loaded.version
    with loaded.flipped(name, place, bit):
        with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
            check(version.bundle, version.digest)
        report = verify(version.bundle, version.digest)
        assert (report["mismatched"], report["loads"]) == ([name], False)
        if name != "sample.json":  # it is no model: read, and checked, once the model is loaded
            (error,) = errors_of_a_server(version, tmp_path_factory.getbasetemp()).values()
            assert error.startswith("IntegrityError: ")
            assert f"{name}: SHA-256 is" in error


@pytest.mark.parametrize(
    ("loaded", "name"),
    [
        ("onnx", "model.onnx"),
        ("onnx", "model.pkl"),
        ("onnx", "manifest.json"),
        ("pickle", "model.pkl"),
        ("pickle", "manifest.json"),
    ],
    indirect=["loaded"],
)
def test_an_endpoint_and_a_standalone_server(loaded: Loaded, tmp_path: Path, name: str) -> None:
    version = loaded.version
    with loaded.flipped(name, 0.5, 0):
        with (
            local_endpoints(tmp_path / "endpoints") as endpoints,
            endpoints.open("tiny", "staging", LocalSettings()) as target,
            pytest.raises(EndpointError, match=rf"cannot be loaded: .*{name}: SHA-256 is"),
        ):
            target.stage(version)
        code, line = refused("--bundle", version.bundle, "--digest", version.digest, **KEYS)
        assert (code, name in line) == (6, True)


def test_the_marker_works(tmp_path: Path) -> None:
    """Untouched, the pickle is loaded, and tells."""
    loaded = Loaded(regression(tmp_path, 1), tmp_path)
    version = loaded.version
    assert check(version.bundle, version.digest) == version.digest
    errors_of_a_server(version, tmp_path)
    assert loaded.marker.exists()


def test_what_may_be_missing(tmp_path: Path) -> None:
    """The model that is not served from; nothing else."""
    version = exported(tmp_path, 1)
    (version.bundle / "model.pkl").unlink()
    assert check(version.bundle, version.digest) == version.digest
    (version.bundle / "sample.json").unlink()
    with pytest.raises(IntegrityError, match=r"sample\.json: No such file .*; the manifest names"):
        check(version.bundle, version.digest)
