"""The looks at documents: Azure is not asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.strict import SpecError
from resources.azure.document_files import filled, read_object, variables_of
from resources.azure.infrastructure_documents import entity, examine
from resources.environment import Environment, Profile
from resources.findings import Finding

if TYPE_CHECKING:
    from resources.azure.preflight import Ground


def infrastructure(ground: Ground) -> Iterator[Finding]:
    """The documents of the infrastructure, also as azure-ai-ml reads them."""
    names = {environment.name for environment in ground.environments}
    wanted, problems = examine(ground.profile, os.environ)
    mine = [problem for problem in problems if problem.environment in names]
    wrong = {problem.place for problem in mine}
    for problem in mine:
        yield _finding(ground, problem.place, problem.text)
    for document in wanted:
        if document.environment in names and document.place not in wrong:
            try:
                entity(document)
            except SpecError as error:
                for text in error.problems:
                    yield _finding(ground, document.place, text)


def endpoints(ground: Ground) -> Iterator[Finding]:
    """The documents of the endpoints of every model."""
    seen: set[Finding] = set()
    for environment in ground.environments:
        for model in ground.models:
            for finding in _of_endpoint(ground.profile, environment, model):
                if finding not in seen:  # what is wrong with the common file is said once
                    seen.add(finding)
                    yield finding


def _of_endpoint(profile: Profile, environment: Environment, model: str) -> Iterator[Finding]:
    if environment.target == "aci":
        from resources.endpoints import aci_documents

        path = aci_documents.place_of(profile, environment.name, model)
        try:
            document = aci_documents.read(path)
        except SpecError as error:
            yield from _of_spec_error(profile, error)
            return
        place = _below(profile, str(path))
        for name in aci_documents.missing_variables(document):
            yield Finding("error", place, f"environment variable {name} is not set")
        for text in aci_documents.problems(document):
            yield Finding("error", place, text)
    elif environment.target in ("aks", "managed"):
        from resources.endpoints.azureml_documents import OnlineDocuments

        try:
            OnlineDocuments.of(profile, environment.name, model).check()
        except SpecError as error:
            yield from _of_spec_error(profile, error)


def computes_of_endpoints(
    profile: Profile, environments: Sequence[Environment], models: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(name, place) of the attached clusters that endpoints name, each once."""
    seen: set[str] = set()
    for environment in environments:
        folder = profile.documents_of(environment.name)
        for path in (folder / "endpoint.json", *(folder / m / "endpoint.json" for m in models)):
            if environment.target != "aks" or not path.is_file():
                continue
            try:
                compute = str(read_object(path).get("compute") or "")
            except SpecError:
                continue  # said by the look at the documents
            name = compute.removeprefix("azureml:").rpartition("/")[2]
            if name and name not in seen:
                seen.add(name)
                yield name, f"{_below(profile, str(path))}: compute"


def names(
    profile: Profile, environment: Environment, models: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(model, name) of the online endpoints of an environment."""
    if environment.target not in ("aks", "managed"):
        return
    from resources.endpoints.azureml_documents import OnlineDocuments

    for model in models:
        try:
            yield model, OnlineDocuments.of(profile, environment.name, model).endpoint_name
        except SpecError:
            continue  # said by the look at the documents


def images(
    profile: Profile, environments: Sequence[Environment], models: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """(image, place) of what endpoints run, as far as the variables in them are set."""
    for environment in environments:
        folder = profile.documents_of(environment.name)
        for name in ("deployment.json", "container-group.json"):
            for path in (folder / name, *(folder / model / name for model in models)):
                try:
                    document = read_object(path)
                except SpecError:
                    continue  # said by the look at the documents
                place = _below(profile, str(path))
                for image in _images(document):
                    if not any(not os.environ.get(name) for name in variables_of(image)):
                        yield filled(image, os.environ), place


def _images(document: Any) -> list[str]:
    """Values of ``image``, wherever they stand."""
    if isinstance(document, list):
        return [image for child in document for image in _images(child)]
    if not isinstance(document, dict):
        return []
    own = document.get("image")
    found = [own] if isinstance(own, str) else []
    return found + [image for child in document.values() for image in _images(child)]


def _of_spec_error(profile: Profile, error: SpecError) -> Iterator[Finding]:
    for text in error.problems:
        yield Finding("error", _below(profile, error.path), text)


def _finding(ground: Ground, place: str, text: str) -> Finding:
    return Finding("error", f"environments/{ground.profile.name}/{place}", text)


def _below(profile: Profile, path: str) -> str:
    return path.removeprefix(f"{profile.root}/")
