"""The automation's sensor: how models share sensors, and how runs are parted."""

import logging
from pathlib import Path

import dagster as dg

from mlops_assets.automation import Tick
from mlops_assets.sensors.automation import MOST_ASSETS, AutomationSensor, split_by_model
from resources.environment import load_profile
from tests.conftest import Platform
from tests.repository import MODEL_YAML, TRAIN_PY, make_repository, rows
from tests.test_automation import DEPLOYED, RELEASED


def test_a_hundred_models_in_several_sensors(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "clone")
    names = ["rent", *(f"rent{number:02}" for number in range(99))]
    for name in names[1:]:
        repository.write(f"mlops_assets/models/{name}/model.yaml", MODEL_YAML)
        repository.write(f"mlops_assets/models/{name}/train.py", TRAIN_PY)
    repository.commit("many models")
    profile = load_profile({"MLOPS_HOME": str(tmp_path / "home")}, repository.path)
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        platform = Platform(repository, profile, instance)
        platform.data(rows(20))
        platform.see()
        located = platform.defs.get_repository_def()
        sensors = [s for s in located.sensor_defs if isinstance(s, AutomationSensor)]
        assert [sensor.name for sensor in sensors] == ["automation", "automation_2"]
        asked: list[list[str]] = []
        for sensor in sensors:
            chosen = sensor.asset_selection.resolve(located.asset_graph)
            conditions = [k for k in chosen if located.asset_graph.get(k).automation_condition]
            assert len(conditions) <= MOST_ASSETS
            sensor.watch_seconds = 0.0
            context = dg.build_sensor_context(instance=instance, repository_def=located)
            requests = sensor.evaluate_tick(context).run_requests or []
            asked += [sorted(k.path[-1] for k in r.asset_selection or []) for r in requests]
            assert {len({k.path[0] for k in r.asset_selection or []}) for r in requests} == {1}
            assert {r.tags["mlops/model"] for r in requests} == {k.path[0] for k in conditions}
        assert asked == [RELEASED] * 100


def test_one_run_per_model_and_pipeline() -> None:
    keys = [
        dg.AssetKey([model, name]) for model in ("rent", "sales") for name in RELEASED + DEPLOYED
    ]
    changed = {keys[3]: {"training_code": "a", "dataset": "b"}}
    changed |= {key: {"release": "1"} for key in keys[4:6]}  # of rent
    changed |= {keys[10]: {"release": "4"}, keys[11]: {"release": "5"}}  # one waited for a person
    tick = Tick(logging.getLogger("tick"), set(), changed)
    request = dg.RunRequest(asset_selection=keys, tags={"kept": "yes"})
    found = [(r.tags, len(r.asset_selection or [])) for r in split_by_model(request, tick)]
    tags = {"kept": "yes", "mlops/model": "rent"}
    deployed = {**tags, "mlops/model": "sales", "mlops/trigger": "release"}
    assert found == [
        ({**tags, "mlops/trigger": "training_code, dataset"}, 4),
        ({**tags, "mlops/trigger": "release", "mlops/release": "1"}, 2),
        ({**tags, "mlops/model": "sales", "mlops/trigger": ""}, 4),
        ({**deployed, "mlops/release": "4"}, 1),
        ({**deployed, "mlops/release": "5"}, 1),
    ]
