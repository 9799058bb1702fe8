"""The asset ``package``: a version to embed, as a wheel and as ONNX, with its checks."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from mlops_assets.gates import GatesClosedError, require_open, table
from mlops_assets.judgement import Judge
from mlops_assets.packaging import store
from mlops_assets.packaging.archive import differing_files
from mlops_assets.packaging.trial import Trial, bodies_of, try_out
from mlops_assets.references import Package, RegisteredModel
from mlops_assets.samples import load_samples
from mlops_assets.strict import SpecError
from resources.artifacts import Artifacts
from resources.attempts import Attempts, Refused
from resources.environment import Profile
from resources.registry import Registry, Version

#: This asset's checks.
CHECKS = {
    "files": "Every file is as it was built; the archive unpacks to what was registered.",
    "same_answers": "Installed in a clean environment, the wheel answers as the endpoint does.",
}


@dg.op(name="package", out={"result": dg.Out(Package), **dict.fromkeys(CHECKS, dg.Out(dg.Nothing))})
def package(
    context: dg.AssetExecutionContext,
    registered_model: RegisteredModel,
    profile: dg.ResourceParam[Profile],
    artifacts: Artifacts,
    registry: dg.ResourceParam[Registry],
    judge: Judge,
    attempts: Attempts,
):
    """The version as a wheel, as ONNX with its schema, and its bundle as one archive.

    What its gates refuse is not packaged.
    """
    inputs = {"registered_model": registered_model.digest}
    with attempts.working(context, context.asset_key, inputs):
        version = registry.version(registered_model.model, registered_model.version)
        _require_open_gates(context, version, judge)
        with artifacts.lock(store.PACKAGES, f"{version.model}-{version.version}"):
            made = store.make(version, artifacts, registry)
            bodies = bodies_of(version, list(_samples(context, profile, version.model)))
            trial = store.tried(made, registry, bodies)
            if trial is None:
                with artifacts.workspace() as scratch:
                    wheel = made.path(".whl")
                    trial = try_out(made.wheel, wheel, bodies, scratch / "environment")
                store.record(made, registry, bodies, trial, context.run.run_id)
        # Not returned: the attempt ends when the reference is stored.
        yield _result(context, made, trial)


def _require_open_gates(context: dg.AssetExecutionContext, version: Version, judge: Judge) -> None:
    judged = judge.judge(context, version)
    try:
        require_open(f"package {version.model}-{version.version}", judged)
    except GatesClosedError as error:
        raise Refused(str(error), {"verdicts": dg.MetadataValue.md(table(judged))}) from None


def _samples(context: dg.AssetExecutionContext, profile: Profile, model: str) -> Iterator[Any]:
    """Bodies of the samples that some environment expects an answer to."""
    for environment in profile.environments:
        try:
            samples = load_samples(profile.samples_of(model, environment.name))
        except SpecError as error:  # no fault of the version; its endpoint will not do without
            context.log.warning(f"not asked: {error}")
            continue
        yield from (sample.request for sample in samples if sample.expect.status == 200)


def _result(
    context: dg.AssetExecutionContext, made: store.Made, trial: Trial
) -> dg.MaterializeResult[Package]:
    version = made.wheel.version
    return dg.MaterializeResult(
        asset_key=context.asset_key,
        value=Package(
            model=version.model,
            version=version.version,
            digest=made.digest,
            folder=str(made.folder),
            files=made.files,
        ),
        data_version=dg.DataVersion(made.digest),
        metadata={
            "version": version.version,
            "wheel": f"{made.wheel.distribution} {made.wheel.number}",
            "files": dg.MetadataValue.md(_files(made)),
            "path": dg.MetadataValue.path(str(made.folder)),
        },
        check_results=[_intact(context, made), _same_answers(context, made, trial)],
    )


def _files(made: store.Made) -> str:
    lines = ["| file | bytes | SHA-256 |", "|---|---|---|"]
    lines += [
        f"| {name} | {(made.folder / name).stat().st_size} | `{digest}` |"
        for name, digest in made.files.items()
    ]
    return "\n".join(lines)


def _intact(context: dg.AssetExecutionContext, made: store.Made) -> dg.AssetCheckResult:
    wrong = store.changed(made.folder, made.files)
    if not wrong:
        wrong = differing_files(made.path(".zip"), made.wheel.version)
    return dg.AssetCheckResult(
        passed=not wrong,
        check_name="files",
        asset_key=context.asset_key,
        description=f"changed: {', '.join(wrong)}; remove {made.folder} and materialize again"
        if wrong
        else "every file is as it was built",
        metadata={"version": str(made.wheel.version.version)},
    )


def _same_answers(
    context: dg.AssetExecutionContext, made: store.Made, trial: Trial
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=trial.outcome == "same",
        check_name="same_answers",
        asset_key=context.asset_key,
        # Not tried is no word against the wheel.
        severity=dg.AssetCheckSeverity.WARN
        if trial.outcome == "not_tried"
        else dg.AssetCheckSeverity.ERROR,
        description=trial.reason,
        metadata={"version": str(made.wheel.version.version)},
    )
