"""``mlops doctor``: what is wrong with the ground, before a run finds out after an hour."""

from collections.abc import Iterator

from mlops_assets.endpoints import aligned
from mlops_assets.spec import load_model, model_folders
from mlops_assets.strict import SpecError
from resources import machine
from resources.environment import Profile, looser_limits
from resources.findings import Finding

COLUMNS = ("", "where", "what", "how to mend it")


def examine(profile: Profile, environment: str | None = None) -> list[Finding]:
    """Look at this machine, at the files, and on Azure at everything that a run will need there.

    Args:
        profile: what is looked at.
        environment: look at this one alone; UnknownEnvironmentError if there is none.
    """
    environments = (
        profile.environments if environment is None else (profile.environment(environment),)
    )
    found = [*machine.look(profile), *_models(profile)]
    if profile.azure is not None:
        from resources.azure.clients import AzureClients
        from resources.azure.preflight import EVERYTHING, Ground, preflight

        models = [folder.name for folder in model_folders(profile.models)]
        clients = AzureClients(profile.azure)
        found += preflight(Ground(profile, clients, environments, models), EVERYTHING)
    return found


def _models(profile: Profile) -> Iterator[Finding]:
    for folder in model_folders(profile.models):
        try:
            spec = load_model(folder)
        except SpecError as error:
            for problem in error.problems:
                yield Finding("error", error.path, problem)
            continue
        for environment in profile.environments:
            for problem in looser_limits(environment, spec):
                yield Finding("error", str(profile.file_of(environment.name)), problem)


def table(found: list[Finding]) -> str:
    """The findings for people, the worst first."""
    order = ("error", "warning", "unknown")
    rows = [
        (finding.severity, finding.place, finding.cause, finding.mend)
        for finding in sorted(found, key=lambda finding: order.index(finding.severity))
    ]
    return aligned(COLUMNS, rows)
