import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.definitions import build_definitions
from mlops_assets.strict import SpecError
from resources.environment import Profile, checkout, load_profile
from tests.conftest import Platform
from tests.repository import MODEL_YAML, Repository, make_repository

LOAD = """
import sys
from pathlib import Path
from mlops_assets.definitions import build_definitions
from resources.environment import checkout, load_profile
defs = build_definitions(load_profile({}, Path(sys.argv[1])))
defs.get_repository_def().get_all_jobs()
print(",".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_code_location_loads_without_the_slow_packages(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(repository.path)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "MLOPS_HOME": str(tmp_path / "home")},
    )
    modules = set(done.stdout.strip().split(","))
    assert "dagster" in modules
    slow = {"pandas", "numpy", "sklearn", "scipy", "pyarrow", "duckdb", "matplotlib", "pandera"}
    assert not modules & (slow | {"azure", "dagster_azure", "onnx", "onnxruntime", "skl2onnx"})


LOAD_AZURE = """
import socket, sys
def refused(*_): raise AssertionError("nothing is to be asked")
socket.socket.connect = socket.getaddrinfo = refused
from mlops_assets.definitions import build_definitions
from resources.environment import load_profile
defs = build_definitions(load_profile({"MLOPS_PROFILE": "azure", "MLOPS_HOME": sys.argv[1]}))
keys = defs.resolve_asset_graph().materializable_asset_keys
print(",".join(sorted(key.to_user_string() for key in keys)))
print(",".join(sorted(name for name in sys.modules if name.partition(".")[0] in SLOW)))
"""


def test_the_profile_azure_loads_without_azure_or_a_network(tmp_path: Path) -> None:
    script = LOAD_AZURE.replace(
        "SLOW", str({"azure", "dagster_azure", "adlfs", "msal", "pandas", "pyarrow"})
    )
    variables = {n: v for n, v in os.environ.items() if not n.startswith(("AZURE_", "MLOPS_"))}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        env=variables,
    )
    assets, slow = done.stdout.splitlines()
    assert {"infrastructure/staging", "penguins/production_endpoint"} <= set(assets.split(","))
    assert slow == ""


def test_a_wrong_model_yaml_costs_its_model_alone(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    wrong = MODEL_YAML.replace("nullable", "nullible")
    repository.write("mlops_assets/models/other/model.yaml", wrong)
    graph = build_definitions(load_profile({}, repository.path)).resolve_asset_graph()
    assert dg.AssetKey(["rent", "dataset"]) in graph.get_all_asset_keys()
    left_out = graph.get(dg.AssetKey(["left_out", "other"]))
    assert "data.columns.district.nullible: unknown key" in str(left_out.description)


def _capturing(repository: Repository, **capture: list[str]) -> Profile:
    declared = {"name": "staging", "target": "local", "capture": capture}
    repository.write("environments/local/staging.json", json.dumps(declared))
    return load_profile({}, repository.path)


def test_columns_to_capture_that_no_model_has(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    profile = _capturing(repository, exclude=["District", "flat"], columns=["romms", "xyzzy"])
    with pytest.raises(SpecError) as caught:
        build_definitions(profile)
    assert caught.value.path == str(tmp_path / "environments" / "local")
    assert caught.value.problems == [
        "staging.json: capture.columns: no model has a column 'romms'; perhaps 'rooms'",
        "staging.json: capture.columns: no model has a column 'xyzzy'; write it as model.yaml "
        "does, or leave it out",
        "staging.json: capture.exclude: no model has a column 'District'; perhaps 'district'",
    ]


def test_columns_to_capture_that_some_model_has(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    other = MODEL_YAML.replace("rooms", "doors")
    repository.write("mlops_assets/models/other/model.yaml", other)
    named = ["rooms", "doors", "flat", "rent", "mlops_prediction"]
    build_definitions(_capturing(repository, exclude=named))
    # What a model has that cannot be read is not known.
    repository.write("mlops_assets/models/other/model.yaml", f"wrong: 1\n{other}")
    build_definitions(_capturing(repository, exclude=named))


def test_a_hundred_models_share_the_ops_of_one(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    for number in range(3):
        repository.write(f"mlops_assets/models/rent{number}/model.yaml", MODEL_YAML)
    defs = build_definitions(load_profile({}, repository.path))
    # What makes an op expensive to build is looking at its function; each is looked at once.
    functions = {
        (name.partition("__")[2], node.definition.compute_fn)
        for name, node in ((n.name, n) for n in defs.resolve_implicit_global_asset_job_def().nodes)
    }
    assert len(functions) == len({name for name, _ in functions})


def test_the_assets_of_a_model(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    graph = build_definitions(load_profile({}, repository.path)).resolve_asset_graph()
    names = {
        key.path[1]: sorted(k.path[1] for k in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    assert names == {
        "training_code": [],
        "raw_data": [],
        "experiment": ["raw_data"],
        "dataset": ["raw_data", "training_code"],
        "trained_model": ["dataset", "training_code"],
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
    assert blocking == {
        *("contract", "quality", "champion", "slices", "provenance", "parity", "integrity")
    }


def test_dagster_itself_finds_the_code_location(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=checkout(),
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "MLOPS_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location mlops_assets" in done.stderr + done.stdout


def test_a_launchpad_cannot_swap_what_gates_look_at(released: Platform) -> None:
    job = released.defs.resolve_implicit_global_asset_job_def()
    for name in ("registry", "judge", "io_manager"):
        with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config entry"):
            job.execute_in_process(
                instance=released.instance,
                asset_selection=[dg.AssetKey(["rent", "staging_endpoint"])],
                run_config={"resources": {name: {"config": {"root": "/tmp/other"}}}},
            )
