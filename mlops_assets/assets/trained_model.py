"""The asset ``trained_model``: trained from the exported source of one commit, in a process."""

import base64
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.assets.sources import TRAINING_CODE, seen
from mlops_assets.evidence import Evidence
from mlops_assets.files import read_json
from mlops_assets.judgement import champion_request
from mlops_assets.references import DatasetSnapshot, TrainedModel
from mlops_assets.release import (
    SourceConfig,
    identity,
    installed_packages,
    platform_name,
    resolve_commit,
)
from mlops_assets.spec import ModelSpec
from resources.artifacts import Artifacts
from resources.attempts import Attempts, CutShort
from resources.environment import Profile
from resources.git import GitSource
from resources.references import References
from resources.registry import Registry, Version
from resources.serving import Serving
from resources.training import Training, TrainingError, TrainingKilledError
from resources.verification import Verification


@dg.op(name="trained_model", out={"result": dg.Out(TrainedModel)})
def trained_model(
    context: dg.AssetExecutionContext,
    config: SourceConfig,
    dataset: DatasetSnapshot,
    profile: dg.ResourceParam[Profile],
    git: GitSource,
    artifacts: Artifacts,
    references: References,
    registry: dg.ResourceParam[Registry],
    serving: dg.ResourceParam[Serving],
    training: dg.ResourceParam[Training],
    verification: Verification,
    attempts: Attempts,
):
    """An estimator fitted in a process of its own, with everything measured about it.

    The same source, data, parameters and packages are never trained twice.
    """
    model, key = dataset.model, context.asset_key
    known = seen(context.instance, [(model, TRAINING_CODE)]).get((model, TRAINING_CODE))
    inputs = {"dataset": dataset.digest} | ({TRAINING_CODE: known.version} if known else {})
    with attempts.working(context, key, inputs) as work:
        released, spec = resolve_commit(context, config, profile, git, references)
        work.found({TRAINING_CODE: released.code})
        if dataset.contract != spec.contract_digest:
            raise dg.Failure(
                f"the snapshot of commit {dataset.commit.commit[:10]} met another contract than "
                f"commit {released.commit.commit[:10]} declares; materialize dataset in the same "
                "run",
                allow_retries=False,
            )
        packages = installed_packages()
        name = identity(dataset, released, spec, packages)
        with artifacts.lock("trained", name):
            if artifacts.has("trained", name):
                context.log.info(f"identity {name[:12]} was trained before; nothing to do")
            else:
                verification.prepare()
                champion = serving.champion(model, registry)
                with artifacts.workspace() as folder:
                    request = training_request(
                        name, spec, dataset, profile, artifacts, champion, folder
                    )
                    git.export(spec, released.commit, folder / "source")
                    output = folder / "output"
                    output.mkdir()
                    try:
                        training.run(context, request, output)
                    except TrainingKilledError as error:
                        raise CutShort(str(error), allow_retries=False) from None
                    except TrainingError as error:
                        raise dg.Failure(str(error), allow_retries=False) from None
                    _keep_comparison(registry, model, name, output)
                    (folder / "source").rename(output / "code")
                    artifacts.publish("trained", name, output)
        reference = TrainedModel(
            model=model,
            identity=name,
            folder=spec.folder,
            snapshot=dataset,
            commit=released.commit,
            packages=packages,
            python=sys.version.split()[0],
            platform=platform_name(),
        )
        # Not returned: the attempt ends when the reference is stored.
        yield dg.MaterializeResult(
            asset_key=key,
            value=reference,
            data_version=dg.DataVersion(name),
            metadata=_metadata(reference, artifacts.path("trained", name)),
        )


def training_request(
    name: str,
    spec: ModelSpec,
    dataset: DatasetSnapshot,
    profile: Profile,
    artifacts: Artifacts,
    champion: Version | None,
    folder: Path,
) -> dict[str, Any]:
    """What the training process is asked; see ``mlops_assets.training.runner``."""
    return {
        "mode": "train",
        "identity": name,
        "model": spec.name,
        "source": str(folder / "source"),
        "spec": spec.model_dump(mode="json"),
        "folder": spec.folder,
        "repository": str(profile.root),
        "snapshot": str(artifacts.path("snapshots", dataset.digest) / "data.parquet"),
        "champion": champion_request(champion),
    }


def _keep_comparison(registry: Registry, model: str, name: str, output: Path) -> None:
    """Comparisons are records of their own: the champion may be another one at deployment."""
    path = output / "comparison.json"
    if path.is_file():
        comparison = read_json(path)
        registry.record(model, "comparisons", {**comparison, "candidate": name})
        path.unlink()


def _metadata(reference: TrainedModel, folder: Path) -> dict[str, Any]:
    """Metrics as plain numbers, so that the page plots them; all that is to be seen in one text."""
    evidence = Evidence.model_validate_json((folder / "evidence.json").read_bytes())
    commit = reference.commit
    return {
        "evaluation": dg.MetadataValue.md(evaluation(evidence, folder / "pictures")),
        **{name: float(f"{metric.value:.6g}") for name, metric in evidence.metrics.items()},
        "commit": commit.commit,
        "author": commit.author,
        "message": commit.message,
        "dirty": commit.dirty,
        "snapshot": reference.snapshot.digest,
        "training_rows": evidence.holdout.training_rows,
        "holdout_rows": evidence.holdout.rows,
        "identity": reference.identity,
        "parity": evidence.parity.reason if evidence.parity else "",
        "seconds": dg.MetadataValue.json(evidence.seconds),
        "path": dg.MetadataValue.path(str(folder)),
    }


def evaluation(evidence: Evidence, pictures: Path) -> str:
    """Metrics with their intervals, slices and pictures, as Markdown."""
    metrics = "".join(
        f"| {name} | {m.value:.4g} | {m.lower:.4g} to {m.upper:.4g} |\n"
        for name, m in evidence.metrics.items()
    )
    slices = "".join(
        f"| {s.column} | {s.value} | {s.rows} | "
        + ", ".join(f"{n} {v:.3g}" for n, v in s.metrics.items() if v is not None)
        + " |\n"
        for s in evidence.slices
    )
    parts = [f"| metric | value | 95 % interval |\n|---|---|---|\n{metrics}"]
    if slices:
        parts.append(f"| column | value | rows | metrics |\n|---|---|---|---|\n{slices}")
    parts += [picture(path) for path in sorted(pictures.glob("*.png"))]
    return "\n\n".join(parts)


def picture(path: Path) -> str:
    """A PNG inside Markdown."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f"![{path.stem}](data:image/png;base64,{encoded})"
