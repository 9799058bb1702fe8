"""What people do by hand: approve, reject, roll back, resume, override, and look back."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlops_assets import cli
from resources.environment import load_profile
from resources.registry import LocalRegistry
from tests.conftest import CHAIN, RELEASE, Platform
from tests.repository import TRAIN_PY, WORSE_TRAIN_PY, make_repository
from tests.versions import deployed, registered

Change = Callable[..., None]
BY = ("--by", "ada", "--reason", "looks right")
OVERRIDE = {"by": "ada", "reason": "it burns"}


def mlops(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def change(root: Path, environment: str, **settings: object) -> None:
    """Change an environment's file."""
    path = root / "environments" / "local" / f"{environment}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def steer(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``mlops`` work on a clone."""
    (root / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("MLOPS_HOME", str(home))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setattr("resources.environment.checkout", lambda: root)


@pytest.fixture
def platform(released: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A clone whose version 1 is released; ``mlops`` works there."""
    steer(released.repository.path, released.profile.home, monkeypatch)
    return released


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRegistry:
    """A registry with two versions and no model in them; ``mlops`` works there."""
    root = make_repository(tmp_path / "clone").path
    change(root, "production", approval="required")
    steer(root, tmp_path / "home", monkeypatch)
    found = LocalRegistry(root=str(tmp_path / "home" / "registry"))
    for identity in ("i1", "i2"):
        registered(found, identity)
    return found


def serve(platform: Platform, *versions: int) -> None:
    """Deploy versions one after another to both environments; makes those that are missing."""
    for number in versions:
        if number > len(platform.registry.versions("rent")):
            platform.repository.train_py(f"{TRAIN_PY}\n# {number}\n")
            assert platform.materialize(*RELEASE), platform.failures
        config = {name: {"version": number} for name in CHAIN[3:]}
        assert platform.materialize(*CHAIN[3:], config=config), platform.failures


def test_approve_and_reject(registry: LocalRegistry) -> None:
    code, said = mlops("approve", "rent", "production", "2", *BY)
    assert (code, said) == (0, "rent version 2 is approved for production by ada\n")
    code, said = mlops("reject", "rent", "production", "2", *BY)
    assert (code, said) == (0, "rent version 2 is rejected for production by ada\n")
    code, said = mlops("approve", "rent", "production", "2", *BY, "--expires", "24h")
    assert code == 0
    assert re.fullmatch(
        r"rent version 2 is approved for production by ada, until 20\S+\+00:00\n", said
    )
    found = [(r["decision"], r["version"]) for r in registry.records("rent", "approvals")]
    assert found == [("approved", 2), ("rejected", 2), ("approved", 2)]


def test_an_approval_stands_on_the_page(
    registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    mlops("approve", "rent", "production", "2", *BY)
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        event = instance.get_latest_materialization_event(
            dg.AssetKey(["rent", "production_approval"])
        )
    assert event is not None
    assert event.asset_materialization is not None
    shown = {k: v.value for k, v in event.asset_materialization.metadata.items()}
    assert (shown["by"], shown["decision"], shown["version"]) == ("ada", "approved", 2)
    assert shown["digest"] == registry.version("rent", 2).digest


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("approve", "rent", "production", "9", *BY), 1, "has no version 9; registered: 1, 2"),
        (("approve", "rent", "moon", "1", *BY), 1, "no environment 'moon' in profile local"),
        (("approve", "rent", "staging", "1", *BY), 1, "staging asks for no approval; set"),
        (("approve", "rnt", "production", "1", *BY), 2, "no model 'rnt'; there are: rent"),
        (("approve", "rent", "production", "1", "--by", "ada"), 2, "Missing option '--reason'"),
        (
            ("approve", "rent", "production", "1", "--by", " ", "--reason", "r"),
            1,
            "an approval has a name and a reason",
        ),
        (("approve", "rent", "production", "one", *BY), 2, "'one' is not a valid integer"),
        (
            ("approve", "rent", "production", "1", *BY, "--expires", "tomorrow"),
            1,
            "--expires 'tomorrow': give a duration such as 30m, 24h or 7d",
        ),
        (("reject", "rent", "production", "9", *BY), 1, "has no version 9"),
        (("rollback", "rent", "production"), 1, "no other version has served there"),
        (("rollback", "rent", "moon"), 1, "no environment 'moon'"),
        (("rollback", "rnt", "production"), 2, "no model 'rnt'"),
        (("resume", "rent", "moon"), 1, "no environment 'moon'"),
        (("resume", "rnt", "production"), 2, "no model 'rnt'"),
        (("history", "rnt"), 2, "no model 'rnt'"),
        (("history", "rent", "--at", "noon"), 2, "'noon' is no time; give one such as"),
    ],
)
def test_what_cannot_be_done(
    registry: LocalRegistry, arguments: list[str], code: int, message: str
) -> None:
    assert (code, True) == (lambda r: (r[0], message in r[1] or r[1]))(mlops(*arguments))
    assert registry.records("rent", "approvals") == []


def test_history_as_a_table_and_as_json(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mlops("history", "rent") == (0, "rent: nothing has served\n")
    one, two = registry.versions("rent")
    deployed(registry, one, "staging", "2026-01-05T01:00:00.5+00:00")
    deployed(registry, two, "staging", "2026-01-05T03:00:00.5+00:00")
    code, table = mlops("history", "rent")
    header, first, second = table.splitlines()
    assert code == 0
    assert header.split("  ")[0] == "SINCE"
    assert first.split() == [
        *("2026-01-05T01:00:00", "2026-01-05T03:00:00", "staging", "1"),
        *("cccccccccc", "m", "Ada", "s1", "-", "-", "-"),
    ]
    assert second.split()[:4] == ["2026-01-05T03:00:00", "now", "staging", "2"]
    code, text = mlops("history", "rent", "--json")
    assert [(s["version"], s["until"] is None) for s in json.loads(text)] == [(1, False), (2, True)]
    code, text = mlops("history", "rent", "--json", "--at", "2026-01-05T02:00:00Z")
    assert [s["version"] for s in json.loads(text)] == [1]
    at = "2026-01-05T00:00:00Z"
    assert mlops("history", "rent", "--at", at) == (0, f"rent: nothing has served at {at}\n")
    assert mlops("history", "rent", "--at", at, "--json") == (0, "[]\n")


@pytest.mark.parametrize(
    "arguments", [("rollback", "rent", "production", "1"), ("monitor", "rent", "production")]
)
def test_a_model_yaml_that_is_wrong_is_the_one_error(
    registry: LocalRegistry,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # What serves was released by a model.yaml that was right.
    def serves(*_: object) -> object:
        return registry.version("rent", 1)

    monkeypatch.setattr("mlops_assets.steering.sight", serves)
    path = load_profile().models / "rent" / "model.yaml"
    path.write_text(path.read_text().replace("nullable", "nullible"))
    code, said = mlops(*arguments)
    assert (code, len(said.splitlines())) == (1, 1), said
    assert "model.yaml: data.columns.district.nullible: unknown key" in said
    assert "left out" not in capfd.readouterr().err


def test_rollback_and_resume(platform: Platform, capfd: pytest.CaptureFixture[str]) -> None:
    serve(platform, 1, 2)
    platform.see()
    assert platform.settle() == [["package"]]  # the rest is done by hand already
    code, said = mlops("rollback", "rent", "production")
    assert code == 0, said
    assert (platform.serves("staging"), platform.serves("production")) == (2, 1)
    platform.see()
    assert platform.settle() == []
    # Once more: back to where it was; then to a version by its number.
    assert mlops("rollback", "rent", "production")[0] == 0
    assert platform.serves("production") == 2
    assert mlops("rollback", "rent", "production", "1")[0] == 0
    assert platform.serves("production") == 1
    assert mlops("resume", "rent", "production") == (
        0,
        "rent in production follows the releases again, while the sensors run\n",
    )
    assert platform.settle() == [["production_endpoint"]]
    assert platform.serves("production") == 2
    served = [
        (s["environment"], s["version"])
        for s in json.loads(mlops("history", "rent", "--json")[1])
        if s["environment"] == "production"
    ]
    assert [number for _, number in served] == [1, 2, 1, 2, 1, 2]
    capfd.readouterr()


def test_a_rollback_goes_through_the_gates(
    platform: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    serve(platform, 1, 2)
    code, said = mlops("rollback", "rent", "production", "7")
    assert code == 1
    assert "Error: the run failed" in said
    pickle = platform.registry.version("rent", 1).bundle / "model.pkl"
    pickle.write_bytes(b"")
    code, said = mlops("rollback", "rent", "production")
    assert code == 1
    assert "files differ from what was registered: model.pkl" in said + capfd.readouterr().err
    assert platform.serves("production") == 2
    # What was refused pins nothing: what is released next goes there.
    change(platform.repository.path, "production", approval="required")
    code, said = mlops("rollback", "rent", "production", "2")
    assert code == 1
    assert "version 2 waits for approval" in said + capfd.readouterr().err


def test_an_override_where_it_is_allowed(platform: Platform) -> None:
    serve(platform, 1)
    platform.repository.train_py(WORSE_TRAIN_PY)
    assert not platform.materialize(*RELEASE)
    for environment in ("staging", "production"):
        change(platform.repository.path, environment, override="allowed")
    config = {"staging_endpoint": {"override": OVERRIDE}}
    assert not platform.materialize("staging_endpoint", config=config)
    assert "staging allows no override; its JSON file would have to say" in platform.failures
    platform.reload()
    for nobody in ({"by": " ", "reason": "r"}, {"by": "ada", "reason": ""}):
        config = {"staging_endpoint": {"override": nobody}}
        assert not platform.materialize("staging_endpoint", config=config)
        assert "an override has a name and a reason" in platform.failures
    assert not platform.materialize("staging_endpoint")
    assert "closed gates: quality" in platform.failures
    config = {name: {"override": OVERRIDE} for name in CHAIN[3:]}
    assert platform.materialize(*CHAIN[3:], config=config), platform.failures
    assert (platform.serves("staging"), platform.serves("production")) == (2, 2)
    card = platform.metadata("production_endpoint")["card"]
    assert "deployed to staging past champion, quality by ada: it burns" in card
    assert "deployed to production past quality by ada: it burns" in card.replace("champion, ", "")
    code, table = mlops("history", "rent")
    assert code == 0
    last = table.splitlines()[-1]
    assert "ada: it burns (" in last
    assert "quality" in last
    assert "ada" not in table.splitlines()[1].replace("Ada", "")


def test_an_override_past_a_missing_approval_and_staging(platform: Platform) -> None:
    change(platform.repository.path, "production", override="allowed", approval="required")
    platform.reload()
    config = {"production_endpoint": {"override": OVERRIDE}}
    assert platform.materialize("production_endpoint", config=config), platform.failures
    assert platform.serves("production") == 1
    (record,) = platform.registry.records("rent", "overrides")
    assert sorted(record["gates"]) == ["approval", "promotion"]
    found = json.loads(mlops("history", "rent", "--json")[1])
    assert [(s["approved_by"], s["override"]) for s in found] == [
        (None, "ada: it burns (approval, promotion)")
    ]


@pytest.mark.parametrize("damaged", ["model.pkl", "manifest.json"])
def test_nobody_can_answer_for_other_bytes(platform: Platform, damaged: str) -> None:
    change(platform.repository.path, "staging", override="allowed")
    platform.reload()
    path = platform.registry.version("rent", 1).bundle / damaged
    path.write_bytes(path.read_bytes() + b" ")
    config = {"staging_endpoint": {"override": OVERRIDE}}
    assert not platform.materialize("staging_endpoint", config=config)
    assert f"files differ from what was registered: {damaged}" in platform.failures
    assert platform.serves("staging") is None
    assert platform.registry.records("rent", "overrides") == []


def test_approved_on_the_command_line(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    change(platform.repository.path, "production", approval="required")
    platform.reload()
    platform.repository.train_py(f"{TRAIN_PY}\n# 2\n")
    platform.see()
    assert platform.settle()[-1] == ["staging_endpoint"]
    # Another version's says nothing about this one.
    mlops("approve", "rent", "production", "1", *BY)
    assert platform.settle() == []
    mlops("approve", "rent", "production", "2", *BY)
    assert platform.settle() == [["production_endpoint"]]
    assert platform.serves("production") == 2
    card = platform.metadata("production_endpoint")["card"]
    assert "approved for production by ada: looks right" in card
    assert "approved by ada: looks right" in platform.metadata("production_endpoint")["verdicts"]
    found = json.loads(mlops("history", "rent", "--json")[1])
    assert found[-1]["approved_by"] == "ada"
    # The way back is open to what was approved, as long as it is.
    serve_staging = {"staging_endpoint": {"version": 1}}
    assert platform.materialize("staging_endpoint", config=serve_staging), platform.failures
    code, said = mlops("rollback", "rent", "production", "1")
    assert code == 0, said
    mlops("reject", "rent", "production", "2", *BY)
    code, said = mlops("rollback", "rent", "production", "2")
    assert code == 1
    assert "rejected by ada: looks right" in said + capfd.readouterr().err
    assert platform.serves("production") == 1
    assert load_profile().environment("production").approval == "required"
