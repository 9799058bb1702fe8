"""What an environment's documents would change on Azure, put together for a command line."""

from dataclasses import dataclass

from mlops_assets.errors import UserError
from resources.environment import Profile


class PlanError(UserError):
    """There is nothing that could be planned."""


@dataclass(frozen=True)
class Plan:
    """What differs, and what is only worth knowing."""

    changes: list[str]
    notes: list[str]


def plan(profile: Profile, environment: str) -> Plan:
    """Compare Azure with the documents of an environment; changes nothing.

    Raises:
        PlanError: the profile has nothing on Azure.
        SpecError: a document is wrong.
        AzureError: Azure cannot be asked.
        UnknownEnvironmentError: no such environment.
    """
    profile.environment(environment)
    if profile.azure is None:
        raise PlanError(
            f"profile {profile.name} has nothing on Azure, so there is nothing to plan; "
            "set MLOPS_PROFILE=azure"
        )
    from resources.azure import infrastructure
    from resources.azure.clients import AzureClients

    found = infrastructure.plan(profile, AzureClients(profile.azure), environment)
    return Plan(found.changed(), found.left_alone())
