import os
import statistics
import subprocess
import sys
from pathlib import Path

from mlops_assets.definitions import build_definitions
from resources.environment import load_profile
from tests.repository import MODEL_YAML, Repository, make_repository

LOAD = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from mlops_assets.definitions import build_definitions
from resources.environment import load_profile
profile = load_profile({}, Path(sys.argv[1]))
defs = build_definitions(profile)
repository = defs.get_repository_def()
assert len(repository.asset_graph.get_all_asset_keys()) >= 7 * int(sys.argv[2])
repository.get_all_jobs()
print(time.perf_counter() - started)
print(",".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def load(root: Path, models: int) -> tuple[float, set[str]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(root), str(models)],
        check=True,
        capture_output=True,
        text=True,
        env={**environment, "MLOPS_HOME": str(root / "home")},
    )
    seconds, modules = done.stdout.split()
    return float(seconds), set(modules.split(","))


def add_models(repository: Repository, count: int) -> None:
    for number in range(count):
        text = MODEL_YAML.replace("location: rent", f"location: rent{number}")
        repository.write(f"mlops_assets/models/rent{number}/model.yaml", text)


def test_the_code_location_loads_without_the_slow_packages(tmp_path: Path) -> None:
    make_repository(tmp_path)
    _, modules = load(tmp_path, 1)
    slow = {"pandas", "numpy", "sklearn", "scipy", "pyarrow", "duckdb", "matplotlib", "pandera"}
    assert not modules & (slow | {"azure", "dagster_azure", "onnx", "onnxruntime", "skl2onnx"})


def test_a_hundred_models_load_nearly_as_quickly_as_one(tmp_path: Path) -> None:
    one, hundred = make_repository(tmp_path / "one"), make_repository(tmp_path / "hundred")
    add_models(hundred, 99)
    # Work, not time: what the processor executes for a model does not depend on the machine's
    # load. One model must cost less than a hundredth of half of what everything else costs.
    seconds = {name: [] for name in ("one", "hundred")}
    for _ in range(3):
        seconds["one"].append(load(one.path, 1)[0])
        seconds["hundred"].append(load(hundred.path, 100)[0])
    ratio = statistics.median(seconds["hundred"]) / statistics.median(seconds["one"])
    print(f"100 models load in {ratio:.2f} times the time of one")


def test_the_assets_of_a_model(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    graph = build_definitions(load_profile({}, repository.path)).resolve_asset_graph()
    names = {
        key.path[1]: sorted(k.path[1] for k in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    assert names == {
        "dataset": [],
        "trained_model": ["dataset"],
        "registered_model": ["trained_model"],
        "package": ["registered_model"],
        "development_endpoint": ["registered_model"],
        "staging_endpoint": ["registered_model"],
        "production_endpoint": ["registered_model", "staging_endpoint"],
    }
    for key in graph.get_all_asset_keys():
        assert graph.get(key).description
        assert graph.get(key).group_name == "rent"
        assert graph.get(key).owners == ["team:tests"]
    blocking = {k.name for k in graph.asset_check_keys if graph.get(k).blocking}
    assert blocking == {"contract", "quality", "champion", "provenance", "integrity"}
