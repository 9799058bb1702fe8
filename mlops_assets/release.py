"""What one release is made from: the run's commit, its model.yaml, and the version's identity."""

import platform
import re
import sys
from pathlib import Path

import dagster as dg
from pydantic import Field

from mlops_assets.assets.sources import (
    TRAINING_CODE,
    Seen,
    commit_metadata,
    report,
    seen,
    unreadable_contract,
)
from mlops_assets.files import digest_json
from mlops_assets.references import Commit, DatasetSnapshot, ReleasedCommit
from mlops_assets.runs import COMMIT_TAG, tag_run
from mlops_assets.spec import ModelSpec, load_model, parse_model
from mlops_assets.strict import SpecError
from mlops_assets.training import RUNNER_VERSION
from resources.environment import Profile
from resources.git import GitError, GitSource
from resources.references import References


class SourceConfig(dg.Config):
    """Which source a release is made from."""

    commit: str | None = Field(
        None, description="Commit to release; the head of the source branch by default."
    )
    dirty: bool = Field(
        False,
        description="Take uncommitted files as well. The version is marked dirty and serves in "
        "development environments alone.",
    )


def resolve_commit(
    context: dg.AssetExecutionContext,
    config: SourceConfig,
    profile: Profile,
    git: GitSource,
    references: References,
) -> tuple[ReleasedCommit, ModelSpec]:
    """The commit that this run releases, and the model.yaml it holds.

    The first asset of a run that asks decides for the whole run.

    Raises:
        dagster.Failure: no such commit, a model.yaml that is wrong, or two commits in one run.
    """
    model = context.asset_key.path[0]
    key = dg.AssetKey([model, "commit"])
    released = references.of_run(key, context.run.run_id, ReleasedCommit)
    try:
        loaded = load_model(profile.models / model)
        if released is None:
            released = _release(context, loaded, config, git)
            _warn_of_uncommitted(context, loaded, git, config)
            references.write(key, context.run.run_id, released)
        elif config.commit not in (None, released.requested, released.commit.commit):
            raise dg.Failure(
                f"this run releases commit {released.commit.commit[:10]} since its first asset; "
                f"{context.asset_key.to_user_string()} asks for '{config.commit}': give both the "
                "same commit, or materialize them in two runs",
                allow_retries=False,
            )
        return released, _spec_of(released.commit, loaded, git)
    except (SpecError, GitError) as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _release(
    context: dg.AssetExecutionContext, loaded: ModelSpec, config: SourceConfig, git: GitSource
) -> ReleasedCommit:
    """Resolve what is asked for, and report it as training_code if it is newer than the report."""
    # The report first, then the branch: what is reported later is then a change to come.
    known = _seen(context, loaded.name)
    commit = git.resolve(loaded, config.commit, config.dirty)
    tag_run(context, COMMIT_TAG, commit.commit[:12])
    code = known.version if known else ""
    contract = str(known.metadata["contract"]) if known else ""
    if config.commit is None and not config.dirty and commit.tree != code:
        try:
            contract = _spec_of(commit, loaded, git).contract_digest
        except SpecError:
            contract = unreadable_contract(commit.tree)
        code = commit.tree
        if _seen(context, loaded.name) == known:  # else a newer head was reported meanwhile
            event = report(loaded.name, TRAINING_CODE, code, commit_metadata(commit, contract))
            context.instance.report_runless_asset_event(event)
    return ReleasedCommit(
        model=loaded.name, commit=commit, requested=config.commit, code=code, contract=contract
    )


def _seen(context: dg.AssetExecutionContext, model: str) -> Seen | None:
    return seen(context.instance, [(model, TRAINING_CODE)]).get((model, TRAINING_CODE))


def _spec_of(commit: Commit, loaded: ModelSpec, git: GitSource) -> ModelSpec:
    path = f"{loaded.folder}/model.yaml"
    text = git.read(loaded, commit, path)
    return parse_model(text, loaded.name, f"{path} of commit {commit.commit[:10]}")


def _warn_of_uncommitted(
    context: dg.AssetExecutionContext, spec: ModelSpec, git: GitSource, config: SourceConfig
) -> None:
    files = git.uncommitted(spec)
    if files and not config.dirty:
        context.log.warning(
            f"uncommitted changes are not trained: {', '.join(files)}; commit them, or "
            "materialize dataset and trained_model with dirty: true for a development environment"
        )


def identity(
    snapshot: DatasetSnapshot,
    released: ReleasedCommit,
    spec: ModelSpec,
    packages: dict[str, str],
) -> str:
    """What makes a version the version it is: the same identity is never trained twice."""
    return digest_json(
        {
            "model": released.model,
            "source": released.commit.tree,
            "snapshot": snapshot.digest,
            "parameters": spec.parameters,
            "packages": packages,
            "runner": RUNNER_VERSION,
            "platform": platform_name(),
        }
    )


def platform_name() -> str:
    """Operating system, processor and Python's minor version: pickles differ between them."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return f"{sys.platform}-{platform.machine()}-{python}"


def installed_packages() -> dict[str, str]:
    """Name and version of every installed distribution, this platform's own left out.

    Read from the names of the metadata folders: parsing them all would take a second.
    """
    found: dict[str, str] = {}
    for place in dict.fromkeys(
        p for p in sys.path if p.endswith(("site-packages", "dist-packages"))
    ):
        for folder in Path(place).glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    found.pop("mlops-assets", None)  # its part in training is RUNNER_VERSION
    return dict(sorted(found.items()))
