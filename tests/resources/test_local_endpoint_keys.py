"""Keys are made anew while an endpoint answers: nobody who has the other one notices."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from mlops_assets.scoring.generation import read_acks
from mlops_assets.scoring.keys import KEYS, Role, read_keys
from resources.endpoints.base import EndpointError
from resources.endpoints.local import LocalEndpoints, LocalSettings
from tests.bundles import exported
from tests.local_servers import ASK, eventually, serve, staging_folder


def test_an_endpoint_without_keys(endpoints: LocalEndpoints) -> None:
    with pytest.raises(EndpointError, match="no key; deploy to this endpoint first"):
        endpoints.rotate_key("tiny", "staging", "primary")


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_under_load(endpoints: LocalEndpoints, tmp_path: Path, role: Role) -> None:
    serve(endpoints, exported(tmp_path, 1), LocalSettings(workers=2))
    folder = staging_folder(tmp_path)
    eventually(lambda: len(read_acks(folder)) == 2)
    workers = {ack.pid for ack in read_acks(folder)}
    url = endpoints.status("tiny", "staging").url
    assert url is not None
    changes, stays = (0, 1) if role == "primary" else (1, 0)
    kept = read_keys(folder / KEYS)[stays]
    ended = threading.Event()
    statuses: list[int] = []

    def hold(key: bytes) -> None:
        with httpx.Client(
            trust_env=False, headers={"authorization": f"Bearer {key.decode()}"}
        ) as c:
            while not ended.is_set():
                statuses.append(c.post(url, content=ASK.body).status_code)

    holders = [threading.Thread(target=hold, args=(kept,)) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        old = [read_keys(folder / KEYS)[changes]]
        for _ in range(5):
            line = 1 if role == "primary" else 2
            assert (
                endpoints.rotate_key("tiny", "staging", role) == f"line {line} of {folder / KEYS}"
            )
            new = read_keys(folder / KEYS)[changes]
            for _ in range(4):  # whichever worker answers
                assert status(url, new) == 200
            old.append(new)
        for key in old[:-1]:
            eventually(lambda key=key: {status(url, key) for _ in range(6)} == {401})
    finally:
        ended.set()
        for holder in holders:
            holder.join(10)
    assert {*statuses} == {200}
    assert len(statuses) > 20
    assert {ack.pid for ack in read_acks(folder)} == workers  # nothing was started again


def status(url: str, key: bytes) -> int:
    headers = {"authorization": f"Bearer {key.decode()}"}
    return httpx.post(url, content=ASK.body, headers=headers, trust_env=False).status_code
