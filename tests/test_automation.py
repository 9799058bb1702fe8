"""The conditions, on real assets: what changes is made once, and what is closed waits."""

import datetime as dt
import io
import json
import logging
from typing import Any

import dagster as dg
import pytest

from mlops_assets.approval import decide
from mlops_assets.runs import PROCESS_TAG, process_name
from mlops_assets.sensors.automation import AutomationSensor
from mlops_assets.wiring import build_resources
from resources.attempts import MOST_TRIES, Attempt, Attempts
from resources.registry import Version
from resources.training import LocalTraining
from tests.conftest import Platform
from tests.repository import MODEL_YAML, TRAIN_PY, WORSE_TRAIN_PY, rows

RELEASED = ["dataset", "package", "registered_model", "trained_model"]
DEPLOYED = ["production_endpoint", "staging_endpoint"]
BROKEN = "def build(params):\n    raise ValueError('no idea')\n"


def environment(platform: Platform, name: str, **changes: object) -> None:
    """Change an environment's file; takes effect as after a reload of the code location."""
    path = platform.profile.file_of(name)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    platform.reload()


def test_nothing_is_made_before_anything_is_seen(platform: Platform) -> None:
    assert platform.tick() == []


def test_what_is_seen_is_released_and_deployed(platform: Platform) -> None:
    platform.see()
    assert platform.settle() == [RELEASED, DEPLOYED]
    assert (platform.serves("staging"), platform.serves("production")) == (1, 1)
    platform.see()
    assert platform.settle() == []


def test_another_train_py_skips_the_dataset(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(TRAIN_PY + "\n# the same model\n")
    platform.see()
    assert platform.settle() == [RELEASED[1:], DEPLOYED]
    assert platform.serves("production") == 2
    platform.data(rows(50, start=200), "more.csv")
    platform.see()
    assert platform.settle() == [RELEASED, DEPLOYED]
    assert platform.serves("production") == 3
    # A revert: the version is known, its release is a new one.
    platform.repository.train_py(TRAIN_PY, "revert")
    platform.data("", "more.csv").unlink()
    platform.see()
    assert platform.settle() == [RELEASED, DEPLOYED]
    assert platform.serves("production") == 1
    assert len(platform.registry.versions("rent")) == 3


def test_a_broken_train_py_is_tried_once(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(BROKEN)
    platform.see()
    assert platform.settle() == [RELEASED[1:]]
    assert not platform.result.success
    assert platform.serves("production") == 1
    platform.repository.write("mlops_assets/models/rent/model.yaml", "owner: [")
    platform.repository.commit("not readable")
    # What is loaded here names the assets; what is released is the commit.
    platform.repository.write("mlops_assets/models/rent/model.yaml", MODEL_YAML)
    platform.see()
    assert platform.settle() == [RELEASED]
    assert "not readable as YAML" in platform.failures
    platform.repository.train_py(TRAIN_PY)
    platform.see()
    platform.settle()
    assert platform.serves("production") == 1


def test_bad_data_leaves_everything_as_it_was(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.data("flat,area\n1,2\n", "broken.csv")
    platform.see()
    assert platform.settle() == [RELEASED]
    assert not platform.result.success
    platform.repository.train_py(TRAIN_PY + "\n# another\n")
    platform.see()
    # The newest code is trained on the newest snapshot that met the contract.
    assert platform.settle() == [RELEASED[1:], DEPLOYED]
    assert platform.serves("production") == 2


def test_a_worse_model_waits_at_its_gates(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(WORSE_TRAIN_PY)
    platform.see()
    assert platform.settle() == [RELEASED[1:]]
    assert platform.check("quality").passed is False
    assert platform.serves("staging") == 1


def test_one_environment_may_ask_for_more(platform: Platform) -> None:
    gates = {"rent": {"quality": {"r2": {"minimum": 0.99999}}}}
    environment(platform, "production", gates=gates)
    platform.see()
    assert platform.settle() == [RELEASED, ["staging_endpoint"]]
    assert platform.serves("production") is None
    environment(platform, "production", gates={})
    assert platform.settle() == []
    # Asked again, the gate is open, and that is all it takes.
    assert platform.materialize("registered_model")
    assert platform.settle() == [["production_endpoint"]]


def test_production_waits_for_a_person(platform: Platform) -> None:
    environment(platform, "production", approval="required")
    platform.see()
    assert platform.settle() == [RELEASED, ["staging_endpoint"]]
    assert not platform.materialize("production_endpoint")
    assert "waits for approval" in platform.failures
    by_ada = {"by": "ada", "reason": "looks right"}
    assert platform.materialize("production_approval")
    assert platform.settle() == []
    assert platform.materialize(
        "production_approval", config={"production_approval": {**by_ada, "decision": "rejected"}}
    )
    assert platform.settle() == []
    assert platform.materialize("production_approval", config={"production_approval": by_ada})
    assert platform.settle() == [["production_endpoint"]]
    assert platform.serves("production") == 1


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_rollback_stays_until_the_next_release(platform: Platform, by_hand: bool) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(TRAIN_PY + "\n# second\n")
    platform.see()
    platform.settle()
    assert platform.materialize(
        "production_endpoint", config={"production_endpoint": {"version": 1}}
    )
    assert platform.settle() == []
    assert (platform.serves("staging"), platform.serves("production")) == (2, 1)
    if by_hand:
        assert platform.materialize("production_endpoint")
        assert platform.serves("production") == 2
    else:
        platform.repository.train_py(TRAIN_PY, "revert")
        platform.see()
        assert platform.settle() == [RELEASED[1:], DEPLOYED]
        assert (platform.serves("staging"), platform.serves("production")) == (1, 1)


def look(platform: Platform) -> tuple[list[dg.RunRequest], str]:
    """One tick whose runs are not started: what it asks for, and what its log says."""
    repository = platform.defs.get_repository_def()
    sensor = repository.get_sensor_def("automation")
    assert isinstance(sensor, AutomationSensor)
    sensor.watch_seconds = 0.0
    context = dg.build_sensor_context(
        instance=platform.instance, repository_def=repository, cursor=platform.cursor
    )
    written = io.StringIO()
    context.log.addHandler(logging.StreamHandler(written))
    data = sensor.evaluate_tick(context)
    platform.cursor = data.cursor
    return list(data.run_requests or []), f"{written.getvalue()}{data.skip_message or ''}"


def begun(platform: Platform, process: str, *names: str) -> str:
    """A run of some assets that says it is going on; its id."""
    keys = [dg.AssetKey(["rent", name]) for name in names]
    job = platform.defs.resolve_implicit_global_asset_job_def()
    run = platform.instance.create_run_for_job(
        job_def=job.get_subset(asset_selection=set(keys)),
        asset_selection=frozenset(keys),
        status=dg.DagsterRunStatus.STARTED,
        tags={PROCESS_TAG: process},
    )
    return run.run_id


def attempts(platform: Platform) -> Attempts:
    found = build_resources(platform.profile)["attempts"]
    assert isinstance(found, Attempts)
    return found


def test_a_run_that_goes_on_is_waited_for(platform: Platform) -> None:
    platform.see()
    run_id = begun(platform, process_name(), "trained_model")
    requests, said = look(platform)
    assert requests == []
    assert "rent/dataset: never made from what is there; waits for the run of trained_model" in said
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    platform.instance.report_run_failed(run)
    requests, said = look(platform)
    assert len(requests) == 1
    assert "rent/dataset: never made from what is there" in said
    assert requests[0].tags["mlops/model"] == "rent"
    assert requests[0].tags["mlops/trigger"] == "raw_data, contract"


def test_a_run_whose_process_is_gone_is_not_waited_for(platform: Platform) -> None:
    platform.see()
    run_id = begun(platform, f"{2**22 + 1}@1.00", *RELEASED)
    requests, said = look(platform)
    assert [sorted(k.path[-1] for k in r.asset_selection or []) for r in requests] == [RELEASED]
    assert f"run {run_id} had no process any more and is marked as failed" in said
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE


def test_what_is_cut_short_is_tried_again_a_few_times(platform: Platform) -> None:
    platform.see()
    key = dg.AssetKey(["rent", "dataset"])
    for tries in range(1, MOST_TRIES + 1):
        requests, said = look(platform)
        assert len(requests) == 1
        assert ("cut short" in said) == (tries > 1)
        asked = attempts(platform).last(key)
        assert asked is not None
        assert (asked.outcome, asked.tries) == ("requested", tries)
        attempts(platform).write(key, asked.model_copy(update={"outcome": "started"}))
    for _ in range(2):
        requests, said = look(platform)
        assert requests == []
        assert "rent/dataset: given up after 3 runs that were cut short; see their logs" in said
    platform.data(rows(10, start=300), "more.csv")
    platform.see()
    requests, said = look(platform)
    assert "rent/dataset: raw_data changed" in said
    assert [sorted(k.path[-1] for k in r.asset_selection or []) for r in requests] == [RELEASED]


def test_changes_during_a_run_give_one_more(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, changes = LocalTraining.run, iter([1, 2])

    def meanwhile(*arguments: Any) -> None:
        for number in changes:  # only while the first one trains
            platform.repository.train_py(f"{TRAIN_PY}\n# {number}\n")
            platform.data(rows(10, start=300 * number), f"{number}.csv")
            platform.see()
            assert look(platform)[0] == []
        original(*arguments)

    monkeypatch.setattr(LocalTraining, "run", meanwhile)
    platform.see()
    assert platform.tick() == [RELEASED]
    # And one that comes after its last step, before the next tick.
    platform.repository.train_py(f"{TRAIN_PY}\n# 3\n")
    platform.see()
    assert sorted(platform.tick()) == [RELEASED, DEPLOYED]
    # Deployed is what was newest when that began: which of the two came first does not matter.
    assert platform.settle() in ([], [DEPLOYED])
    assert (platform.serves("staging"), platform.serves("production")) == (2, 2)
    assert len(platform.registry.versions("rent")) == 2
    newest = platform.registry.version("rent", 2).manifest
    assert newest.snapshot.rows == 220
    assert newest.source.commit == platform.repository.git("rev-parse", "HEAD")


def test_an_approval_that_does_not_fit_triggers_nothing(platform: Platform) -> None:
    environment(platform, "production", approval="required")
    production = platform.profile.environment("production")
    assert platform.materialize(*RELEASED), platform.failures
    registry = platform.registry
    version = registry.version("rent", 1)

    def approve(what: Version, **options: Any) -> None:
        decide(registry, what, production, "approved", by="ada", reason="r", **options)

    # Before staging, where this release did not get through.
    platform.see()
    staging = dg.AssetKey(["rent", "staging_endpoint"])
    attempts(platform).write(staging, Attempt(inputs={"release": "1"}, outcome="failed"))
    approve(version)
    requests, said = look(platform)
    assert requests == []
    assert "rent/production_endpoint: version 1 has not served staging yet" in said
    attempts(platform).forget(staging)
    decide(registry, version, production, "rejected", by="ada", reason="wait")
    assert platform.settle() == [["staging_endpoint"]]
    other = Version("rent", 1, "0" * 64, version.bundle)
    approve(other)
    assert look(platform)[0] == []
    approve(version, expires=dt.timedelta(microseconds=1))
    requests, said = look(platform)
    assert requests == []
    assert "the approval by ada has expired at" in said
    assert not platform.materialize("production_endpoint")
    approve(version)
    assert platform.settle() == [["production_endpoint"]]


def test_an_approval_that_is_taken_back_in_time(platform: Platform) -> None:
    environment(platform, "production", approval="required")
    production = platform.profile.environment("production")
    platform.see()
    platform.settle()
    version = platform.registry.version("rent", 1)
    decide(platform.registry, version, production, "approved", by="ada", reason="r")
    requests, _ = look(platform)
    assert [r.asset_selection for r in requests] == [[dg.AssetKey(["rent", "production_endpoint"])]]
    decide(platform.registry, version, production, "rejected", by="grace", reason="no")
    # The run that was asked for comes to the endpoint after that.
    assert not platform.materialize("production_endpoint")
    assert "rejected by grace: no" in platform.failures
    assert platform.settle() == []
    assert platform.serves("production") is None


def test_gates_that_a_later_run_did_not_come_to(platform: Platform) -> None:
    """Their last answer counts, whatever was planned since, and never came about."""
    assert platform.materialize(*RELEASED), platform.failures
    run_id = begun(platform, process_name(), *RELEASED)
    platform.see()
    requests, _ = look(platform)
    assert [sorted(k.path[-1] for k in r.asset_selection or []) for r in requests] == [DEPLOYED]
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    platform.instance.report_run_failed(run)
    for name in DEPLOYED:
        attempts(platform).forget(dg.AssetKey(["rent", name]))
    assert len(look(platform)[0]) == 1


def test_a_good_release_is_not_overtaken_by_a_worse_one(platform: Platform) -> None:
    platform.see()
    platform.settle()
    platform.repository.train_py(TRAIN_PY + "\n# better\n")
    platform.see()
    assert platform.tick() == [RELEASED[1:]]
    # Registered before the good one is deployed.
    platform.repository.train_py(WORSE_TRAIN_PY)
    platform.materialize("trained_model", "registered_model")
    assert platform.settle()[-1] == DEPLOYED
    assert (platform.serves("staging"), platform.serves("production")) == (2, 2)
