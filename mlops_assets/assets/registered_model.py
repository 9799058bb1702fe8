"""The asset ``registered_model``: one immutable version; its gates are its checks."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.evidence import Evidence, Manifest
from mlops_assets.files import digest_file, files_below, read_json, to_json, write_atomic
from mlops_assets.gates import GATES, Verdict, table
from mlops_assets.judgement import Judge
from mlops_assets.model_card import model_card
from mlops_assets.references import RegisteredModel, TrainedModel
from mlops_assets.runs import VERSION_TAG, tag_run
from mlops_assets.scoring.schema import Feature
from mlops_assets.spec import ModelSpec, parse_model
from resources.artifacts import Artifacts
from resources.attempts import Attempts
from resources.environment import Environment, Profile
from resources.registry import Registry, Version

#: What the name of an environment's check begins with.
ENVIRONMENT_CHECK = "gate_"


def environment_check(environment: str) -> str:
    """Name of the check that says whether an environment would take the version."""
    return f"{ENVIRONMENT_CHECK}{environment}"


#: Kind of the registry's records.
RELEASES = "releases"
#: Under this name the attempt to ask all gates is kept, beside the asset's own.
GATES_ATTEMPT = "registered_model_gates"


def gates_inputs(reference: RegisteredModel) -> dict[str, str]:
    """What the gates are asked about."""
    return {"version": release_name(reference)}


@dg.op(name="registered_model", out={"result": dg.Out(RegisteredModel)})
def registered_model(
    context: dg.AssetExecutionContext,
    trained_model: TrainedModel,
    artifacts: Artifacts,
    registry: dg.ResourceParam[Registry],
    attempts: Attempts,
):
    """The next version in the registry: bundle, evidence, lineage.

    The same identity again is the same version. What its gates say is on its checks.
    """
    inputs = {"trained_model": trained_model.identity}
    with attempts.working(context, context.asset_key, inputs):
        # Not returned: the attempt ends when the reference is stored.
        yield _register(context, trained_model, artifacts, registry)


def _register(
    context: dg.AssetExecutionContext,
    trained_model: TrainedModel,
    artifacts: Artifacts,
    registry: Registry,
) -> dg.MaterializeResult[RegisteredModel]:
    model = trained_model.model
    version = registry.find(model, trained_model.identity)
    if version is None:
        with artifacts.workspace() as folder:
            bundle = folder / "bundle"
            build_bundle(trained_model, artifacts.path("trained", trained_model.identity), bundle)
            version = registry.register(model, bundle)
        context.log.info(f"registered version {version.version}")
    tag_run(context, VERSION_TAG, str(version.version))
    release = _release(registry, trained_model, version, context.run.run_id)
    reference = RegisteredModel(
        model=model,
        version=version.version,
        digest=version.digest,
        identity=trained_model.identity,
        release=release,
    )
    return dg.MaterializeResult(
        asset_key=context.asset_key,
        value=reference,
        data_version=dg.DataVersion(release_name(reference)),
        metadata={
            "version": version.version,
            "digest": version.digest,
            "release": release,
            "identity": trained_model.identity,
            "commit": trained_model.commit.commit,
            "snapshot": trained_model.snapshot.digest,
            "card": dg.MetadataValue.md((version.bundle / "MODEL_CARD.md").read_text("utf-8")),
            "path": dg.MetadataValue.path(str(version.bundle)),
        },
    )


def release_name(reference: RegisteredModel) -> str:
    """A version as of a release: a revert releases an old version anew."""
    return f"{reference.digest}-{reference.release}"


@dataclass(frozen=True)
class Release:
    """A version as it was released; a revert releases an old one anew."""

    release: int
    version: int
    digest: str


def releases(registry: Registry, model: str) -> list[Release]:
    """All releases of a model, oldest first; further commits of the same one are left out."""
    found: dict[int, Release] = {}
    for record in registry.records(model, RELEASES):
        number = int(record["release"])
        found.setdefault(number, Release(number, int(record["version"]), record["digest"]))
    return list(found.values())


def _release(registry: Registry, trained: TrainedModel, version: Version, run_id: str) -> int:
    """The number of this release; releasing what was released last is not another release."""
    with registry.lock(trained.model):
        releases = registry.records(trained.model, RELEASES)
        last = releases[-1] if releases else None
        number = int(last["release"]) if last else 0
        if last is None or last["digest"] != version.digest:
            number += 1
        elif any((r["release"], r["commit"]) == (number, trained.commit.commit) for r in releases):
            return number
        content = {
            # Another commit of the same identity is an alias, not something newer to deploy.
            "release": number,
            "version": version.version,
            "digest": version.digest,
            "commit": trained.commit.commit,
            "run": run_id,
        }
        registry.record(trained.model, RELEASES, content)
        return number


def build_bundle(trained: TrainedModel, folder: Path, bundle: Path) -> None:
    """Lay out a version: the training process's files, the card, and the manifest over all."""
    shutil.copytree(folder, bundle)
    spec_file = bundle / "code" / trained.folder / "model.yaml"
    spec = parse_model(spec_file.read_text("utf-8"), trained.model, spec_file)
    described = read_json(bundle / "estimator.json")
    (bundle / "estimator.json").unlink()
    content = {
        "format": 1,
        "model": trained.model,
        "task": spec.task,
        "identity": trained.identity,
        "target": spec.data.target,
        "features": features(spec),
        "keys": keys(spec),
        "labels": described["labels"],
        "serving": {
            "format": described["format"],
            "reason": described["reason"],
            "ranges": spec.serving.ranges,
        },
        "predictions": described["predictions"],
        "parameters": spec.parameters,
        "packages": trained.packages,
        "python": trained.python,
        "platform": trained.platform,
        "source": trained.commit.model_dump(),
        "snapshot": {
            "digest": trained.snapshot.digest,
            "rows": trained.snapshot.rows,
            "contract": trained.snapshot.contract,
        },
        "contract": spec.contract_digest,
        "policy": spec.gates.model_dump(exclude_none=True),
        "files": {},
    }
    readme = spec_file.with_name("README.md")
    card = model_card(
        Manifest.model_validate(content),
        Evidence.model_validate_json((bundle / "evidence.json").read_bytes()),
        spec.owner,
        readme.read_text("utf-8") if readme.is_file() else "",
    )
    write_atomic(bundle / "MODEL_CARD.md", card)
    content["files"] = {
        p.relative_to(bundle).as_posix(): digest_file(p) for p in files_below(bundle)
    }
    write_atomic(bundle / "manifest.json", to_json(content))


def features(spec: ModelSpec) -> list[dict[str, object]]:
    """The model's input, one entry per column, in the order of training."""
    return [
        Feature(
            name=name,
            type=column.type,
            nullable=column.nullable,
            minimum=column.minimum,
            maximum=column.maximum,
            categories=tuple(column.categories) if column.categories else None,
        ).to_dict()
        for name, column in ((n, spec.data.columns[n]) for n in spec.features)
    ]


def keys(spec: ModelSpec) -> list[dict[str, object]]:
    """What names a row: a request may have it, and is not refused where it has not."""
    return [
        Feature(name=name, type=spec.data.columns[name].type, nullable=True).to_dict()
        for name in spec.data.key
    ]


def gates_op(environments: tuple[str, ...]):
    """The op of all checks on registered_model: the model's gates, and one per environment."""
    names = (*GATES, *(environment_check(name) for name in environments))

    @dg.op(
        name="gates",
        ins={"registered_model": dg.In(RegisteredModel)},
        out={name: dg.Out(dg.Nothing, is_required=False) for name in names},
    )
    def gates(
        context: dg.AssetCheckExecutionContext,
        registered_model: Any,
        profile: dg.ResourceParam[Profile],
        registry: dg.ResourceParam[Registry],
        judge: Judge,
        attempts: Attempts,
    ):
        """What the model's own gates, and each environment's, say about the version."""
        key = dg.AssetKey([registered_model.model, "registered_model"])
        wanted = {check.name for check in context.selected_asset_check_keys}
        attempt = dg.AssetKey([registered_model.model, GATES_ATTEMPT])
        with attempts.working(context, attempt, gates_inputs(registered_model)):
            version = registry.version(registered_model.model, registered_model.version)
            mismatched = version.mismatched()
            own = judge.judge(context, version, None, mismatched)
            for result in _own_gates(key, version, own):
                if result.check_name in wanted:
                    yield result
            for environment in profile.environments:
                if environment_check(environment.name) in wanted:
                    there = judge.judge(context, version, environment, mismatched)
                    yield _environment_gate(key, version, environment, there)

    return gates


def _own_gates(
    key: dg.AssetKey, version: Version, verdicts: list[Verdict]
) -> Iterator[dg.AssetCheckResult]:
    judged = {verdict.gate: verdict for verdict in verdicts}
    dirty = len(judged) > 1 and version.manifest.source.dirty
    for gate in GATES:
        verdict = judged.get(gate, judged["integrity"])
        # A dirty version goes on to a development endpoint of the same run; every other
        # environment refuses it by itself.
        only_a_warning = dirty and gate == "provenance"
        yield dg.AssetCheckResult(
            passed=verdict.passed,
            check_name=gate,
            asset_key=key,
            severity=dg.AssetCheckSeverity.WARN if only_a_warning else dg.AssetCheckSeverity.ERROR,
            description=f"{verdict.status.replace('_', ' ')}: {verdict.reason}",
            metadata={"version": str(version.version), "digest": version.digest},
        )


def _environment_gate(
    key: dg.AssetKey, version: Version, environment: Environment, verdicts: list[Verdict]
) -> dg.AssetCheckResult:
    closed = [verdict.gate for verdict in verdicts if not verdict.passed]
    return dg.AssetCheckResult(
        passed=not closed,
        check_name=environment_check(environment.name),
        asset_key=key,
        description=f"closed: {', '.join(closed)}" if closed else "open",
        metadata={
            "version": str(version.version),
            "digest": version.digest,
            "verdicts": dg.MetadataValue.md(table(verdicts)),
        },
    )
