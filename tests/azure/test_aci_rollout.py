"""Rollouts to a container group whose server really runs, and follows real blobs."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from mlops_assets.rollout import RolloutError
from mlops_assets.scoring.signature import Signed, sign
from resources.endpoints.base import EndpointError, Request
from tests.azure.aci_groups import ASK, NAME, URL, Groups, users
from tests.azure.server import AzureServer
from tests.bundles import deadly, regression, tried
from tests.local_servers import eventually


@pytest.fixture
def groups(azure: AzureServer, tmp_path: Path) -> Groups:
    return Groups(tmp_path, azure)


def test_the_first_deployment(groups: Groups, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="there is no container group tiny-staging"):
        groups.endpoints.ask("tiny", "staging", ASK)
    assert groups.endpoints.known() == []
    with pytest.raises(EndpointError, match="no key; deploy to this endpoint first"):
        groups.endpoints.rotate_key("tiny", "staging", "primary")
    done = groups.deploy(regression(tmp_path, 1))
    assert (done.outcome, done.previous) == ("deployed", None)
    assert groups.answering() == 1
    assert groups.names() == [NAME]
    assert groups.endpoints.known() == [("tiny", "staging")]
    status = groups.endpoints.status("tiny", "staging")
    assert (status.version, status.url, status.healthy) == (1, URL, True)
    live = groups.endpoints.serving("tiny", "staging")
    assert live is not None
    assert (live.name, live.version, live.traffic) == ("v1", 1, 100)
    assert "az storage blob download" in status.key_command
    assert httpx.post(URL, json={"data": []}).status_code == 401
    without = Request.of({"data": []}, authorized=False)
    assert groups.endpoints.ask("tiny", "staging", without).status == 401


def test_versions_are_swapped_and_no_request_is_lost(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(regression(tmp_path, 1))
    before = groups.clients.container_instances.container_groups.get("test-group", NAME)
    with users(groups.key()) as told:
        eventually(lambda: len(told.versions) > 20)
        began = time.monotonic()
        groups.deploy(regression(tmp_path, 2))
        seconds = time.monotonic() - began
        count = len(told.versions)
        eventually(lambda: len(told.versions) > count + 20)
    assert set(told.statuses) == {200}
    assert told.seen() == [1, 2]
    after = groups.clients.container_instances.container_groups.get("test-group", NAME)
    assert after.serialize(keep_readonly=True) == before.serialize(keep_readonly=True)
    print(f"{len(told.statuses)} requests, longest {told.longest:.3f} s, rollout {seconds:.1f} s")
    again = groups.deploy(regression(tmp_path / "again", 2))
    assert again.outcome == "unchanged"


def test_a_canary_is_watched_mirrored_and_sticky(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(tried(tmp_path, 1))
    with users(groups.key(), 0.002, **{"x-user": "one"}) as told:
        done = groups.deploy(
            tried(tmp_path, 2),
            mirror_percent=50,
            mirror_seconds=4,
            steps=[{"percent": 50, "seconds": 4}, {"percent": 100}],
            sticky_header="x-user",
            limits={"minimum_requests": 20},
        )
    assert set(told.statuses) == {200}
    # One user goes one way: he changes once at most.
    assert told.seen() in ([1, 2],)
    mirrored, canary = done.judgements[:2]
    assert mirrored.judgement.figures["requests_new"] > 20
    assert (mirrored.served, canary.served) == (False, True)


def test_a_worse_version_is_found_and_undone(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(tried(tmp_path, 1))
    with users(groups.key(), 0.002) as told, pytest.raises(RolloutError, match="version 2 was dis"):
        groups.deploy(
            tried(tmp_path, 2, offset=50.0, greatest=1.0),
            steps=[{"percent": 50, "seconds": 6}, {"percent": 100}],
            limits={"minimum_requests": 20},
        )
    assert groups.answering() == 1
    assert told.statuses.count(200) > 0


def test_keys_are_rotated_under_load(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(regression(tmp_path, 1))
    blobs = groups.endpoints._blobs("tiny", "staging")
    first = groups.key()
    second = blobs._found("keys")[0].split()[1].decode()
    with users(second) as told:
        words = groups.endpoints.rotate_key("tiny", "staging", "primary")
        assert words == f"`{blobs.key_command('primary')}`"
        new = groups.key()
        assert new != first
        body, given = {"data": [{"a": 1, "b": 2}]}, {"authorization": f"Bearer {new}"}
        assert httpx.post(URL, json=body, headers=given).status_code == 200
        given = {"authorization": f"Bearer {first}"}
        eventually(lambda: httpx.post(URL, json=body, headers=given).status_code == 401)
        assert groups.answering() == 1
    assert set(told.statuses) == {200}
    assert new not in words
    assert new not in "".join(groups.log)


def test_a_tampered_archive_is_refused_by_name(
    azure: AzureServer, groups: Groups, tmp_path: Path
) -> None:
    groups.deploy(regression(tmp_path, 1))
    other, version = regression(tmp_path / "other", 3), regression(tmp_path, 2)
    blobs = groups.endpoints._blobs("tiny", "staging")
    blobs.stored(other)
    container = azure.blob.client().get_container_client("mlops")
    name = f"endpoints/bundles/{version.digest}.zip"
    found = container.download_blob(f"endpoints/bundles/{other.digest}.zip").readall()
    container.upload_blob(name, found)
    with pytest.raises(RolloutError) as caught:
        groups.deploy(version)
    assert f"IntegrityError: {name}: " in str(caught.value)
    assert "version 1 serves as before" in str(caught.value)
    assert groups.answering() == 1
    groups.deploy(version)  # what lay there was removed
    assert groups.answering() == 2


def test_a_version_that_kills_its_server_is_taken_back(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(regression(tmp_path, 1))
    with pytest.raises(RolloutError, match="the workers that load it crash"):
        groups.deploy(deadly(tmp_path, 2))
    assert groups.answering() == 1
    with groups.open() as target:
        assert list(target.live()) == ["v1"]


def test_a_signed_version(groups: Groups, tmp_path: Path) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(make, check=True)
    subprocess.run(
        ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)],
        check=True, capture_output=True,
    )  # fmt: skip
    version = regression(tmp_path, 1)
    signature = tmp_path / "1.sig"
    asked = type(version)(
        version.model, version.version, version.digest, version.bundle,
        Signed(str(signature), public.read_text()),
    )  # fmt: skip
    with pytest.raises(RolloutError, match="the version is not signed"):
        groups.deploy(asked)
    sign(version.bundle, version.digest, key, signature)
    groups.deploy(asked)
    assert groups.answering() == 1


def test_deployers_wait_for_each_other(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(regression(tmp_path, 1))
    other = Groups(tmp_path, None)
    versions = [regression(tmp_path, number) for number in (2, 3)]
    done: list[int] = []

    def run(which: Groups, index: int) -> None:
        which.deploy(versions[index])
        done.append(versions[index].version)

    threads = [
        threading.Thread(target=run, args=(which, index))
        for index, which in enumerate((groups, other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [2, 3]
    assert groups.answering() == done[-1]


def test_a_lost_race_is_told(groups: Groups, tmp_path: Path) -> None:
    groups.deploy(regression(tmp_path, 1))
    blobs = groups.endpoints._blobs("tiny", "staging")

    def late(generation):
        blobs.change(lambda g: g.next(g.deployments))  # somebody who holds no lock
        return generation.next({})

    with pytest.raises(EndpointError, match=r"another deployment has changed .*generation\.json"):
        blobs.change(late)
    assert groups.answering() == 1


def test_no_azure_package_is_loaded_before_it_is_asked(tmp_path: Path) -> None:
    code = "import sys, resources.endpoints.aci, mlops_assets.scoring.follow as _; "
    code += "print([n for n in sys.modules if n.split('.')[0] in ('azure', 'msal')])"
    done = subprocess.run(
        [os.sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
