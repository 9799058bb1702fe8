"""Trying out a branch: trained on the newest data, compared, and not released.

Nothing of it reaches the assets: no reference, attempt, version, release or comparison is written
that a release or its automation reads. The snapshot and what was trained stay in the artifact
store under their content and identity, so that a release of the same source finds them there.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.assets.dataset import publish_snapshot
from mlops_assets.assets.registered_model import build_bundle
from mlops_assets.assets.trained_model import training_request
from mlops_assets.evidence import Integrity
from mlops_assets.files import digest_file
from mlops_assets.gates import Facts, Verdict, verdicts
from mlops_assets.judgement import policy
from mlops_assets.private_run import in_run
from mlops_assets.references import Commit, DatasetSnapshot, ReleasedCommit, TrainedModel
from mlops_assets.release import identity, installed_packages, platform_name
from mlops_assets.spec import ModelSpec, load_model, model_folders, parse_model
from mlops_assets.strict import SpecError
from mlops_assets.versus import Report, Versus, changes, compare_bundles
from mlops_assets.wiring import build_resources
from resources.branches import Work, current, head_of, work_on
from resources.environment import Profile
from resources.experiments import Experiments
from resources.git_commands import DOCUMENTATION, GitError, git, paths_of
from resources.registry import Registry, Version
from resources.storage import StorageError
from resources.training import TrainingError

#: Name of what a branch is compared with where nothing serves production.
UNRELEASED = 0


@dataclass(frozen=True)
class Source:
    """What an experiment is trained from."""

    branch: str
    commit: Commit
    spec: ModelSpec
    notes: tuple[str, ...] = ()


def experiment(
    profile: Profile, model: str, branch: str | None = None, keep: bool = False
) -> Report:
    """Train a branch on the newest data, and compare it with what serves production.

    Where nothing does, with the head of the source branch, trained on the same data.

    Args:
        profile: the profile.
        model: the model's name.
        branch: made and checked out where that loses nothing; by default the work tree's own,
            with its uncommitted files.
        keep: register it as an experiment, so that it can be compared and previewed later.

    Raises:
        UserError: in a sentence for the data scientist.
    """
    resources = build_resources(profile)
    bench = _Bench(profile, model, resources)
    return in_run("experiment", lambda context: bench.run(context, branch, keep))


class _Bench:
    """What an experiment needs of the platform."""

    def __init__(self, profile: Profile, model: str, resources: dict[str, Any]) -> None:
        self._profile, self._model, self._resources = profile, model, resources
        self._artifacts = resources["artifacts"]

    def run(self, context: dg.AssetExecutionContext, branch: str | None, keep: bool) -> Report:
        try:
            source = self._source(branch)
            for note in source.notes:
                context.log.info(note)
            return self._compared(context, source, keep)
        except (SpecError, GitError, StorageError, TrainingError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None

    def _compared(self, context: dg.AssetExecutionContext, source: Source, keep: bool) -> Report:
        registry: Registry = self._resources["registry"]
        champion: Version | None = self._resources["serving"].champion(self._model, registry)
        notes = list(source.notes)
        with self._trained(context, source) as first:
            if champion is not None:
                name = f"version {champion.version}, which serves production"
                versus = self._versus(context, first, champion, source.spec)
                differs = changes(first, champion)
            else:
                name = source.commit.branch
                notes.append(f"nothing serves production; compared with the head of {name}")
                with self._trained(context, self._head(source)) as head:
                    versus = self._versus(context, first, head, source.spec)
                    differs = changes(first, head)
            judged, closed = self._judged(first, champion, versus)
            if keep:
                experiments = Experiments.of(self._resources)
                kept = experiments.keep(self._model, first.bundle, source.branch)
                notes.append(f"kept as experiment {kept.version} of {source.branch}")
        report = Report(self._model, source.branch, name, versus, differs, judged, closed)
        return replace(report, notes=notes)

    # -- what is trained

    def _source(self, branch: str | None) -> Source:
        loaded = load_model(self._profile.models / self._model)
        source, checkout = self._resources["git"], self._profile.root
        if loaded.source.repository != "." or self._profile.repository:
            if branch is None:
                raise GitError(
                    f"{self._model} comes from another repository; name a branch of it: --branch"
                )
            return self._committed(loaded, branch, branch, ())
        work = work_on(checkout, branch, loaded.source.branch) if branch else current(checkout)
        if work.here:  # it may have been switched to just now
            loaded = load_model(self._profile.models / self._model)
        notes = (work.done,) if work.done else ()
        dirty = source.uncommitted(loaded) if work.here else []
        if not dirty:
            return self._committed(loaded, work.commit, work.branch, notes)
        commit = source.resolve(loaded, work.commit, dirty=True)
        notes = (*notes, f"with uncommitted changes: {', '.join(dirty)}")
        return self._read(loaded, commit, work, notes)

    def _committed(
        self, loaded: ModelSpec, name: str, branch: str, notes: tuple[str, ...]
    ) -> Source:
        commit = self._resources["git"].resolve(loaded, name)
        return self._read(loaded, commit, Work(branch, commit.commit, False, ""), notes)

    def _read(
        self, loaded: ModelSpec, commit: Commit, work: Work, notes: tuple[str, ...]
    ) -> Source:
        path = f"{loaded.folder}/model.yaml"
        text = self._resources["git"].read(loaded, commit, path)
        spec = parse_model(text, loaded.name, f"{path} of {work.branch}")
        named = commit.model_copy(update={"experiment": work.branch})
        return Source(work.branch, named, spec, notes)

    def _head(self, source: Source) -> Source:
        """The source branch's head, to be compared with."""
        spec = source.spec
        if spec.source.repository == "." and not self._profile.repository:
            name = head_of(self._profile.root, spec.source.branch)
        else:
            name = spec.source.branch
        return self._committed(spec, name, spec.source.branch, ())

    @contextmanager
    def _trained(self, context: dg.AssetExecutionContext, source: Source) -> Generator[Version]:
        """A bundle of a source in a scratch folder."""
        snapshot = self._snapshot(context, source)
        released = ReleasedCommit(
            model=self._model, commit=source.commit, requested=None, code="", contract=""
        )
        packages = installed_packages()
        name = identity(snapshot, released, source.spec, packages)
        with self._artifacts.lock("trained", name):
            if not self._artifacts.has("trained", name):
                context.log.info(f"training {source.branch}")
                self._train(context, source, snapshot, name)
        trained = TrainedModel(
            model=self._model,
            identity=name,
            folder=source.spec.folder,
            snapshot=snapshot,
            commit=source.commit,
            packages=packages,
            python=sys.version.split()[0],
            platform=platform_name(),
        )
        with self._artifacts.workspace() as folder:
            bundle = folder / "bundle"
            build_bundle(trained, self._artifacts.path("trained", name), bundle)
            digest = digest_file(bundle / "manifest.json")
            yield Version(self._model, UNRELEASED, digest, bundle)

    def _train(
        self,
        context: dg.AssetExecutionContext,
        source: Source,
        snapshot: DatasetSnapshot,
        name: str,
    ) -> None:
        with self._artifacts.workspace() as folder:
            request = training_request(
                name, source.spec, snapshot, self._profile, self._artifacts, None, folder
            )
            self._resources["git"].export(source.spec, source.commit, folder / "source")
            output = folder / "output"
            output.mkdir()
            self._resources["training"].run(context, request, output)
            (folder / "source").rename(output / "code")
            self._artifacts.publish("trained", name, output)

    def _snapshot(self, context: dg.AssetExecutionContext, source: Source) -> DatasetSnapshot:
        """The data as they are now, by the branch's own contract."""
        from mlops_assets.contract import ContractError
        from mlops_assets.snapshots import take_snapshot

        data = source.spec.data
        files = self._resources["storage"].settled(
            data.location, f".{data.format}", data.settle_seconds, context.log.info
        )
        with self._artifacts.workspace() as folder:
            try:
                taken = take_snapshot(files, data, source.spec.task, folder)
            except ContractError as error:
                raise dg.Failure(f"{source.branch}: {error}", allow_retries=False) from None
            publish_snapshot(self._artifacts, taken, source.spec, folder)
        return DatasetSnapshot(
            model=self._model,
            digest=taken.digest,
            rows=taken.rows,
            contract=source.spec.contract_digest,
            commit=source.commit,
        )

    # -- what is said about it

    def _versus(
        self, context: dg.AssetExecutionContext, first: Version, second: Version, spec: ModelSpec
    ) -> Versus:
        training, root = self._resources["training"], self._profile.root
        return compare_bundles(context, training, self._artifacts, root, first, second, spec.slices)

    def _judged(
        self, first: Version, champion: Version | None, versus: Versus
    ) -> tuple[list[Verdict], dict[str, list[str]]]:
        """What the gates would say, were it merged as it is."""
        verification = self._resources["verification"]
        integrity: Integrity = verification.verify(first.bundle, first.digest)
        manifest = first.manifest
        facts = Facts(
            manifest=manifest,
            evidence=first.evidence,
            integrity=integrity,
            digest=first.digest,
            champion=champion.digest if champion else None,
            comparison=versus if champion else None,
        )
        merged = Verdict("provenance", "not_applicable", "an experiment; decided when it is merged")

        def asked(where: Any) -> list[Verdict]:
            found = verdicts(facts, policy(manifest, where))
            return [merged if v.gate == merged.gate else v for v in found]

        closed = {
            environment.name: [v.gate for v in asked(environment) if not v.passed]
            for environment in self._profile.environments
        }
        return asked(None), closed


def changed_models(profile: Profile, since: str) -> list[str]:
    """Models of which a declared file differs between the work tree and where it left a commit.

    Raises:
        GitError: no such commit.
    """
    base = git(profile.root, "merge-base", "--end-of-options", since, "HEAD").strip()
    specs = [load_model(folder) for folder in model_folders(profile.models)]
    no_text = f":(exclude)*{DOCUMENTATION}"
    return [
        spec.name
        for spec in specs
        if spec.source.repository == "."
        and git(profile.root, "diff", "--name-only", base, "--", *paths_of(spec), no_text).strip()
    ]


def bundle_of(profile: Profile, model: str, name: str) -> Version:
    """A version by its number, or the newest one of a branch.

    Of the source branch it is the newest release; an experiment only while nothing is released.

    Raises:
        RegistryError: there is none; the message names those there are.
    """
    resources = build_resources(profile)
    registry: Registry = resources["registry"]
    if name.isdigit():
        return registry.version(model, int(name))
    spec = load_model(profile.models / model)
    if name == spec.source.branch:
        released = [v for v in registry.versions(model) if v.manifest.source.on_branch]
        if released:
            return released[-1]
    return Experiments.of(resources).newest(model, name)


def compare(profile: Profile, model: str, first: str, second: str) -> Report:
    """Two versions or branches on the same rows, and what they were made from.

    Raises:
        UserError: there is no such version, or they cannot be asked.
    """
    a, b = bundle_of(profile, model, first), bundle_of(profile, model, second)
    resources = build_resources(profile)
    spec_file = a.bundle / "code" / _folder(a)
    slices = parse_model(spec_file.read_text("utf-8"), model, spec_file).slices
    versus = in_run(
        "compare",
        lambda context: compare_bundles(
            context, resources["training"], resources["artifacts"], profile.root, a, b, slices
        ),
    )
    return Report(model, heading(first, a), heading(second, b), versus, changes(a, b))


def heading(name: str, version: Version) -> str:
    """What a report calls a version that was asked for by a name.

    The source branch has releases and may have experiments: it is said which one was taken.
    """
    source = version.manifest.source
    if name.isdigit():
        return f"version {name}"
    if source.experiment is None:
        return f"{name} (version {version.version})"
    return f"{name} (experiment {version.version})" if name == source.branch else name


def _folder(version: Version) -> Path:
    """The model.yaml inside a version's code."""
    code = version.bundle / "code"
    found = sorted(code.glob(f"**/{version.model}/model.yaml")) or sorted(
        code.glob("**/model.yaml")
    )
    return found[0].relative_to(code)
