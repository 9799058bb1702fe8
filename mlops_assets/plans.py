"""What an environment's documents would change on Azure, put together for a command line."""

from dataclasses import dataclass

from mlops_assets.errors import UserError
from mlops_assets.spec import model_folders
from resources.azure.clients import AzureClients
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

    clients = AzureClients(profile.azure)
    found = infrastructure.plan(profile, clients, environment)
    groups = _groups(profile, clients, environment)
    return Plan([*found.changed(), *groups.changes], [*found.left_alone(), *groups.notes])


def _groups(profile: Profile, clients: AzureClients, environment: str) -> Plan:
    """What the next deployments do to the container groups of an environment."""
    where = profile.environment(environment)
    plan = Plan([], [])
    if where.target != "aci":
        return plan
    from resources.endpoints.aci_changes import changes

    for folder in model_folders(profile.models):
        found = changes(profile, clients, where, folder.name)
        said = f"container group {found.group}: its next deployment {found.effect}"
        if found.differences:
            plan.changes.append(said)
            plan.changes.extend(f"  {line}" for line in found.differences)
        elif found.effect:
            plan.notes.append(said)
    return plan
