from tests.conftest import Platform
from tests.repository import MODEL_YAML, rows


def test_the_same_content_is_the_same_snapshot(platform: Platform) -> None:
    assert platform.materialize("dataset")
    first = platform.metadata("dataset")
    assert first["dagster/row_count"] == 200
    assert platform.checks == {"contract": True, "volume": True, "drift": True}
    header, *lines = rows(200).splitlines()
    platform.data("\n".join([header, *lines[100:]]), "b.csv")
    platform.data("\n".join([header, *reversed(lines[:100])]), "a.csv")
    (platform.profile.home / "storage" / "rent" / "rents.csv").unlink()
    assert platform.materialize("dataset")
    again = platform.metadata("dataset")
    assert again["snapshot"] == first["snapshot"]
    assert again["files"] == 2


def test_data_that_breaks_the_contract_publishes_nothing(platform: Platform) -> None:
    assert platform.materialize("dataset")
    good = platform.metadata("dataset")["snapshot"]
    broken = platform.data("flat,area,rooms,district,rent\n900,50,12,east,100\n", "broken.csv")
    assert not platform.materialize("dataset")
    assert "rooms: above maximum 9.0 (1 rows: 12 at broken.csv:1)" in platform.failures
    assert not platform.check("contract").passed
    snapshots = platform.profile.home / "artifacts" / "snapshots"
    assert [path.name for path in snapshots.iterdir()] == [good]
    assert list((platform.profile.home / "artifacts" / "scratch").iterdir()) == []
    broken.unlink()
    assert platform.materialize("dataset")


def test_a_snapshot_much_smaller_than_the_last_warns(platform: Platform) -> None:
    assert platform.materialize("dataset")
    platform.data(rows(100))
    assert platform.materialize("dataset")
    assert not platform.check("volume").passed
    assert platform.check("volume").description == "100 rows, before: 200"


def test_a_missing_folder_and_a_folder_without_files(platform: Platform) -> None:
    path = platform.profile.home / "storage" / "rent" / "rents.csv"
    path.unlink()
    assert not platform.materialize("dataset")
    assert "data.location 'rent': no .csv file below" in platform.failures
    path.parent.rmdir()
    assert not platform.materialize("dataset")
    assert "data.location 'rent': no folder" in platform.failures


def test_the_commit_rules_the_contract(platform: Platform) -> None:
    first = platform.repository.git("rev-parse", "HEAD")
    text = MODEL_YAML.replace("maximum: 9", "maximum: 3")
    platform.repository.write("mlops_assets/models/rent/model.yaml", text)
    platform.repository.commit("fewer rooms")
    assert not platform.materialize("dataset")
    assert "rooms: above maximum 3.0" in platform.failures
    assert platform.materialize("dataset", config={"dataset": {"commit": first}})


def test_a_broken_model_yaml_of_a_commit_is_named(platform: Platform) -> None:
    good = platform.repository.git("rev-parse", "HEAD")
    path = "mlops_assets/models/rent/model.yaml"
    platform.repository.write(path, MODEL_YAML.replace("alpha", "alpha: {"))
    broken = platform.repository.commit("a slip")
    platform.repository.git("checkout", "--quiet", good, "--", path)
    assert not platform.materialize("dataset")
    assert f"{path} of commit {broken[:10]}: line" in platform.failures


def test_a_commit_that_does_not_exist(platform: Platform) -> None:
    assert not platform.materialize("dataset", config={"dataset": {"commit": "deadbeef"}})
    assert "commit 'deadbeef': not found" in platform.failures


def test_columns_that_moved_since_the_champion_was_trained_warn(released: Platform) -> None:
    assert released.materialize("staging_endpoint", "production_endpoint"), released.failures
    assert released.materialize("dataset")
    assert released.check("drift").passed
    header, *lines = rows(200).splitlines()
    flats = [line.split(",") for line in lines]
    doubled = [",".join([flat[0], str(2 * float(flat[1])), *flat[2:]]) for flat in flats]
    released.data("\n".join([header, *doubled]))
    assert released.materialize("dataset"), released.failures
    drift = released.check("drift")
    assert not drift.passed
    assert drift.description == "moved since version 1 was trained: area"


def test_two_assets_of_one_run_release_one_commit(released: Platform) -> None:
    first = released.repository.git("rev-parse", "HEAD")
    released.repository.commit("another")
    config = {"trained_model": {"commit": first}}
    assert not released.materialize("dataset", "trained_model", config=config)
    assert "asks for" in released.failures
    assert "give both the same commit" in released.failures
    config["dataset"] = {"commit": first}
    assert released.materialize("dataset", "trained_model", config=config), released.failures
