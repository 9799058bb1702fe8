"""What the deployment's environment becomes, from the ways that v1 had to say it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.convert import convert, write
from tests.convert.azure_accepts import load_documents, quiet

pytestmark = quiet

AKS = Path(__file__).parent / "samples/aks_alone.yml"
CPU = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
CONDA = {"dependencies": ["python=3.11", {"pip": ["scikit-learn"]}]}


def made(folder: Path, said: dict[str, Any]) -> tuple[Any, dict[str, str], list[str]]:
    """The environment that Azure's loader takes, the kind of each key, what is still to write."""
    path = folder / "inferenceConfig.json"
    path.write_text(json.dumps({"entryScript": "score.py", **said}))
    conversion = convert([AKS, path], folder / "azure")
    write(conversion, folder / "azure")
    load_documents(folder / "azure/production")
    kinds = {row.key: row.kind for row in conversion.reports[1].rows}
    environment = conversion.documents["production/deployment.json"].get("environment")
    return environment, kinds, [end for end in conversion.open_ends if "environment" in end]


@pytest.mark.parametrize(
    ("said", "environment"),
    [
        ({"name": "rent", "version": 3}, "azureml:rent:3"),
        ({"name": "rent", "version": None}, "azureml:rent@latest"),
        ({"docker": {"baseImage": "plant/base:3"}}, {"image": "plant/base:3"}),
        ({"python": {"condaDependencies": CONDA}}, {"image": CPU, "conda_file": CONDA}),
        (
            {
                "name": "rent",
                "python": {"condaDependencies": CONDA, "userManagedDependencies": True},
            },
            "azureml:rent@latest",
        ),
        ({"docker": {"baseDockerfile": "FROM base"}}, None),
        ({"version": 3}, None),
        ({}, None),
    ],
)
def test_an_environment_of_v1(said: dict[str, Any], environment: Any, tmp_path: Path) -> None:
    found, kinds, open_ends = made(tmp_path, {"environment": said})
    assert found == environment
    if environment is None:
        assert open_ends
    if "python" in said and "name" in said:
        assert kinds["environment.python.condaDependencies.dependencies.0"] == "lost"


@pytest.mark.parametrize(
    ("said", "environment", "lost"),
    [
        ({"runtime": "python"}, {"image": CPU}, []),
        ({"runtime": "spark-py"}, {"image": CPU}, ["runtime"]),
        ({"baseImage": "plant/base:3", "enableGpu": 1}, {"image": "plant/base:3"}, ["enableGpu"]),
        (
            {"baseImage": "plant.io/base:3", "baseImageRegistry": "plant.io", "cudaVersion": 10.0},
            {"image": "plant.io/base:3"},
            ["cudaVersion"],
        ),
        ({"condaFile": "x" * 5000}, None, ["condaFile"]),
        ({}, None, []),
    ],
)
def test_keys_from_before_environments(
    said: dict[str, Any], environment: Any, lost: list[str], tmp_path: Path
) -> None:
    found, kinds, open_ends = made(tmp_path, said)
    assert found == environment
    assert [key for key, kind in kinds.items() if kind == "lost"] == lost
    if environment is None:
        assert open_ends == [
            "deployment.json: environment: v1 was given none; name one as azureml:NAME:VERSION"
        ]


def test_a_conda_file_without_the_server_that_v1_added(tmp_path: Path) -> None:
    said = {"python": {"condaDependencies": CONDA}}
    assert "azureml-inference-server-http" in made(tmp_path, {"environment": said})[2][0]
    (tmp_path / "with").mkdir()
    served = {"dependencies": [{"pip": ["azureml-defaults"]}]}
    said = {"python": {"condaDependencies": served}}
    assert made(tmp_path / "with", {"environment": said})[2] == []


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x07", None])
def test_a_conda_file_that_is_none_is_lost(text: str | None, tmp_path: Path) -> None:
    conda = tmp_path / "conda.yml"
    conda.mkdir() if text is None else conda.write_text(text)
    found, kinds, _ = made(tmp_path, {"condaFile": "conda.yml", "runtime": "python"})
    assert found == {"image": CPU}
    assert kinds["condaFile"] == "lost"
