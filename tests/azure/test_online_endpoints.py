"""A version's way through an online endpoint, on attached Kubernetes and managed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_assets.rollout import RolloutError, roll_out
from resources.endpoints.base import EndpointError, Request, VersionRef
from resources.traffic import Traffic
from tests.azure.clients import ROW, ask
from tests.azure.online import Asker, Room, room, sample
from tests.azure.server import AzureServer
from tests.bundles import regression, tried


@pytest.fixture(params=["aks", "managed"])
def place(request: pytest.FixtureRequest, azure: AzureServer, tmp_path: Path) -> Room:
    return room(azure, tmp_path, request.param)


@pytest.fixture
def managed(azure: AzureServer, tmp_path: Path) -> Room:
    return room(azure, tmp_path, "managed")


def name_of(version: VersionRef) -> str:
    return f"v{version.version}-{version.digest[:8]}"


def changed(folder: Path, number: int) -> VersionRef:
    """A version of which a file is not what its manifest says."""
    found = regression(folder, number)
    (found.bundle / "model.pkl").write_bytes(b"changed")
    return found


def steps(*pairs: tuple[int, float], **more: Any) -> Traffic:
    found = [{"percent": percent, "seconds": seconds} for percent, seconds in pairs]
    return Traffic.model_validate({"steps": found, **more})


def test_two_versions_one_after_the_other(place: Room) -> None:
    first, second = (place.register(regression, n) for n in (1, 2))
    assert place.endpoints.serving("tiny", "production") is None
    assert place.endpoints.status("tiny", "production").version is None
    with pytest.raises(EndpointError, match="none yet; deploy to production"):
        place.endpoints.ask("tiny", "production", Request.of(ROW))
    with place.open() as target:
        done = roll_out(target, first, [sample(1)], log=place.log.append)
        assert (done.outcome, done.previous) == ("deployed", None)
    assert place.deployments() == {name_of(first): 100}
    with Asker(place) as asker, place.open() as target:
        done = roll_out(target, second, [sample(2)], log=place.log.append)
        assert (done.outcome, done.previous) == ("deployed", 1)
        assert roll_out(target, second, [sample(2)]).outcome == "unchanged"
    assert asker.failed == []
    assert asker.answered.keys() == {1003.0, 2003.0}
    assert place.deployments() == {name_of(second): 100}
    status = place.endpoints.status("tiny", "production")
    assert (status.version, status.healthy) == (2, True)
    assert place.endpoints.known() == [("tiny", "production")]


def test_blue_and_green_answer_side_by_side(place: Room) -> None:
    first, second = (place.register(regression, n) for n in (1, 2))
    with place.open() as target:
        target.stage(first)
        target.promote(name_of(first), 100)
        staged = target.stage(second)
        assert (staged.version, staged.digest, staged.traffic) == (2, second.digest, 0)
        for version, value in ((first, 1003.0), (second, 2003.0)):
            answer = target.score(name_of(version), Request.of(ROW))
            assert (answer.status, answer.json()) == (200, {"predictions": [value]})
            assert answer.headers["azureml-model-deployment"] == name_of(version)
        target.promote(name_of(second), 30)
        assert place.deployments() == {name_of(first): 70, name_of(second): 30}
        assert list(target.live()) == [name_of(first), name_of(second)]
        target.discard(name_of(first))
        target.discard(name_of(first))
        assert place.deployments() == {name_of(second): 100}
        refused = target.score(None, Request.of({"data": [{"a": "x"}]}))
        assert refused.status == 400
        assert "a" in refused.json()["error"]["message"]
        assert target.score(None, Request(b"{}", authorized=False)).status == 401


def test_what_is_there_already_is_not_asked_for_again(place: Room) -> None:
    version = place.register(regression, 1)
    with place.open() as target:
        target.stage(version)
        target.promote(name_of(version), 100)
    writes = len(place.azure.record.exchanges("^(PUT|DELETE) https://management.*onlineEndpoints"))
    with place.open() as target:
        target.stage(version)
        target.promote(name_of(version), 100)
        target.discard("v9-unknown")
    after = place.azure.record.exchanges("^(PUT|DELETE) https://management.*onlineEndpoints")
    assert len(after) == writes


def test_one_that_cannot_be_loaded_is_explained_and_removed(place: Room) -> None:
    first, bad = place.register(regression, 1), place.register(changed, 2)
    with place.open() as target:
        roll_out(target, first, [sample(1)])
        with (
            Asker(place) as asker,
            pytest.raises(RolloutError, match="version 1 serves as before") as caught,
        ):
            roll_out(target, bad, [sample(2)])
    text = str(caught.value)
    assert "not what the manifest says" in text  # the log's end
    assert "crashed" in text  # Azure's own words
    assert asker.failed == []
    assert asker.answered.keys() == {1003.0}
    assert place.deployments() == {name_of(first): 100}


def test_one_that_answers_otherwise_is_discarded(place: Room) -> None:
    first, second = (place.register(regression, n) for n in (1, 2))
    with place.open() as target:
        roll_out(target, first, [sample(1)])
        with Asker(place) as asker, pytest.raises(RolloutError, match="sample 'one row'"):
            roll_out(target, second, [sample(7)])
    assert asker.failed == []
    assert place.deployments() == {name_of(first): 100}


def test_a_version_is_judged_beside_the_live_one(place: Room) -> None:
    """Each counts by edges of its own; on Azure they have no server in common."""
    first = place.register(tried, 1)
    same = place.register(tried, 2)
    other = place.register(lambda folder, n: tried(folder, n, offset=6.0), 3)
    rows = {"data": [{"a": value - 8.0, "b": 1} for value in range(16)]}
    limits = {"minimum_requests": 30, "p95_ratio": 50}
    traffic = steps((50, 4), limits=limits)
    with place.open() as target:
        roll_out(target, first, [])
        with Asker(place, rows) as asker:
            done = roll_out(target, same, [], traffic=traffic, log=place.log.append)
            assert [judged.judgement.verdict for judged in done.judgements] == ["as good"]
            figures = done.judgements[0].judgement.figures
            assert figures["psi"] < 0.1
            with pytest.raises(RolloutError, match="distribut") as caught:
                roll_out(target, other, [], traffic=traffic, log=place.log.append)
    assert asker.failed == []
    assert caught.value.judgements[-1].judgement.verdict == "worse"
    assert place.deployments() == {name_of(same): 100}


def test_one_that_fails_more_often_loses_its_share(place: Room) -> None:
    first = place.register(tried, 1)
    fragile = place.register(lambda folder, n: tried(folder, n, greatest=4), 2)
    body = {"data": [{"a": 1.0, "b": 6}]}
    with place.open() as target:
        roll_out(target, first, [])
        with (
            Asker(place, body),
            pytest.raises(RolloutError, match="worse at 50 %") as caught,
        ):
            roll_out(target, fragile, [], traffic=steps((50, 20)), log=place.log.append)
        observed = target.observe()[name_of(first)].served
        assert observed.failed == 0
        assert observed.answered > 10
    assert caught.value.judgements[-1].seconds < 20
    assert place.deployments() == {name_of(first): 100}


def test_copies_of_requests_are_judged_first(managed: Room) -> None:
    place = managed
    first, second = (place.register(tried, n) for n in (1, 2))
    body = {"data": [{"a": 1.0, "b": 6}]}
    limits = {"minimum_requests": 10, "p95_ratio": 50}
    traffic = steps((100, 0), mirror_percent=50, mirror_seconds=3, limits=limits)
    with place.open() as target:
        roll_out(target, first, [])
        with Asker(place, body) as asker:
            done = roll_out(target, second, [], traffic=traffic, log=place.log.append)
    (judged,) = done.judgements
    assert (judged.step, judged.served, judged.judgement.verdict) == (
        "50 % mirrored",
        False,
        "as good",
    )
    assert judged.judgement.figures["requests_new"] > 10
    assert asker.failed == []


def test_nothing_is_copied_on_kubernetes(azure: AzureServer, tmp_path: Path) -> None:
    place = room(azure, tmp_path, "aks")
    version = place.register(regression, 1)
    with (
        place.open() as target,
        pytest.raises(EndpointError, match="copies no requests on Kubernetes"),
    ):
        target.stage(version, 10)
    assert place.deployments() == {}


def test_deployments_of_others_are_left_alone(managed: Room) -> None:
    from azure.ai.ml.entities import ManagedOnlineDeployment

    place = managed
    first, second = (place.register(regression, n) for n in (1, 2))
    with place.open() as target:
        target.stage(first)
        foreign: Any = place.clients.workspace.online_deployments.get(name_of(first), place.name)
        by_hand = ManagedOnlineDeployment(
            name="by-hand",
            endpoint_name=place.name,
            model="azureml:tiny:1",
            environment=foreign.environment,
            environment_variables={"MLOPS_NO_KEYS": "true"},
            instance_type="Standard_DS3_v2",
            instance_count=1,
        )
        place.clients.workspace.online_deployments.begin_create_or_update(by_hand).result()
        endpoint: Any = place.clients.workspace.online_endpoints.get(place.name)
        endpoint.traffic = {"by-hand": 100}
        place.clients.workspace.online_endpoints.begin_create_or_update(endpoint).result()
        assert "by-hand" not in target.live()
        done = roll_out(target, second, [sample(2)])
    assert done.previous is None
    assert place.deployments() == {"by-hand": 0, name_of(second): 100}
    told = [line for line in place.log if "by-hand" in line]
    assert told[0].endswith("100 % of the traffic, until a version gets its share")


def test_keys_are_replaced_while_the_endpoint_is_held(place: Room) -> None:
    version = place.register(regression, 1)
    with place.open() as target:
        roll_out(target, version, [])
        before: Any = place.clients.workspace.online_endpoints.get_keys(place.name)
        where = place.endpoints.rotate_key("tiny", "production", "primary")
        assert where.startswith("`az ml online-endpoint get-credentials -n tiny-production -g ")
        assert where.endswith("--query primaryKey -o tsv`")
        assert ask(target.url, before.primary_key).status_code == 401
        assert target.score(None, Request.of(ROW)).status == 200
        # By somebody else: it is asked for anew.
        place.clients.workspace.online_endpoints.begin_regenerate_keys(place.name).result()
        assert target.score(None, Request.of(ROW)).status == 200
    after: Any = place.clients.workspace.online_endpoints.get_keys(place.name)
    for key in (before.primary_key, after.primary_key, after.secondary_key):
        assert key not in repr(place.endpoints.__dict__) + "".join(place.log)


def test_an_instance_says_what_it_has_counted_where_it_scores(managed: Room) -> None:
    place = managed
    version = place.register(regression, 1)
    with place.open() as target:
        roll_out(target, version, [])
        for _ in range(3):
            target.score(None, Request.of(ROW))
        target.score(None, Request.of({"data": [{"a": "x"}]}))
        first = target.observe()[name_of(version)].served
        again = target.observe()[name_of(version)].served
    assert (first.answered, first.refused, first.failed) == (3, 1, 0)
    assert again == first  # to ask is counted nowhere


@pytest.mark.parametrize("mode", ["aml_token", "aad_token"])
def test_tokens_let_in_too(azure: AzureServer, tmp_path: Path, mode: str) -> None:
    place = room(azure, tmp_path, "managed")
    document = place.profile.documents_of("production") / "endpoint.json"
    document.write_text(f'{{"name": "production", "auth_mode": "{mode}"}}')
    version = place.register(regression, 1)
    with place.open() as target:
        assert roll_out(target, version, [sample(1)]).outcome == "deployed"


def test_the_same_document_changes_nothing_another_one_what_azure_allows(managed: Room) -> None:
    place = managed
    version = place.register(regression, 1)
    with place.open() as target:
        roll_out(target, version, [])
    document = place.profile.documents_of("production") / "endpoint.json"
    document.write_text('{"name": "production", "auth_mode": "key", "description": "New."}')
    with place.open() as target:
        assert target.score(None, Request.of(ROW)).status == 200
    endpoint: Any = place.clients.workspace.online_endpoints.get(place.name)
    assert (endpoint.description, endpoint.traffic) == ("New.", {name_of(version): 100})
    document.write_text('{"name": "production", "auth_mode": "aml_token"}')
    with pytest.raises(EndpointError, match="auth_mode: the endpoint was made with 'key'"):
        place.open().__enter__()


def test_httpx_logs_no_key(managed: Room, caplog: pytest.LogCaptureFixture) -> None:
    place = managed
    version = place.register(regression, 1)
    caplog.set_level("DEBUG")
    with place.open() as target:
        roll_out(target, version, [sample(1)])
    keys: Any = place.clients.workspace.online_endpoints.get_keys(place.name)
    assert httpx.get(target.url, headers={"authorization": "Bearer x"}).status_code == 401
    assert keys.primary_key not in caplog.text
