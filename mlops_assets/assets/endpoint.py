"""The assets ``<environment>_endpoint``: a URL that serves one version in one environment."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from mlops_assets.assets.live_checks import LIVE_CHECKS, live_checks
from mlops_assets.assets.registered_model import releases
from mlops_assets.gates import GatesClosedError, Verdict, require_open, table
from mlops_assets.history import card_of, record_canary, record_override
from mlops_assets.judgement import DEPLOYMENTS, Judge, has_served, promotion
from mlops_assets.references import Endpoint, RegisteredModel
from mlops_assets.rollout import AT_ONCE, Rollout, RolloutError, roll_out
from mlops_assets.runs import RELEASE_TAG, VERSION_TAG, tag_run
from mlops_assets.samples import Sample, load_samples
from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.signature import Signed, require_signature
from mlops_assets.strict import SpecError
from mlops_assets.trial import StepJudgement
from mlops_assets.trial import table as judgement_table
from resources.attempts import Attempts, Refused
from resources.endpoints.base import EndpointError, Target, VersionRef
from resources.environment import Environment, Profile, public_key
from resources.registry import Registry, RegistryError, Version
from resources.serving import Serving

SUFFIX = "_endpoint"

#: Name of the input that an attempt to deploy is about.
RELEASE_INPUT = "release"


def asset_name(environment: str) -> str:
    """Name of the asset that is a model's endpoint in an environment."""
    return f"{environment}{SUFFIX}"


def environment_of(key: dg.AssetKey) -> str:
    """The environment of an endpoint's asset key."""
    return key.path[-1].removesuffix(SUFFIX)


class OverrideError(Exception):
    """An override that is not allowed, or has no name or reason."""


class Override(dg.Config):
    """A person's word to deploy past closed gates."""

    by: str = Field(description="Who takes the responsibility.")
    reason: str = Field(description="Why.")


class DeploymentConfig(dg.Config):
    """What to deploy."""

    version: int | None = Field(
        None,
        description="Version to deploy; the one that was released last by default. An older one is "
        "a rollback: the environment then stays as it is until the next release.",
    )
    override: Override | None = Field(
        None,
        description="Deploy past closed gates, where the environment's JSON allows it. On record.",
    )


def deploy(
    context: dg.AssetExecutionContext,
    config: DeploymentConfig,
    registered_model: RegisteredModel,
    profile: Profile,
    registry: Registry,
    serving: Serving,
    judge: Judge,
) -> dg.MaterializeResult[Endpoint]:
    """Judge a version for an environment, and roll it out there.

    Raises:
        dagster.Failure: closed gates (with the table of verdicts), no samples, a failed sample.
    """
    model = registered_model.model
    environment = profile.environment(environment_of(context.asset_key))
    try:
        samples = load_samples(profile.samples_of(model, environment.name))
        version = registry.version(model, config.version or registered_model.version)
        tag_run(context, VERSION_TAG, str(version.version))
        with serving.open(model, environment) as target:
            # Judged while nobody else deploys here: what serves cannot change in between.
            judged = [
                *judge.judge(context, version, environment),
                *promotion(registry, version, environment),
            ]
            _require_open(judged, version, environment, config.override)
            rollout = _roll_out(context, target, version, environment, samples, registry)
            if config.override:
                record_override(
                    registry,
                    version,
                    environment.name,
                    judged,
                    config.override,
                    context.run.run_id,
                )
            _record(registry, version, environment, rollout, context.run.run_id)
            url = target.url
    except GatesClosedError as error:
        metadata = {"verdicts": dg.MetadataValue.md(table(error.verdicts))}
        raise Refused(str(error), metadata, allow_retries=False) from None
    except (SpecError, RegistryError, OverrideError, IntegrityError) as error:
        raise Refused(str(error), allow_retries=False) from None
    except EndpointError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    except RolloutError as error:
        raise dg.Failure(str(error), _trial(error.judgements), allow_retries=False) from None
    reference = Endpoint(
        model=model,
        environment=environment.name,
        version=version.version,
        digest=version.digest,
        url=url,
    )
    return dg.MaterializeResult(
        asset_key=context.asset_key,
        value=reference,
        data_version=dg.DataVersion(version.digest),
        metadata=_metadata(version, rollout, judged, url, registry),
        check_results=live_checks(context.asset_key, reference, serving, environment, samples),
    )


def _released(registry: Registry, latest: RegisteredModel, number: int) -> RegisteredModel:
    """The version of a release."""
    for release in releases(registry, latest.model):
        if release.release == number:
            changes = {"version": release.version, "digest": release.digest, "release": number}
            return latest.model_copy(update=changes)
    raise dg.Failure(f"{latest.model} has no release {number}", allow_retries=False)


def _endpoint_op(name: str, **upstream: dg.In) -> dg.OpDefinition:
    """The op of an endpoint; ``upstream`` are inputs that it waits for and does not read."""

    @dg.op(
        name=name,
        ins=upstream,
        out={"result": dg.Out(Endpoint), **{check: dg.Out(dg.Nothing) for check in LIVE_CHECKS}},
    )
    def endpoint(
        context: dg.AssetExecutionContext,
        config: DeploymentConfig,
        registered_model: RegisteredModel,
        profile: dg.ResourceParam[Profile],
        registry: dg.ResourceParam[Registry],
        serving: dg.ResourceParam[Serving],
        judge: Judge,
        attempts: Attempts,
    ):
        """A URL that serves one version.

        The version is loaded beside the live one, must answer the environment's samples, and only
        then gets the traffic; on any failure the live one stays.
        """
        asked = context.run.tags.get(RELEASE_TAG)
        if asked:  # what the automation decided on; there may be a newer one by now
            registered_model = _released(registry, registered_model, int(asked))
        inputs = {RELEASE_INPUT: str(registered_model.release)}
        with attempts.working(context, context.asset_key, inputs):
            # Not returned: the attempt ends when the reference is stored.
            yield deploy(context, config, registered_model, profile, registry, serving, judge)

    return endpoint


#: Where a version may come straight from its release, and where it must have served before.
first_endpoint = _endpoint_op("endpoint")
promoted_endpoint = _endpoint_op("promoted_endpoint", promotes_from=dg.In(dg.Nothing))


def _require_open(
    judged: list[Verdict], version: Version, environment: Environment, override: Override | None
) -> None:
    """Refuse what a gate refuses, unless a person may and does take it upon themselves."""
    what = f"{version.model} version {version.version} in {environment.name}"
    if override is None:
        require_open(what, judged)
        return
    if environment.override != "allowed":
        raise OverrideError(
            f"{environment.name} allows no override; its JSON file would have to say "
            '"override": "allowed"'
        )
    if not override.by.strip() or not override.reason.strip():
        raise OverrideError("an override has a name and a reason: give both `by` and `reason`")
    # Bytes that are not what was registered have no owner who could answer for them.
    require_open(what, [verdict for verdict in judged if verdict.gate == "integrity"])


def _required_signature(
    registry: Registry, version: Version, environment: Environment
) -> Signed | None:
    """By whom the version must be signed here, if by anybody; raises IntegrityError if it is not.

    The server checks it too, before it loads the version; here also one that serves already.
    """
    key = public_key(environment)
    if key is None:
        return None
    signed = Signed(str(registry.signature(version.model, version.version)), key)
    require_signature(version.bundle, version.digest, signed)
    return signed


def _roll_out(
    context: dg.AssetExecutionContext,
    target: Target,
    version: Version,
    environment: Environment,
    samples: list[Sample],
    registry: Registry,
) -> Rollout:
    """Roll a version out, and keep how it did beside the live one, also where it was discarded."""
    signed = _required_signature(registry, version, environment)
    wanted = VersionRef(version.model, version.version, version.digest, version.bundle, signed)
    name, run_id = environment.name, context.run.run_id
    traffic = environment.traffic
    if has_served(registry, version, name) and any(
        live.traffic and live.version > version.version for live in target.live().values()
    ):
        traffic = AT_ONCE  # going back is no trial
    try:
        rollout = roll_out(target, wanted, samples, traffic=traffic, log=context.log.info)
    except RolloutError as error:
        record_canary(registry, version, name, error.judgements, str(error), run_id)
        raise
    record_canary(registry, version, name, rollout.judgements, None, run_id)
    return rollout


def _trial(judgements: Sequence[StepJudgement]) -> dict[str, Any]:
    """How a version did beside the live one, if it was watched."""
    return {"canary": dg.MetadataValue.md(judgement_table(judgements))} if judgements else {}


def _record(
    registry: Registry, version: Version, environment: Environment, rollout: Rollout, run_id: str
) -> None:
    """Keep what serves; also for a rollout that a killed run finished without a record."""
    with registry.lock(version.model):
        served = [
            record
            for record in registry.records(version.model, DEPLOYMENTS)
            if record["environment"] == environment.name
        ]
        if rollout.outcome == "unchanged" and served and served[-1]["digest"] == version.digest:
            return
        content = {
            "environment": environment.name,
            "version": version.version,
            "digest": version.digest,
            "previous": served[-1]["version"] if served else None,
            "run": run_id,
            "started": rollout.started,
            "ended": rollout.ended,
        }
        registry.record(version.model, DEPLOYMENTS, content)


def _metadata(
    version: Version, rollout: Rollout, judged: list[Verdict], url: str, registry: Registry
) -> dict[str, Any]:
    return {
        "version": version.version,
        "digest": version.digest,
        "outcome": rollout.outcome,
        "previous_version": str(rollout.previous or "none"),
        "url": dg.MetadataValue.url(url),
        "commit": version.manifest.source.commit,
        "verdicts": dg.MetadataValue.md(table(judged)),
        "card": dg.MetadataValue.md(card_of(registry, version)),
        "samples": dg.MetadataValue.table(
            [
                dg.TableRecord({"sample": s.name, "milliseconds": round(1000 * s.seconds, 2)})
                for s in rollout.samples
            ]
        ),
        **_trial(rollout.judgements),
    }
