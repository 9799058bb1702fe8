"""The state folder of a profile on Azure, and what is put into its storage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mlops_assets.state import ready, seed
from mlops_assets.strict import SpecError
from resources.environment import Profile, checkout, load_profile
from tests.azure.platforms import clients, profile_json
from tests.azure.server import AzureServer

RUN = """
import dagster as dg
@dg.op
def speak():
    print("what a step prints")
@dg.job(executor_def=dg.in_process_executor)
def job():
    speak()
with dg.DagsterInstance.get() as instance:
    assert job.execute_in_process(instance=instance).success
"""


def profile(azure: AzureServer, folder: Path, **storage: object) -> Profile:
    """A checkout with the profile ``azure`` and the sample data of this one."""
    root = folder / "checkout"
    for name in ("environments", "samples"):
        shutil.copytree(checkout() / name, root / name)
    shutil.copy(checkout() / "dagster.yaml", root)
    own = root / "environments" / "azure"
    for old in own.glob("**/*.json"):
        old.unlink()

    (own / "profile.json").write_text(json.dumps(profile_json(azure, **storage)))
    (own / "staging.json").write_text('{"name": "staging", "target": "local"}')
    return load_profile({"MLOPS_PROFILE": "azure", "MLOPS_HOME": str(folder / "home")}, root)


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLOPS_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")
    for name in ("ACCOUNT", "CONTAINER", "FOLDER", "KEY"):
        monkeypatch.setenv(f"MLOPS_LOGS_{name}", "")


def test_sample_data_goes_up_once(azure: AzureServer, tmp_path: Path) -> None:
    found = profile(azure, tmp_path)
    container = clients(azure).container
    container.upload_blob("data/penguins/pal0708.csv", b"a team's own")
    place = f"https://{azure.blob.account}.blob.core.windows.net/mlops/data"
    assert seed(found) == {f"{place}/diabetes": 3, f"{place}/penguins": 2}
    assert seed(found) == {}
    sample = found.root / "samples" / "data" / "diabetes" / "patients-1.csv"
    blob = container.get_blob_client("data/diabetes/patients-1.csv")
    assert blob.download_blob().readall() == sample.read_bytes()
    own = container.get_blob_client("data/penguins/pal0708.csv")
    assert own.download_blob().readall() == b"a team's own"


@pytest.mark.parametrize("by", ["identity", "account_key", "sas"])
def test_what_steps_print_goes_to_the_container(
    azure: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    container = clients(azure).container
    secrets = {"account_key": azure.blob.key, "sas": azure.blob.account_sas(expired=False)}
    monkeypatch.setenv("STORAGE_SECRET", secrets.get(by, ""))
    storage = {} if by == "identity" else {by: "STORAGE_SECRET"}
    found = ready(profile(azure, tmp_path, **storage))
    (tmp_path / "run.py").write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": str(checkout())}
    subprocess.run([sys.executable, tmp_path / "run.py"], env=environment, check=True, timeout=120)
    blobs = {b.name: b for b in container.list_blobs(name_starts_with="logs/")}
    (out,) = [name for name in blobs if name.endswith(".out")]
    assert b"what a step prints" in container.download_blob(out).readall()
    written = (found.home / "dagster" / "dagster.yaml").read_text()
    settings = yaml.safe_load(written)
    assert settings["run_queue"]["max_concurrent_runs"] == 4
    assert settings["compute_logs"]["class"] == "AzureBlobComputeLogManager"
    for secret in secrets.values():
        assert secret not in written
    with dg.DagsterInstance.get() as instance:
        for secret in secrets.values():
            assert secret not in instance.info_str()


def test_a_variable_that_is_not_set_is_named_at_once(azure: AzureServer, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="environment variable NOT_SET is not set"):
        ready(profile(azure, tmp_path, account_key="NOT_SET"))


def test_the_code_location_loads_without_azure(azure: AzureServer, tmp_path: Path) -> None:
    """No network, no variable, no package of Microsoft's."""
    found = profile(azure, tmp_path, account_key="NOT_SET", container="${NOT_SET_EITHER}")
    shutil.copytree(checkout() / "mlops_assets" / "models", found.root / "mlops_assets" / "models")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from resources.environment import load_profile\n"
        "from mlops_assets.definitions import build_definitions\n"
        f"variables = {{'MLOPS_PROFILE': 'azure', 'MLOPS_HOME': {str(found.home)!r}}}\n"
        f"made = build_definitions(load_profile(variables, Path({str(found.root)!r})))\n"
        "made.resolve_all_job_defs()\n"
        "slow = ('azure', 'dagster_azure', 'adlfs', 'pandas', 'sklearn')\n"
        "found = [name for name in slow if name in sys.modules]\n"
        "assert not found, found\n"
    )
    environment = {
        "PYTHONPATH": str(checkout()), "PATH": os.environ["PATH"], "HOME": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:9", "MLOPS_HOME": str(found.home),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
