"""People at Dagster's page: they release a model, look at it, and let it into production."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from mlops_assets.assets.live_checks import LIVE_CHECKS
from mlops_assets.files import read_json
from mlops_assets.gates import GATES
from resources.environment import checkout
from resources.serving import Serving
from tests.repository import Repository
from tests.system.browser import LOCATION, DagsterPage, chromium
from tests.system.daemon import Daemon, living

MODEL = "diabetes"
CHAIN = (
    "training_code",
    "raw_data",
    "dataset",
    "trained_model",
    "registered_model",
    "package",
    "development_endpoint",
    "staging_endpoint",
    "production_approval",
    "production_endpoint",
)
#: Of the window, in pixels: all assets from top to bottom; a tick's log.
GRAPH_HEIGHT = 1150
TICK_HEIGHT = 700

pytestmark = pytest.mark.timeout(900)


def copy_of_the_checkout(folder: Path) -> Repository:
    """The platform as it lies here, as the first commit of a repository of its own."""
    here = checkout()
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=here,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (here / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here / name, folder / name)
    repository = Repository(folder)
    repository.git("init", "--quiet", "--initial-branch", "main")
    repository.commit("The platform and its sample models")
    return repository


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """`mlops dev` on a copy of the checkout where production waits for approval; no data yet."""
    repository = copy_of_the_checkout(tmp_path / "platform")
    file = "environments/local/production.json"
    production = json.loads((repository.path / file).read_text())
    repository.write(file, json.dumps({**production, "approval": "required"}, indent=2))
    repository.commit("Production asks for approval")
    # Not another repository: what is trained is the copy's own head.
    with living(Daemon(tmp_path, repository, {"MLOPS_REPOSITORY": ""})) as found:
        yield found


@pytest.fixture
def dagster(
    request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path
) -> Iterator[DagsterPage]:
    """The page, in a browser; screenshots go to the folder MLOPS_SCREENSHOTS, if set."""
    url = daemon.wait("the page", lambda: url_of(daemon))
    assert url
    folder = Path(os.environ.get("MLOPS_SCREENSHOTS") or tmp_path / "screenshots").absolute()
    with chromium() as page:
        found, failed = DagsterPage(page, url, folder), request.session.testsfailed
        yield found
        if request.session.testsfailed > failed:
            found.screenshot("failure")
            print(f"what the page showed: {folder / 'failure.png'}")
        assert found.foreign == []


def url_of(daemon: Daemon) -> str | None:
    """Where the page answers, with the code location loaded; None if not yet."""
    file = daemon.home / "page.json"
    if not file.is_file():
        return None
    url = f"http://127.0.0.1:{read_json(file)['port']}"
    try:
        answer = httpx.post(
            f"{url}/graphql",
            json={"query": "{ assetNodes { assetKey { path } } }"},
            trust_env=False,
            timeout=60,
        )
    except httpx.HTTPError:
        return None
    return url if answer.status_code == 200 and answer.json()["data"]["assetNodes"] else None


def serves(daemon: Daemon, environment: str) -> int | None:
    """The version of the model that answers in an environment."""
    status = Serving(daemon.profile).status(MODEL, environment)
    return status.version if status.healthy else None


def test_a_release_by_hand_its_gates_and_the_approval(daemon: Daemon, dagster: DagsterPage) -> None:
    dagster.resize(GRAPH_HEIGHT)
    dagster.graph(MODEL)
    for name in CHAIN:
        expect(dagster.page.get_by_text(name, exact=True).first).to_be_visible()
    dagster.resize()

    # The data is seen and reported; a person, and not the automation, makes the release.
    dagster.switch_sensor("automation", "off")
    upload(daemon)
    dagster.tick_says("git_sensor", "1 repository, 2 models: (2 looked at, reported|nothing moved)")
    dagster.tick_says("data_sensor", f"(reported|unchanged): {MODEL}")
    dagster.launch_job(f"{MODEL}_release")
    see_the_gates(dagster)
    see_the_pictures(dagster)
    assert (serves(daemon, "staging"), serves(daemon, "production")) == (None, None)

    # The automation takes it to staging, and then waits for a person.
    dagster.switch_sensor("automation", "on")
    daemon.wait("version 1 in staging", lambda: serves(daemon, "staging") == 1)
    dagster.tick_says(
        "automation", "production_endpoint: (?!.*has not served).*version 1 waits for approval"
    )
    dagster.resize(TICK_HEIGHT)
    dagster.screenshot("sensors")
    dagster.resize()
    assert serves(daemon, "production") is None
    approve(dagster)
    daemon.wait("version 1 in production", lambda: serves(daemon, "production") == 1)

    history = json.loads(daemon.mlops("history", MODEL, "--json"))
    assert "Grace Hopper" in json.dumps(history[-1])
    see_it_deployed(dagster)


def upload(daemon: Daemon) -> None:
    """Put the sample data of the model where the data sensor looks."""
    target = daemon.home / "storage" / MODEL
    target.mkdir(parents=True)
    for file in (daemon.platform / "samples" / "data" / MODEL).glob("*.csv"):
        shutil.copy(file, target)


def see_the_gates(dagster: DagsterPage) -> None:
    """All checks of the version have passed, each with what it asks and what it found."""
    environments = ("development", "staging", "production")
    assert dagster.open_checks(MODEL, "registered_model") == len(GATES) + len(environments)
    for environment in environments:
        dagster.passed(f"gate_{environment}", f"Whether {environment} would take the version.")
    for gate, asks in GATES.items():
        dagster.passed(gate, asks)
    told = dagster.passed("quality", GATES["quality"])
    assert re.search(r"open: .*mean_absolute_error", told), told
    dagster.screenshot("checks")


def see_the_pictures(dagster: DagsterPage) -> None:
    """The evaluation's pictures are drawn on the page of the trained model."""
    dagster.asset(MODEL, "trained_model")
    expect(dagster.page.get_by_role("cell", name="mean_absolute_error").first).to_be_visible()
    sizes = dagster.open_pictures()
    assert sizes
    assert all(width >= 300 and height >= 200 for width, height in sizes), sizes
    dagster.screenshot("evaluation")
    dagster.close()


def approve(dagster: DagsterPage) -> None:
    """Approve the version for production in the launchpad, by name and reason."""
    launchpad = dagster.open_launchpad(MODEL, "production_approval")
    words = {"by": "Grace Hopper", "reason": "Errors are small in every slice"}
    dagster.type_config(launchpad, words)
    # What a field means stands beside it.
    expect(launchpad.get_by_text("How long an approval can be used")).to_be_visible()
    dagster.screenshot("approval")
    dagster.launch(launchpad)
    dagster.asset(MODEL, "production_approval")
    for text in ("approved", *words.values()):
        expect(dagster.page.get_by_text(text, exact=True).first).to_be_visible()


def see_it_deployed(dagster: DagsterPage) -> None:
    """The endpoint's own checks have passed, and the graph shows the whole chain."""
    assert dagster.open_checks(MODEL, "production_endpoint") == len(LIVE_CHECKS)
    for check, asks in LIVE_CHECKS.items():
        dagster.passed(check, asks)
    dagster.resize(GRAPH_HEIGHT)
    dagster.open(f"{LOCATION}/asset-groups/{MODEL}")
    drawn = dagster.page.get_by_text(re.compile("^4 / 4 Passed$"))
    expect(drawn).to_have_count(2)
    dagster.screenshot("graph")
