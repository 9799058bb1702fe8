"""The platform by itself, with the real daemon: what is pushed or dropped serves, or is refused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import dagster as dg
import pytest

from mlops_assets.runs import COMMIT_TAG
from tests.receivers import Chat, chat
from tests.repository import SAMPLES, TRAIN_PY, WORSE_TRAIN_PY, rows
from tests.system.daemon import Daemon, living
from tests.system.stages import show, stages
from tests.system.team import make_daemon

BROKEN_TRAIN_PY = "def build(params):\n    raise ValueError('no idea')\n"
#: Promotes from staging too, but waits for a person; production does not wait for it.
AUDITED = {
    "name": "audited",
    "target": "local",
    "promotes_from": "staging",
    "approval": "required",
    "latency_ms": 2000,
}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Chat]:
    with chat() as found:
        yield found


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, receiver: Chat) -> Iterator[Daemon]:
    """The living daemon, after the first release."""
    made = make_daemon(
        tmp_path_factory.mktemp("daemon"),
        {
            "environments/local/audited.json": json.dumps(AUDITED),
            "samples/requests/rent/audited.json": SAMPLES,
        },
        MLOPS_ALERT_WEBHOOK=receiver.url,
    )
    with living(made) as found:
        found.wait_serving(1)
        yield found


@pytest.fixture(autouse=True)
def tail(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[None]:
    """Print what the daemon said where a test failed."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        print(daemon.tail())


def another(text: str = TRAIN_PY) -> str:
    """The same model under another identity: a version of its own."""
    return f"{text}\n# {uuid.uuid4()}\n"


def release(daemon: Daemon, text: str, message: str) -> int:
    """Push a train.py that is good, and wait until its version serves; the version."""
    version = len(daemon.registry.versions("rent")) + 1
    daemon.push(text, message)
    daemon.wait_serving(version)
    return version


def test_the_first_release_serves_without_a_hand(daemon: Daemon) -> None:
    assert daemon.serving() == (1, 1)
    daemon.wait_rest()
    runs = daemon.runs()
    assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * len(runs)
    assert len(runs) == 2  # the release, and its deployment


def test_a_better_train_py_serves(daemon: Daemon) -> None:
    before, runs = len(daemon.registry.versions("rent")), len(daemon.runs())
    with daemon.asked_all_the_time() as answers:
        commit, pushed = daemon.push(another(), "knows the district too")
        daemon.wait_serving(before + 1)
    assert answers == {before, before + 1}
    daemon.wait_rest()
    measured = stages(daemon, before + 1, pushed)
    show("a push", measured)
    version = daemon.registry.version("rent", before + 1)
    assert version.manifest.source.commit == commit
    assert len(daemon.runs()) == runs + 2


def test_a_new_data_file_serves(daemon: Daemon) -> None:
    before = daemon.registry.versions("rent")
    with daemon.asked_all_the_time() as answers:
        dropped = daemon.data(rows(200, start=200), "more.csv")
        daemon.wait_serving(len(before) + 1)
    assert answers == {before[-1].version, len(before) + 1}
    daemon.wait_rest()
    measured = stages(daemon, len(before) + 1, dropped)
    show("a file, which must lie still for 5 s", measured)
    version = daemon.registry.version("rent", len(before) + 1)
    assert version.manifest.snapshot.rows == 400
    assert version.manifest.source.commit == before[-1].manifest.source.commit


def test_a_worse_train_py_is_held_back(daemon: Daemon, receiver: Chat) -> None:
    before, serving = len(daemon.registry.versions("rent")), daemon.serving()
    with daemon.asked_all_the_time() as answers:
        daemon.push(another(WORSE_TRAIN_PY), "worse")
        title = f"rent version {before + 1}: gate quality is closed"
        daemon.wait(f"an alert: {title}", lambda: title in receiver.titles)
        daemon.wait_rest()
    assert len(daemon.registry.versions("rent")) == before + 1
    assert daemon.serving() == serving
    assert answers == {serving[1]}
    assert receiver.titles.count(title) == 1


def test_a_broken_train_py_is_tried_once(daemon: Daemon, receiver: Chat) -> None:
    versions, serving = len(daemon.registry.versions("rent")), daemon.serving()
    failed = len(daemon.runs(dg.DagsterRunStatus.FAILURE))
    title = "rent: run failed at trained_model"
    with daemon.asked_all_the_time() as answers:
        commit, _ = daemon.push(another(BROKEN_TRAIN_PY), "broken")
        daemon.wait(
            f"an alert: {title}",
            lambda: any(title in text and commit[:10] in text for text in receiver.texts),
        )
        daemon.wait_rest(5)
    assert len(daemon.runs(dg.DagsterRunStatus.FAILURE)) == failed + 1
    tags = [run.tags.get(COMMIT_TAG, "none") for run in daemon.runs()]
    assert sum(commit.startswith(tag) for tag in tags) == 1
    told = [text for text in receiver.texts if commit[:10] in text]
    assert len(told) == 1
    assert "no idea" in told[0]
    assert len(daemon.registry.versions("rent")) == versions
    assert daemon.serving() == serving
    assert answers == {serving[1]}


def test_a_rollback_holds_until_it_is_resumed(daemon: Daemon) -> None:
    first = release(daemon, another(), "one")
    second = release(daemon, another(), "another")
    daemon.wait_rest()
    daemon.mlops("rollback", "rent", "production")
    assert daemon.serving() == (second, first)
    daemon.wait_rest(4)
    assert daemon.serving() == (second, first)
    daemon.mlops("resume", "rent", "production")
    daemon.wait_serving(second)


def test_an_approval_lets_a_version_through(daemon: Daemon) -> None:
    version = release(daemon, another(), "for audit")
    daemon.wait_rest()
    assert daemon.serves("audited") is None
    said = ("--by", "ada", "--reason", "looks right")
    daemon.mlops("reject", "rent", "audited", str(version), *said)
    daemon.wait_rest()
    assert daemon.serves("audited") is None
    daemon.mlops("approve", "rent", "audited", str(version), *said)
    daemon.wait(f"version {version} in audited", lambda: daemon.serves("audited") == version)
    later = release(daemon, another(), "not yet seen by anybody")
    daemon.wait_rest()
    assert (daemon.serves("audited"), daemon.serves("production")) == (version, later)


def test_no_sensor_failed(daemon: Daemon, receiver: Chat) -> None:
    """Last: over all that happened above."""
    for state in daemon.instance.all_instigator_state():
        ticks = daemon.instance.get_ticks(state.instigator_origin_id, state.selector_id)
        assert [tick.error for tick in ticks if tick.error] == [], state.instigator_name
    assert [title for title in receiver.titles if "fails" in title] == []
