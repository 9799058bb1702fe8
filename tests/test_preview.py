from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from mlops_assets.preview import PreviewError, end, environment_of, previews, serve
from mlops_assets.strict import SpecError
from mlops_assets.wiring import build_resources
from resources.endpoints.base import EndpointError, Request
from resources.endpoints.local import LocalEndpoints
from resources.environment import load_profile
from resources.experiments import Experiments
from tests.conftest import Platform
from tests.repository import SAMPLES, TRAIN_PY, make_repository
from tests.test_steering import change, mlops, steer

BODY = {"data": [{"area": 50, "rooms": 2, "district": "north"}]}


@pytest.fixture
def kept(released: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A clone with an experiment of the branch Feature/one."""
    repository = released.repository
    steer(repository.path, released.profile.home, monkeypatch)
    repository.write(
        "environments/local/preview.json",
        '{"name": "preview", "target": "local", "preview": {"hours": 2}}',
    )
    repository.write("samples/requests/rent/preview.json", SAMPLES)
    repository.git("switch", "--quiet", "--create", "Feature/one")
    repository.train_py(TRAIN_PY.replace('params["alpha"]', "0.5"))
    code, text = mlops("experiment", "rent", "--keep")
    assert code == 0, text
    released.reload()
    return released


def test_a_branch_serves_until_its_time_is_over(kept: Platform) -> None:
    assert [e.name for e in kept.profile.environments] == ["development", "staging", "production"]
    code, text = mlops("preview", "rent", "Feature/one")
    assert code == 0, text
    (found,) = previews(kept.profile)
    assert (found.model, found.branch, found.experiment) == ("rent", "Feature/one", 1)
    assert 7100 < found.ends.timestamp() - time.time() <= 7200
    assert found.url in text
    name = environment_of("Feature/one")
    endpoints = LocalEndpoints(kept.profile.home / "endpoints")
    answer = endpoints.ask("rent", name, Request.of(BODY))
    assert answer.status == 200, answer.body
    # It is no environment: nothing is promoted from it, and the others' list does not have it.
    assert "Feature" not in mlops("endpoints")[1]
    assert [v.version for v in kept.registry.versions("rent")] == [1]

    # Again for a shorter while; it then ends by itself, whoever else lives.
    shown = serve(kept.profile, "rent", "Feature/one", hours=6 / 3600)
    assert endpoints.ask("rent", name, Request.of(BODY)).status == 200
    deadline = time.monotonic() + 60
    while endpoints.status("rent", name).healthy:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert time.time() >= shown.ends.timestamp()
    with pytest.raises(EndpointError):
        endpoints.ask("rent", name, Request.of(BODY))
    assert previews(kept.profile) == []
    assert not (kept.profile.home / "endpoints" / name / "rent").exists()
    assert mlops("preview", "rent") == (0, "none\n")


def test_ended_by_hand_and_by_stop(kept: Platform) -> None:
    serve(kept.profile, "rent", "Feature/one")
    assert mlops("preview", "rent", "Feature/one", "--end")[1] == "rent of Feature/one: ended\n"
    assert not end(kept.profile, "rent", "Feature/one")
    serve(kept.profile, "rent", "Feature/one")
    assert kept.serving.stop() == [f"rent/{environment_of('Feature/one')}"]


def test_what_is_not_served(kept: Platform) -> None:
    with pytest.raises(PreviewError, match="a preview live for 2 hours at most"):
        serve(kept.profile, "rent", "Feature/one", hours=3)
    code, text = mlops("preview", "rent", "other")
    assert (code, "no experiment of rent on branch other" in text) == (1, True)
    experiments = Experiments.of(build_resources(kept.profile))
    pickle = experiments.newest("rent", "Feature/one").bundle / "model.pkl"
    pickle.write_bytes(pickle.read_bytes() + b" ")
    with pytest.raises(PreviewError, match=r"changed on disk: \['model.pkl'\]"):
        serve(kept.profile, "rent", "Feature/one")
    assert previews(kept.profile) == []


def test_without_an_environment_for_it(released: Platform) -> None:
    with pytest.raises(PreviewError, match='no environment of profile local has "preview"'):
        serve(released.profile, "rent", "main")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preview": {"hours": 0}}, "preview.hours"),
        ({"preview": {"hours": 9999}}, "preview.hours"),
        ({"preview": {}, "promotes_from": "staging"}, "no version is promoted to previews"),
        ({"preview": {}, "local": {"ports": {"rent": 8000}}}, "a port of its own"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    root = make_repository(tmp_path).path
    path = root / "environments" / "local" / "preview.json"
    path.write_text(json.dumps({"name": "preview", "target": "local", **settings}))
    with pytest.raises(SpecError, match=message):
        load_profile({}, root)


def test_only_one_environment_is_for_previews(tmp_path: Path) -> None:
    root = make_repository(tmp_path).path
    for name in ("development", "staging"):
        change(root, name, preview={})
    change(root, "production", promotes_from=None)
    with pytest.raises(SpecError, match="in development, staging; only one"):
        load_profile({}, root)


def test_names_of_environments() -> None:
    names = [
        environment_of(b) for b in ("a/b", "a-b", "A/B", "1", "ü", "/", "x" * 300, "production")
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,29}", name) for name in names)
