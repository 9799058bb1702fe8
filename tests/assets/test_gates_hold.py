"""A version whose gates are closed serves nowhere, whichever way somebody tries."""

import json
from pathlib import Path

import pytest

from mlops_assets.files import read_json, to_json
from mlops_assets.scoring.signature import sign
from tests.conftest import CHAIN, RELEASE, Platform
from tests.repository import MODEL_YAML, SAMPLES, TRAIN_PY, WORSE_TRAIN_PY, rows
from tests.signing_keys import write_key


def serve_a_good_version(platform: Platform) -> None:
    """Serve version 1, which the fixture ``released`` has in its registry, or make it."""
    names = CHAIN[3:] if platform.registry.versions("rent") else CHAIN
    assert platform.materialize(*names), platform.failures
    assert platform.serves("staging") == platform.serves("production") == 1


def release_a_worse_one(platform: Platform) -> None:
    platform.repository.train_py(WORSE_TRAIN_PY)
    assert not platform.materialize(*RELEASE)
    assert not platform.check("quality").passed
    assert not platform.check("champion").passed
    assert platform.check("provenance").passed
    assert not platform.check("gate_staging").passed
    # Bad work may be tried out where nobody relies on it.
    assert platform.check("gate_development").passed


def test_the_whole_chain_and_again_without_a_change(platform: Platform) -> None:
    serve_a_good_version(platform)
    assert platform.metadata("trained_model")["r2"] > 0.9
    assert "data:image/png;base64," in platform.metadata("trained_model")["evaluation"]
    assert "What a flat costs." in platform.metadata("registered_model")["card"]
    assert platform.metadata("production_endpoint")["outcome"] == "deployed"
    assert all(platform.checks.values()), platform.checks
    assert str(platform.check("parity").description).startswith("open: greatest difference")
    version = platform.registry.version("rent", 1)
    assert (version.bundle / "model.onnx").is_file()
    assert version.manifest.serving.format == "onnx"
    assert version.manifest.serving.ranges == "warn"
    assert len(version.manifest.predictions or []) == 9
    assert "| served from | ONNX |" in platform.metadata("registered_model")["card"]
    assert "ONNX agrees with the pickle" in platform.metadata("trained_model")["parity"]
    assert platform.materialize(*CHAIN), platform.failures
    assert platform.metadata("production_endpoint")["outcome"] == "unchanged"
    assert len(platform.registry.versions("rent")) == 1
    assert len(platform.registry.records("rent", "releases")) == 1
    assert len(platform.registry.records("rent", "deployments")) == 2


def test_a_worse_version_by_every_way(released: Platform) -> None:
    serve_a_good_version(released)
    release_a_worse_one(released)
    # A single materialization, started by hand after the failed check.
    assert not released.materialize("staging_endpoint")
    assert "rent version 2 in staging is refused, closed gates: quality" in released.failures
    # A selection that leaves out the asset with the gates.
    assert not released.materialize("dataset", "trained_model", "staging_endpoint")
    assert "rent version 2 in staging is refused" in released.failures
    # The same in one run, and past staging.
    assert not released.materialize(*CHAIN)
    assert not released.materialize("production_endpoint")
    assert "promotion: version 2 has not served staging yet" in released.failures
    # As a package.
    assert not released.materialize("package")
    assert "package rent-2 is refused" in released.failures
    # By its number.
    config = {"staging_endpoint": {"version": 2}}
    assert not released.materialize("staging_endpoint", config=config)
    assert released.serves("staging") == released.serves("production") == 1
    # Where everything goes, it goes.
    assert released.materialize("development_endpoint"), released.failures
    assert released.serves("development") == 2


def test_files_changed_on_disk(released: Platform) -> None:
    serve_a_good_version(released)
    released.repository.train_py(TRAIN_PY + "\n# another tree\n")
    assert released.materialize(*RELEASE), released.failures
    bundle = released.registry.version("rent", 2).bundle
    pickle = bundle / "model.pkl"
    content = pickle.read_bytes()
    pickle.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not released.materialize("staging_endpoint")
    assert "files differ from what was registered: model.pkl" in released.failures
    # Nor does it help to make the evidence and the manifest say so.
    pickle.write_bytes(content)
    evidence = read_json(bundle / "evidence.json")
    evidence["metrics"]["r2"]["lower"] = 1.0
    (bundle / "evidence.json").write_text(to_json(evidence))
    assert not released.materialize("staging_endpoint")
    assert "evidence.json" in released.failures
    (bundle / "manifest.json").write_text(json.dumps({"identity": "x", "files": {}}))
    assert not released.materialize("staging_endpoint")
    assert "manifest.json" in released.failures
    assert released.serves("staging") == released.serves("production") == 1


def test_a_champion_that_changed_between_release_and_deployment(released: Platform) -> None:
    # Version 2 is fair enough for its own gates, and nothing serves production yet ...
    text = MODEL_YAML.replace("minimum: 0.5", "minimum: 0.1")
    released.repository.write("mlops_assets/models/rent/model.yaml", text)
    released.repository.train_py(TRAIN_PY.replace('alpha=params["alpha"]', "alpha=300000.0"))
    assert released.materialize(*RELEASE), released.failures
    assert "no version serves production yet" in str(released.check("champion").description)
    # ... then version 1, which is much better, goes to production ...
    config = {name: {"version": 1} for name in ("staging_endpoint", "production_endpoint")}
    assert released.materialize(*config, config=config), released.failures
    # ... and version 2 is judged against that one, by a comparison made now.
    assert released.registry.records("rent", "comparisons") == []
    assert not released.materialize("staging_endpoint")
    assert "closed gates: champion: r2" in released.failures
    assert "of version 1" in released.failures
    assert len(released.registry.records("rent", "comparisons")) == 1
    assert released.serves("staging") == 1


def test_a_rollback_to_a_version_that_served(released: Platform) -> None:
    serve_a_good_version(released)
    released.data(rows(300, start=200, noise=5.0), "more.csv")
    assert released.materialize(*CHAIN), released.failures
    assert released.serves("production") == 2
    config = {"production_endpoint": {"version": 1}}
    assert released.materialize("production_endpoint", config=config), released.failures
    assert released.serves("production") == 1
    assert "a rollback" in released.metadata("production_endpoint")["verdicts"]
    served = [r["version"] for r in released.registry.records("rent", "deployments")]
    assert served == [1, 1, 2, 2, 1]
    # A rollback skips the comparison alone.
    pickle = released.registry.version("rent", 2).bundle / "model.pkl"
    pickle.write_bytes(b"")
    config = {"production_endpoint": {"version": 2}}
    assert not released.materialize("production_endpoint", config=config)
    assert released.serves("production") == 1


def test_uncommitted_work_serves_in_development_alone(released: Platform) -> None:
    released.repository.write("mlops_assets/models/rent/train.py", TRAIN_PY + "\n# not yet\n")
    assert released.materialize(*RELEASE), released.failures
    clean = released.metadata("trained_model")
    assert not clean["dirty"]
    config = {"dataset": {"dirty": True}, "trained_model": {"dirty": True}}
    names = (*RELEASE, "development_endpoint")
    assert released.materialize(*names, config=config), released.failures
    assert released.metadata("trained_model")["dirty"]
    assert not released.check("provenance").passed
    assert released.serves("development") == 2
    for name in ("staging_endpoint", "package"):
        assert not released.materialize(name)
        assert "trained from uncommitted files" in released.failures


def test_a_commit_of_another_branch_is_refused(released: Platform) -> None:
    released.repository.git("checkout", "--quiet", "-b", "feature")
    commit = released.repository.train_py(TRAIN_PY + "\n# a feature\n")
    released.repository.git("checkout", "--quiet", "main")
    config = {"dataset": {"commit": commit}, "trained_model": {"commit": commit}}
    assert not released.materialize(*CHAIN, config=config)
    assert not released.check("provenance").passed
    assert released.serves("staging") is None


def test_an_environment_that_asks_for_more(released: Platform) -> None:
    released.repository.write(
        "environments/local/production.json",
        '{"name": "production", "target": "local", "promotes_from": "staging",'
        ' "gates": {"rent": {"quality": {"r2": {"minimum": 0.9999}}}}}',
    )
    from resources.environment import load_profile

    home = {"MLOPS_HOME": str(released.profile.home)}
    released.profile = load_profile(home, released.repository.path)
    assert not released.materialize(*CHAIN)
    assert released.check("quality").passed
    assert released.check("gate_staging").passed
    assert not released.check("gate_production").passed
    assert released.serves("staging") == 1
    assert "rent version 1 in production is refused, closed gates: quality: r2" in released.failures


def test_an_environment_that_asks_for_a_signature(
    released: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released.repository.write(
        "environments/local/production.json",
        '{"name": "production", "target": "local", "promotes_from": "staging",'
        ' "signing": {"public_key": "RELEASE_KEY"}}',
    )
    from resources.environment import load_profile

    home = {"MLOPS_HOME": str(released.profile.home)}
    released.profile = load_profile(home, released.repository.path)
    private, public = write_key(tmp_path, "release")
    _, other = write_key(tmp_path, "other")
    assert not released.materialize(*CHAIN)
    assert released.serves("staging") == 1  # it does not ask
    assert "environment variable RELEASE_KEY: is not set" in released.failures
    monkeypatch.setenv("RELEASE_KEY", public)
    assert not released.materialize("production_endpoint")
    assert "signatures/1.sig: not there: the version is not signed" in released.failures
    version = released.registry.version("rent", 1)
    sign(version.bundle, version.digest, private, released.registry.signature("rent", 1))
    assert version.mismatched() == []
    assert released.materialize("production_endpoint"), released.failures
    # It serves already, and is checked all the same.
    monkeypatch.setenv("RELEASE_KEY", other)
    assert not released.materialize("production_endpoint")
    assert "signatures/1.sig: signed with another key" in released.failures
    assert released.serves("production") == 1


OWN_STEP_PY = """\
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline


class Area(TransformerMixin, BaseEstimator):
    def fit(self, x, y=None):
        return self

    def transform(self, x):
        return x[["area"]].to_numpy()


def build(params):
    return make_pipeline(Area(), Ridge())
"""


def test_a_step_of_the_model_s_own_serves_from_the_pickle(platform: Platform) -> None:
    platform.repository.train_py(OWN_STEP_PY)
    assert platform.materialize(*RELEASE, "staging_endpoint"), platform.failures
    assert platform.serves("staging") == 1
    version = platform.registry.version("rent", 1)
    assert not (version.bundle / "model.onnx").exists()
    assert version.manifest.serving.format == "pickle"
    description = str(platform.check("parity").description)
    assert description.startswith("not applicable: serves from the pickle: skl2onnx does not")
    # Who will have nothing but ONNX is told why there is none.
    yaml = MODEL_YAML + "serving: {format: onnx}\n"
    platform.repository.write("mlops_assets/models/rent/model.yaml", yaml)
    platform.repository.commit("ONNX or nothing")
    assert not platform.materialize(*RELEASE)
    assert "closed: model.yaml says serving.format: onnx, and skl2onnx does not" in str(
        platform.check("parity").description
    )
    assert not platform.check("gate_development").passed
    for name in ("staging_endpoint", "development_endpoint"):
        assert not platform.materialize(name)
        assert "closed gates: parity: model.yaml says serving.format: onnx" in platform.failures


def test_an_environment_that_wants_onnx_to_be_closer(released: Platform) -> None:
    released.repository.write(
        "environments/local/staging.json",
        '{"name": "staging", "target": "local",'
        ' "gates": {"rent": {"parity": {"tolerance": 1e-12}}}}',
    )
    released.reload()
    assert not released.materialize("staging_endpoint")
    assert "closed gates: parity: greatest difference" in released.failures
    assert "tolerance 1e-12" in released.failures


def test_a_sample_that_fails_discards_the_new_version(released: Platform) -> None:
    serve_a_good_version(released)
    released.repository.train_py(TRAIN_PY + "\n# another tree\n")
    samples = json.loads(SAMPLES)
    samples[0]["expect"]["maximum"] = 1
    released.repository.write("samples/requests/rent/staging.json", json.dumps(samples))
    assert not released.materialize(*CHAIN)
    assert "sample 'a flat': expected at most 1, found" in released.failures
    assert released.serves("staging") == 1


def test_an_environment_without_samples(released: Platform) -> None:
    (released.repository.path / "samples" / "requests" / "rent" / "staging.json").unlink()
    assert not released.materialize(*CHAIN)
    assert "samples/requests/rent/staging.json: missing; write a list" in released.failures
    assert released.serves("staging") is None


def test_a_version_that_was_never_registered(released: Platform) -> None:
    assert released.materialize(*RELEASE), released.failures
    assert not released.materialize("staging_endpoint", config={"staging_endpoint": {"version": 9}})
    assert "model rent has no version 9; registered: 1" in released.failures


def test_an_endpoint_before_anything_was_released(platform: Platform) -> None:
    assert not platform.materialize("staging_endpoint")
    assert "rent/registered_model has never been materialized" in platform.failures
