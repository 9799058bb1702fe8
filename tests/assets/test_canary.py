"""What an endpoint's asset makes of a version on trial: on record, and where people look."""

import json
from typing import Any

from tests.conftest import CHAIN, RELEASE, Platform
from tests.repository import TRAIN_PY


def _watch_staging(platform: Platform, **limits: Any) -> None:
    traffic = {"steps": [{"percent": 20, "seconds": 0.1}], "limits": limits}
    content = {"name": "staging", "target": "local", "traffic": traffic}
    platform.repository.write("environments/local/staging.json", json.dumps(content))
    platform.reload()


def test_a_canary_is_on_record_wherever_it_ends(released: Platform) -> None:
    _watch_staging(released, too_few="discard")
    # There is nothing to compare the first version with.
    assert released.materialize(*CHAIN[3:]), released.failures
    assert "canary" not in released.metadata("staging_endpoint")
    assert released.registry.records("rent", "canaries") == []

    released.repository.train_py(TRAIN_PY + "\n# another tree\n")
    assert released.materialize(*RELEASE), released.failures
    assert not released.materialize("staging_endpoint")
    sentence = (
        "version 2 was discarded, version 1 serves as before: too few requests at 20 % after 0 s: "
        "0 requests to the new version and 0 to the live one, fewer than 50"
    )
    assert released.failures == sentence
    (failed,) = [event for event in released.result.all_events if event.is_step_failure]
    data = failed.step_failure_data.user_failure_data
    assert data is not None
    assert "| 20 %, 0 s | too few requests | 0, 0 |" in str(data.metadata["canary"].value)
    assert released.serves("staging") == 1
    (record,) = released.registry.records("rent", "canaries")
    assert (record["environment"], record["version"]) == ("staging", 2)
    assert record["discarded"] == sentence
    assert [judged["verdict"] for judged in record["judgements"]] == ["too few requests"]
    assert {r["version"] for r in released.registry.records("rent", "deployments")} == {1}

    _watch_staging(released)
    assert released.materialize("staging_endpoint"), released.failures
    assert released.serves("staging") == 2
    metadata = released.metadata("staging_endpoint")
    assert "| 20 %, 0 s | too few requests |" in metadata["canary"]
    assert f"on trial in staging: {sentence}" in metadata["card"]
    assert "on trial in staging: too few requests at 20 %\n" in metadata["card"]
    assert [r["discarded"] for r in released.registry.records("rent", "canaries")] == [
        sentence,
        None,
    ]

    # Going back to what has served is no trial; going forward again is one.
    for version, canaries in ((1, 2), (2, 3)):
        config = {"staging_endpoint": {"version": version}}
        assert released.materialize("staging_endpoint", config=config), released.failures
        assert released.serves("staging") == version
        assert len(released.registry.records("rent", "canaries")) == canaries
