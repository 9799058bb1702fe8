"""``mlops doctor``: what is wrong with the ground, before a run finds out after an hour."""

from collections.abc import Iterator

from mlops_assets.endpoints import aligned
from mlops_assets.spec import ModelSpec, load_model, model_folders
from mlops_assets.strict import SpecError
from resources import machine
from resources.captured_columns import unknown_columns
from resources.environment import Profile
from resources.findings import Finding
from resources.limits import looser_limits

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
    found = [*machine.look(profile), *wrong_models(profile)]
    if profile.azure is not None:
        from resources.azure.clients import AzureClients
        from resources.azure.preflight import EVERYTHING, Ground, preflight

        models = [folder.name for folder in model_folders(profile.models)]
        clients = AzureClients(profile.azure)
        found += preflight(Ground(profile, clients, environments, models), EVERYTHING)
    return found


def wrong_models(profile: Profile) -> Iterator[Finding]:
    """What is wrong with each model.yaml, and with what environments ask of it."""
    folders, specs = model_folders(profile.models), list[ModelSpec]()
    for folder in folders:
        try:
            spec = load_model(folder)
        except SpecError as error:
            for problem in error.problems:
                yield Finding("error", error.path, problem)
            continue
        specs.append(spec)
        for environment in profile.environments:
            for problem in looser_limits(environment, spec):
                yield Finding("error", str(profile.file_of(environment.name)), problem)
    if len(specs) == len(folders):  # else a column may be that of a model that cannot be read
        for path, problem in unknown_columns(profile, specs):
            yield Finding("error", str(path), problem)


def wrong_documents(profile: Profile) -> Iterator[str]:
    """What is wrong with the documents of online endpoints; models may have them in common."""
    from resources.endpoints.azureml_documents import OnlineDocuments

    for environment in profile.environments:
        if environment.target in ("aks", "managed"):
            for folder in model_folders(profile.models):
                try:
                    OnlineDocuments.of(profile, environment.name, folder.name).check()
                except SpecError as error:
                    yield str(error)


def table(found: list[Finding]) -> str:
    """The findings for people, the worst first."""
    order = ("error", "warning", "unknown")
    rows = [
        (finding.severity, finding.place, finding.cause, finding.mend)
        for finding in sorted(found, key=lambda finding: order.index(finding.severity))
    ]
    return aligned(COLUMNS, rows)
