"""People are told once of what went wrong, whatever is started again in between."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.sensors.alerts import Position, alert_sensor
from resources.alerts import AlertError, Alerts, AlertSettings
from tests.conftest import RELEASE, Platform
from tests.receivers import Chat, Post, chat, mail_server
from tests.repository import WORSE_TRAIN_PY, rows

WATCHED = ("staging", "production")

in_files = pytest.mark.parametrize("instance", ["memory", "files"], indirect=True)


@dataclass
class Watch:
    """The sensor as the daemon runs it: the cursor is kept where the tick did not fail."""

    instance: dg.DagsterInstance
    folder: Path
    variables: dict[str, str]
    cursor: str | None = None

    def tick(self) -> str:
        """One tick; what it says."""
        # Made anew each time, as after a restart of the code server.
        alerts = Alerts(AlertSettings.from_variables(self.variables))
        stopped = dg.DefaultSensorStatus.STOPPED
        sensor = alert_sensor(alerts, self.folder, WATCHED, stopped, "http://localhost:3000/")
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        found = sensor.evaluate_tick(context)
        assert found.run_requests in (None, [])
        self.cursor = found.cursor
        return found.skip_message or ""


@pytest.fixture
def hook() -> Iterator[Chat]:
    with chat() as found:
        yield found


@pytest.fixture
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance in memory; with ``in_files`` one whose event log is a database per run."""
    if getattr(request, "param", "memory") == "memory":
        with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as found:
            yield found
        return
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


@pytest.fixture
def watch(instance: dg.DagsterInstance, hook: Chat, tmp_path: Path) -> Watch:
    """The sensor after its first tick."""
    found = Watch(instance, tmp_path / "alerts", {"MLOPS_ALERT_WEBHOOK": hook.url})
    assert found.tick() == "watches from now on, nothing new"
    return found


def release(
    instance: dg.DagsterInstance,
    version: int,
    closed: Sequence[str] = (),
    warned: Sequence[str] = (),
    model: str = "rent",
) -> dg.ExecuteInProcessResult:
    """A run that registers a version, with its gates."""
    key = dg.AssetKey([model, "registered_model"])
    names = ("quality", "provenance", "gate_development", "gate_staging", "gate_production")

    @dg.asset(key=key)
    def registered_model() -> None: ...

    @dg.multi_asset_check(specs=[dg.AssetCheckSpec(n, asset=key, blocking=True) for n in names])
    def gates() -> Iterator[dg.AssetCheckResult]:
        for name in names:
            severity = dg.AssetCheckSeverity.WARN if name in warned else None
            yield dg.AssetCheckResult(
                passed=name not in (*closed, *warned),
                check_name=name,
                asset_key=key,
                severity=severity or dg.AssetCheckSeverity.ERROR,
                description="r2 0.1 is less than 0.5",
                metadata={"version": version},
            )

    return dg.materialize([registered_model, gates], instance=instance, raise_on_error=False)


def deploy(
    instance: dg.DagsterInstance, environment: str, version: int, failed: Sequence[str]
) -> None:
    """A run that deploys a version; its live checks do not fail it."""
    key = dg.AssetKey(["rent", f"{environment}_endpoint"])

    @dg.asset(
        key=key, check_specs=[dg.AssetCheckSpec(n, asset=key) for n in ("samples", "latency")]
    )
    def endpoint() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        yield dg.MaterializeResult()
        for name in ("samples", "latency"):
            passed = name not in failed
            metadata = {"version": version}
            yield dg.AssetCheckResult(passed=passed, check_name=name, metadata=metadata)

    assert dg.materialize([endpoint], instance=instance).success


def take_snapshot(instance: dg.DagsterInstance, digest: str, failed: Sequence[str]) -> None:
    key = dg.AssetKey(["rent", "dataset"])
    names = ("contract", "volume", "drift")

    @dg.asset(key=key, check_specs=[dg.AssetCheckSpec(n, asset=key) for n in names])
    def dataset() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        for name in names:
            yield dg.AssetCheckResult(
                passed=name not in failed,
                check_name=name,
                severity=dg.AssetCheckSeverity.WARN,
                description="moved: area",
            )
        if "contract" in failed:
            raise dg.Failure("column area: 3 violations")
        yield dg.MaterializeResult(metadata={"snapshot": digest})

    dg.materialize([dataset], instance=instance, raise_on_error=False)


def broken_run(
    instance: dg.DagsterInstance, error: BaseException, tags: dict[str, str] | None = None
) -> str:
    """A run whose first step fails; the second is skipped. Its id."""

    @dg.asset(key=["rent", "trained_model"])
    def trained_model() -> None:
        raise error

    @dg.asset(key=["rent", "package"], deps=[trained_model])
    def package() -> None: ...

    found = dg.materialize(
        [trained_model, package], instance=instance, raise_on_error=False, tags=tags
    )
    assert not found.success
    return found.run_id


@in_files
def test_nothing_new_is_said_and_history_is_not_told(
    instance: dg.DagsterInstance, hook: Chat, tmp_path: Path
) -> None:
    release(instance, 1, closed=["quality"])
    broken_run(instance, ValueError("long ago"))
    watch = Watch(instance, tmp_path / "alerts", {"MLOPS_ALERT_WEBHOOK": hook.url})
    assert watch.tick() == "watches from now on, nothing new"
    assert watch.tick().endswith("nothing new")
    release(instance, 2)
    assert watch.tick() == "looked at 1 runs and 0 sensors, nothing new"
    assert watch.tick() == "looked at 0 runs and 0 sensors, nothing new"
    assert hook.posts == []


@in_files
def test_a_failed_run(watch: Watch, hook: Chat) -> None:
    tags = {"mlops/model": "rent", "mlops/commit": "abc123", "mlops/trigger": "git_sensor"}
    run = broken_run(watch.instance, dg.Failure("train.py raised: no column size"), tags)
    assert "1 new alerts, sent: rent: run failed at trained_model" in watch.tick()
    (text,) = hook.texts
    assert text.splitlines() == [
        "*rent: run failed at trained_model*",
        "train.py raised: no column size",
        "assets: rent/package, rent/trained_model",
        "commit: abc123",
        "started by: git_sensor",
        f"run: {run}",
        f"http://localhost:3000/runs/{run}",
    ]
    for _ in range(3):
        assert "nothing new" in watch.tick()
    assert len(hook.posts) == 1


def test_an_error_is_told_without_its_stack(watch: Watch, hook: Chat) -> None:
    broken_run(watch.instance, ValueError("bad number"))
    watch.tick()
    assert "ValueError: bad number" in hook.texts[0]
    assert "File " not in hook.texts[0]
    broken_run(watch.instance, dg.Failure("\n".join(f"line {i} {'x' * 500}" for i in range(500))))
    watch.tick()
    lines = hook.texts[1].splitlines()
    assert len(lines) < 18
    assert max(len(line) for line in lines) <= 300
    assert "line 0" in hook.texts[1]


@in_files
def test_a_run_whose_process_was_killed(watch: Watch, hook: Chat) -> None:
    asset = dg.AssetSpec(["rent", "trained_model"])
    job = dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
    run = watch.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert "looked at 1 runs" in watch.tick()
    watch.instance.report_run_failed(run, "process 123 ended without a word")
    watch.tick()
    assert "process 123 ended without a word" in hook.texts[0]


@in_files
def test_one_message_for_each_version_and_gate(watch: Watch, hook: Chat) -> None:
    closed = ("quality", "gate_development", "gate_staging")
    for version in (2, 2, 3):
        assert not release(watch.instance, version, closed).success
        watch.tick()
    # The run failed on account of its gates, and on nothing else: that is not told again.
    # What a development environment thinks of a version interests nobody.
    assert hook.titles == [
        "rent version 2: gate quality is closed",
        "rent version 2: the gate of staging is closed",
        "rent version 3: gate quality is closed",
        "rent version 3: the gate of staging is closed",
    ]
    assert "r2 0.1 is less than 0.5" in hook.texts[0]
    release(watch.instance, 2, ["quality"], model="churn")
    watch.tick()
    assert hook.titles[4:] == ["churn version 2: gate quality is closed"]


def test_uncommitted_work_is_no_alert(watch: Watch, hook: Chat) -> None:
    assert release(watch.instance, 2, warned=["provenance"]).success
    watch.tick()
    assert hook.posts == []


def test_live_checks(watch: Watch, hook: Chat) -> None:
    deploy(watch.instance, "staging", 2, ["latency"])
    deploy(watch.instance, "staging", 2, ["latency", "samples"])
    deploy(watch.instance, "production", 2, ["latency"])
    deploy(watch.instance, "development", 2, ["latency"])
    watch.tick()
    assert hook.titles == [
        "rent version 2 in staging: check latency failed",
        "rent version 2 in staging: check samples failed",
        "rent version 2 in production: check latency failed",
    ]


@in_files
def test_warnings_about_data(watch: Watch, hook: Chat) -> None:
    take_snapshot(watch.instance, "aaa", ["volume", "drift"])
    take_snapshot(watch.instance, "aaa", ["drift"])
    take_snapshot(watch.instance, "bbb", ["drift"])
    watch.tick()
    assert hook.titles == [
        "rent: check volume warns about the data",
        "rent: check drift warns about the data",
        "rent: check drift warns about the data",
    ]
    take_snapshot(watch.instance, "", ["contract"])
    watch.tick()
    assert hook.titles[3:] == ["rent: run failed at dataset"], "told once, as a failed run"


@in_files
def test_a_run_that_goes_on_is_looked_at_already(watch: Watch, hook: Chat) -> None:
    key = dg.AssetKey(["rent", "registered_model"])
    said: list[str] = []

    @dg.asset(key=key, check_specs=[dg.AssetCheckSpec("quality", asset=key)])
    def registered_model() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        yield dg.MaterializeResult()
        metadata = {"version": 2}
        yield dg.AssetCheckResult(passed=False, check_name="quality", metadata=metadata)

    @dg.asset(deps=[registered_model])
    def much_later() -> None:
        said.append(watch.tick())

    dg.materialize([registered_model, much_later], instance=watch.instance)
    assert "sent: rent version 2: gate quality is closed" in said[0]
    watch.tick()
    assert len(hook.posts) == 1


def test_a_lost_cursor_repeats_nothing(watch: Watch, hook: Chat) -> None:
    first = watch.cursor
    release(watch.instance, 2, ["quality"])
    broken_run(watch.instance, ValueError("bad"))
    watch.tick()
    assert len(hook.posts) == 2
    for cursor in (first, None, "nonsense"):
        watch.cursor = cursor
        assert "nothing new" in watch.tick()
    assert "nothing new" in watch.tick()
    assert len(hook.posts) == 2


@in_files
def test_nothing_is_lost_while_the_daemon_is_down(watch: Watch, hook: Chat) -> None:
    for version in range(2, 6):
        release(watch.instance, version, ["quality"])
    broken_run(watch.instance, ValueError("bad"))
    watch.tick()
    assert len(hook.posts) == 5
    position = Position.model_validate_json(watch.cursor or "")
    assert len(position.read) == 5


@in_files
def test_runs_that_become_visible_late(watch: Watch, hook: Chat) -> None:
    """A run whose last change is a little older than one that was looked at before it."""
    broken_run(watch.instance, ValueError("first"))
    watch.tick()
    position = json.loads(watch.cursor or "")
    position["updated"] += 10
    watch.cursor = json.dumps(position)
    broken_run(watch.instance, ValueError("late"))
    watch.tick()
    assert len(hook.posts) == 2


def test_at_most_twenty_messages_in_a_tick(watch: Watch, hook: Chat) -> None:
    for version in range(2, 25):
        release(watch.instance, version, ["quality"])
    said = watch.tick()
    assert "23 new alerts" in said
    assert said.endswith("3 wait for the next tick")
    assert len(hook.posts) == 20
    assert "sent: rent version 22" in watch.tick()
    assert [title.split()[2] for title in hook.titles] == [f"{v}:" for v in range(2, 25)]


@in_files
def test_a_webhook_that_is_down_gets_it_later(
    instance: dg.DagsterInstance, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with chat() as gone:
        port = gone.port
    with mail_server(Post()) as post:
        watch = Watch(
            instance,
            tmp_path / "alerts",
            {
                "MLOPS_ALERT_WEBHOOK": gone.url,
                "MLOPS_ALERT_SMTP": f"smtp://127.0.0.1:{post.port}",
                "MLOPS_ALERT_EMAIL": "ada@example.org",
                "MLOPS_ALERT_FROM": "mlops@example.org",
            },
        )
        watch.tick()
        for version in (2, 3):
            release(instance, version, ["quality"])
            for _ in range(2):
                with pytest.raises(AlertError, match=r"webhook 127\.0\.0\.1: cannot connect"):
                    watch.tick()
        with chat(port) as back:
            assert "sent: rent version 2" in watch.tick()
            assert "nothing new" in watch.tick()
        titles = [f"rent version {v}: gate quality is closed" for v in (2, 3)]
        assert back.titles == titles
        assert [mail["Subject"] for _, mail in post.mails] == [f"[mlops] {t}" for t in titles]
    logged = [r.getMessage().splitlines()[0] for r in caplog.records if r.name == "mlops.alerts"]
    assert logged == titles


def test_a_message_that_is_refused_holds_up_no_other(watch: Watch, hook: Chat) -> None:
    hook.answers = [(400, "invalid_payload")]
    release(watch.instance, 2, ["quality"])
    release(watch.instance, 3, ["quality"])
    with pytest.raises(AlertError, match="answers 400 invalid_payload"):
        watch.tick()
    assert hook.titles == ["rent version 3: gate quality is closed"]
    watch.tick()
    assert hook.titles[1:] == ["rent version 2: gate quality is closed"]


def test_a_worse_train_py(released: Platform, hook: Chat, tmp_path: Path) -> None:
    """The gates of the platform itself, closed by a model that learnt nothing."""
    variables = {"MLOPS_ALERT_WEBHOOK": hook.url}
    watch = Watch(released.instance, tmp_path / "alerts", variables)
    watch.tick()
    released.repository.train_py(WORSE_TRAIN_PY)
    assert not released.materialize(*RELEASE)
    watch.tick()
    assert hook.titles == [
        "rent version 2: gate quality is closed",
        "rent version 2: the gate of staging is closed",
        "rent version 2: the gate of production is closed",
    ]
    assert "closed: r2 " in hook.texts[0]
    released.repository.train_py("raise RuntimeError('no luck')\n")
    assert not released.materialize(*RELEASE)
    watch.tick()
    assert hook.titles[3:] == ["rent: run failed at trained_model"]
    assert "no luck" in hook.texts[3]
    released.data(rows(50).replace("north", "west"), "more.csv")
    assert not released.materialize("dataset")
    watch.tick()
    assert hook.titles[4:] == ["rent: run failed at dataset"]


def test_a_tick_with_nothing_new_is_quick_after_many_runs(watch: Watch) -> None:
    for version in range(2, 12):
        release(watch.instance, version)
    watch.tick()
    began = time.perf_counter()
    assert "looked at 0 runs" in watch.tick()
    assert time.perf_counter() - began < 1
