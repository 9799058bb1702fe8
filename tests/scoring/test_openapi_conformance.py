"""An endpoint keeps what its own ``/swagger.json`` says: schemathesis asks whatever that allows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_assets.scoring.connections import Limits
from resources.endpoints.base import VersionRef
from tests.bundles import exported, wide
from tests.scoring.raw_client import KEY, get, post, worker

CONFIG = f"""
[auth.openapi.key]
bearer = "{KEY}"

[generation]
deterministic = true
max-examples = 15
# Headers, and keys of a query, that the description does not name are let be.
allow-extra-parameters = false

[phases.stateful]
enabled = false

[checks]
negative_data_rejection.expected-statuses = [400, 401, 404, 405, 413, 431]
# OpenAPI 3.0 cannot say of a list which type each place has: such bodies may be refused. Those
# that must not be are the description's examples.
positive_data_acceptance.enabled = false

[[operations]]
include-path = "/score"
# GET with a body scores as on Azure, which OpenAPI cannot say either.
checks.unsupported_method.enabled = false
checks.allow_header_conformance.enabled = false
"""


@pytest.mark.parametrize("version", [exported, wide])
def test_answers_are_those_of_the_description(
    tmp_path: Path, version: Callable[[Path, int], VersionRef]
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with worker(tmp_path / "worker", version(tmp_path, 1), Limits()) as served:
        document = served.ask(get("/swagger.json")).body
        (tmp_path / "openapi.json").write_bytes(document)
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            "openapi.json",
            "--no-color",
            "--continue-on-failure",
        ]
        asked = subprocess.run(
            [*command, "--url", served.url], cwd=tmp_path, capture_output=True, text=True
        )
        assert served.healthy()
    assert asked.returncode == 0, asked.stdout + asked.stderr


@pytest.mark.parametrize("version", [exported, wide])
def test_examples_of_the_description_are_answered(
    tmp_path: Path, version: Callable[[Path, int], VersionRef]
) -> None:
    with worker(tmp_path / "worker", version(tmp_path, 1), Limits()) as served:
        document = json.loads(served.ask(get("/swagger.json")).body)
        (infer,) = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"][
            "content"
        ].values()
        answer = served.ask(
            post(json.dumps(infer["example"]).encode(), path="/v2/models/tiny/infer")
        )
        assert answer.status == 200, answer.body
        (score,) = document["paths"]["/score"]["post"]["requestBody"]["content"].values()
        forms = {name: example["value"] for name, example in score["examples"].items()}
        assert set(forms) == {
            "records",
            "rows",
            "input_data",
            "dataframe_split",
            "dataframe_records",
        }
        answers = [served.ask(post(json.dumps(form).encode())) for form in forms.values()]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
