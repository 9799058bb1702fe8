"""What people do by hand on a command line: runs of their own, approvals, rollbacks."""

import datetime as dt
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster import PreviewWarning

from mlops_assets.approval import ApprovalError, Decision, decide, parse_duration
from mlops_assets.assets import approval, infrastructure, monitoring
from mlops_assets.assets.endpoint import asset_name
from mlops_assets.definitions import build_definitions
from mlops_assets.errors import UserError
from mlops_assets.judgement import DEPLOYMENTS
from mlops_assets.monitoring.report import Report
from mlops_assets.progress import progress
from mlops_assets.runs import MODEL_TAG, TRIGGER_TAG, fail_dead_runs
from mlops_assets.spec import load_model
from mlops_assets.watch import Reports, WatchError, asset_key, sight
from mlops_assets.wiring import build_resources
from resources.attempts import Attempts
from resources.environment import Profile
from resources.registry import Registry


class SteeringError(UserError):
    """What was asked for cannot be done; the message says why."""


def materialize(
    defs: dg.Definitions,
    keys: Iterable[dg.AssetKey],
    tags: Mapping[str, str],
    config: Mapping[str, Any] | None = None,
) -> bool:
    """Materialize assets with their checks in a run of this process; True if it succeeded.

    Args:
        defs: the code location.
        keys: of the assets.
        tags: of the run.
        config: op name -> its config.
    """
    lines = dg.Definitions(loggers={"progress": progress})
    job = dg.Definitions.merge(defs, lines).resolve_implicit_global_asset_job_def()
    ops = {name: {"config": value} for name, value in (config or {}).items()}
    # Dagster's own use of its own previews, once per training process.
    warnings.filterwarnings("ignore", category=PreviewWarning)
    with dg.DagsterInstance.get() as instance:
        fail_dead_runs(instance)
        result = job.execute_in_process(
            instance=instance,
            asset_selection=list(keys),
            run_config={"loggers": {"progress": {}}, "ops": ops},
            tags=dict(tags),
            raise_on_error=False,
        )
    return result.success


def release_all(profile: Profile) -> bool:
    """Release every model, and deploy it to every environment but the development ones.

    Models are independent: what fails for one does not hold back another.
    """
    by_hand = {asset_name(e.name) for e in profile.environments if e.development}
    by_hand |= {approval.asset_name(e.name) for e in profile.environments}
    defs = build_definitions(profile)
    keys = defs.resolve_asset_graph().materializable_asset_keys
    wanted = sorted(
        key
        for key in keys
        if key.path[-1] not in by_hand
        and key.path[0] != infrastructure.GROUP
        and not key.path[-1].endswith(monitoring.SUFFIX)
    )
    return materialize(defs, wanted, {TRIGGER_TAG: "demo"})


def make_infrastructure(profile: Profile, environment: str, prune: Sequence[str]) -> bool:
    """Make Azure as the documents of an environment say; remove the computes named, and no other.

    Raises:
        SteeringError: the environment has no such documents.
        UnknownEnvironmentError: no such environment.
    """
    profile.environment(environment)
    defs, key = build_definitions(profile), infrastructure.asset_key(environment)
    if key not in defs.resolve_asset_graph().materializable_asset_keys:
        raise SteeringError(f"{environment} has no documents in {infrastructure.GROUP}/")
    config = {infrastructure.op_name(environment): {"prune": list(prune)}}
    return materialize(defs, [key], {TRIGGER_TAG: "plan"}, config)


def decide_on(
    profile: Profile,
    model: str,
    environment: str,
    number: int,
    decision: Decision,
    *,
    by: str,
    reason: str,
    expires: str | None = None,
) -> str:
    """Record a person's decision on a version, and show it on the page; says what was recorded.

    Raises:
        ApprovalError: nothing that could be decided.
        RegistryError: no such version.
        UnknownEnvironmentError: no such environment.
    """
    registry: Registry = build_resources(profile)["registry"]
    try:
        validity = parse_duration(expires) if expires else None
    except ValueError as error:
        raise ApprovalError(f"--expires {error}") from None
    where = profile.environment(environment)
    version = registry.version(model, number)
    record = decide(
        registry, version, where, decision, by=by, reason=reason, expires=validity
    )  # fmt: skip
    key = dg.AssetKey([model, approval.asset_name(environment)])
    with dg.DagsterInstance.get() as instance:
        event = dg.AssetMaterialization(key, metadata=approval.shown(record))
        instance.report_runless_asset_event(event)
    until = f", until {record['expires']}" if record["expires"] else ""
    return f"{model} version {number} is {decision} for {environment} by {by}{until}"


def roll_back(profile: Profile, model: str, environment: str, number: int | None) -> bool:
    """Deploy an earlier version through the same gates; the one that served before by default.

    Raises:
        SpecError: the model's model.yaml is wrong.
        SteeringError: nothing served there before.
        UnknownEnvironmentError: no such environment.
    """
    registry: Registry = build_resources(profile)["registry"]
    profile.environment(environment)
    number = number or _served_before(registry, model, environment)
    name = asset_name(environment)
    return materialize(
        _definitions(profile, model),
        [dg.AssetKey([model, name])],
        {TRIGGER_TAG: "rollback", MODEL_TAG: model},
        {f"{model}__{name}": {"version": number}},
    )


def watch(
    profile: Profile, model: str, environment: str, now: str | None
) -> tuple[Report, str] | None:
    """Look at a model in an environment; the report and what was decided, None if it failed.

    Raises:
        SpecError: the model's model.yaml is wrong.
        UnknownEnvironmentError: no such environment.
        WatchError: it captures nothing, or nothing serves there.
    """
    resources = build_resources(profile)
    if sight(resources["registry"], model, profile.environment(environment)) is None:
        raise WatchError(f"{model}: nothing serves {environment} yet")
    key, name = asset_key(model, environment), f"{environment}{monitoring.SUFFIX}"
    config = {f"{model}__{name}": {"now": now or dt.datetime.now(dt.UTC).isoformat()}}
    tags = {TRIGGER_TAG: "monitor", MODEL_TAG: model}
    if not materialize(_definitions(profile, model), [key], tags, config):
        return None
    report = Reports(resources["documents"], model, environment).at(
        dt.datetime.fromisoformat(config[f"{model}__{name}"]["now"])
    )
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(key)
        made = event.asset_materialization if event else None
        decision = str(made.metadata["decision"].value) if made else ""
    return (report, decision) if report else None


def resume(profile: Profile, model: str, environment: str) -> None:
    """Let an environment follow the releases again, from the last one on."""
    profile.environment(environment)
    attempts: Attempts = build_resources(profile)["attempts"]
    attempts.forget(dg.AssetKey([model, asset_name(environment)]))


def _definitions(profile: Profile, model: str) -> dg.Definitions:
    """The code location, which leaves a model out whose model.yaml is wrong: not the one asked for.

    Raises:
        SpecError: its model.yaml is wrong.
    """
    load_model(profile.models / model)
    return build_definitions(profile)


def _served_before(registry: Registry, model: str, environment: str) -> int:
    """The version that served before the one that serves now."""
    records = [
        r for r in registry.records(model, DEPLOYMENTS) if r["environment"] == environment
    ]  # fmt: skip
    others = [r for r in records if r["digest"] != records[-1]["digest"]]
    if not others:
        raise SteeringError(
            f"{model} in {environment}: no other version has served there; name one to deploy it"
        )
    return int(others[-1]["version"])
