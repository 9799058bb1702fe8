"""The assets ``<environment>_approval``: a person's word on a version, given from the page."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_assets.approval import ApprovalError, Decision, decide, parse_duration
from mlops_assets.references import RegisteredModel
from resources.environment import Profile
from resources.references import References
from resources.registry import Registry, RegistryError

SUFFIX = "_approval"


def asset_name(environment: str) -> str:
    """Name of the asset that is a person's word on versions for an environment."""
    return f"{environment}{SUFFIX}"


class ApprovalConfig(dg.Config):
    """A decision about one version."""

    by: str = Field("", description="Who decides; a decision without a name is none.")
    reason: str = Field("", description="Why.")
    decision: Literal["approved", "rejected"] = Field("approved", description="The decision.")
    version: int | None = Field(
        None, description="Version decided about; the one that was released last by default."
    )
    expires: str | None = Field(
        None, description="How long an approval can be used: 30m, 24h, 7d; for good by default."
    )


@dg.op(name="approval", out={"result": dg.Out(dg.Nothing, is_required=False)})
def approval(
    context: dg.AssetExecutionContext,
    config: ApprovalConfig,
    profile: dg.ResourceParam[Profile],
    registry: dg.ResourceParam[Registry],
    references: References,
):
    """A person's word on a version: materialize it from the launchpad, with a name and a reason.

    Bound to the version and to the limits it was judged by. Without it the environment does not
    move.
    """
    model, name = context.asset_key.path
    if not config.by and not config.reason:
        context.log.info("nothing is decided: give `by` and `reason` in the launchpad")
        return
    released = references.latest(dg.AssetKey([model, "registered_model"]), RegisteredModel)
    if released is None:
        raise dg.Failure(f"{model} has no version yet", allow_retries=False)
    decision: Decision = config.decision
    try:
        version = registry.version(model, config.version or released.version)
        record = decide(
            registry,
            version,
            profile.environment(name.removesuffix(SUFFIX)),
            decision,
            by=config.by,
            reason=config.reason,
            expires=parse_duration(config.expires) if config.expires else None,
        )
    except (ApprovalError, RegistryError, ValueError) as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    yield dg.MaterializeResult(asset_key=context.asset_key, metadata=shown(record))


def shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as the page shows it."""
    return {name: value for name, value in record.items() if value is not None}
