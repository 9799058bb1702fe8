"""The assets ``infrastructure/<environment>``: Azure as the environment's documents say."""

from typing import Any

import dagster as dg
from pydantic import Field

from mlops_assets.errors import UserError
from mlops_assets.runs import TRIGGER_TAG
from resources.azure.clients import AzureClients
from resources.azure.infrastructure_documents import FOLDER
from resources.environment import Profile

#: First part of the keys, and the group on the page.
GROUP = "infrastructure"
#: The asset's check, and the job that evaluates it for all environments.
DRIFT, DRIFT_JOB = "drift", "infrastructure_drift"


class InfrastructureConfig(dg.Config):
    """What else is to be done."""

    prune: list[str] = Field(
        default_factory=list,
        description="Names of computes to remove that are in no document. Nothing else is removed.",
    )


def asset_key(environment: str) -> dg.AssetKey:
    """Key of the asset that is the infrastructure of an environment."""
    return dg.AssetKey([GROUP, environment])


def op_name(environment: str) -> str:
    """Name of the step that makes it."""
    return f"{GROUP}__{environment}"


def build_infrastructure(profile: Profile) -> dg.Definitions:
    """The asset and its check of every environment that has documents, and a look every day."""
    names = [
        environment.name
        for environment in profile.environments
        if profile.azure and any((profile.documents_of(environment.name) / FOLDER).glob("*.json"))
    ]
    if not names:
        return dg.Definitions()
    checks = [_drift(name) for name in names]
    job = dg.define_asset_job(
        DRIFT_JOB,
        dg.AssetSelection.checks(*(key for check in checks for key in check.check_keys)),
        description="Compares Azure with the documents of every environment; changes nothing.",
        tags={TRIGGER_TAG: "schedule"},
    )
    schedule = dg.ScheduleDefinition(
        job=job, cron_schedule="0 5 * * *", default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(
        assets=[_infrastructure(name) for name in names],
        asset_checks=checks,
        jobs=[job],
        schedules=[schedule],
    )


def _infrastructure(environment: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(environment),
        group_name=GROUP,
        kinds={"azure"},
        description=f"What {environment} stands on: workspace, registry and computes, as "
        f"environments/azure/{environment}/{FOLDER}/*.json say. `mlops plan {environment}` shows "
        "what would change.",
    )
    def infrastructure(
        context: dg.AssetExecutionContext,
        config: InfrastructureConfig,
        profile: dg.ResourceParam[Profile],
    ) -> dg.MaterializeResult[Any]:
        from resources.azure.infrastructure import apply

        try:
            made = apply(profile, _clients(profile), environment, config.prune, context.log.info)
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return dg.MaterializeResult(
            metadata={
                "changed": dg.MetadataValue.text("\n".join(made.changed()) or "nothing"),
                "unmanaged": dg.MetadataValue.text(", ".join(made.unmanaged) or "nothing"),
                "pruned": dg.MetadataValue.text(", ".join(config.prune) or "nothing"),
            }
        )

    return infrastructure


def _drift(environment: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(environment),
        name=DRIFT,
        description="Azure is as the documents say; evaluated every day, or by hand.",
    )
    def drift(profile: dg.ResourceParam[Profile]) -> dg.AssetCheckResult:
        from resources.azure.infrastructure import plan

        try:
            found = plan(profile, _clients(profile), environment)
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        return dg.AssetCheckResult(
            passed=not found.differences,
            severity=dg.AssetCheckSeverity.WARN,
            description="\n".join(found.changed()) or "as the documents say",
            metadata={"unmanaged": ", ".join(found.unmanaged) or "nothing"},
        )

    return drift


def _clients(profile: Profile) -> AzureClients:
    assert profile.azure is not None
    return AzureClients(profile.azure)
