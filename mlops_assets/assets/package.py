"""The asset ``package``: a version to embed, as one file, with its check."""

import tempfile
import zipfile
from pathlib import Path

import dagster as dg

from mlops_assets.files import digest_bytes, digest_file, files_below, read_json
from mlops_assets.gates import GatesClosedError, require_open, table
from mlops_assets.judgement import Judge
from mlops_assets.references import Package, RegisteredModel
from resources.artifacts import Artifacts
from resources.attempts import Attempts, Refused
from resources.registry import Registry, Version

#: This asset's checks.
CHECKS = {"archive": "Unpacked elsewhere, every file is what was registered."}

#: The earliest date that a zip file can hold: the same version gives the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)


@dg.op(name="package", out={"result": dg.Out(Package), "archive": dg.Out(dg.Nothing)})
def package(
    context: dg.AssetExecutionContext,
    registered_model: RegisteredModel,
    artifacts: Artifacts,
    registry: dg.ResourceParam[Registry],
    judge: Judge,
    attempts: Attempts,
):
    """The version's bundle as one archive. What its gates refuse is not packaged."""
    inputs = {"registered_model": registered_model.digest}
    with attempts.working(context, context.asset_key, inputs):
        # Not returned: the attempt ends when the reference is stored.
        yield _package(context, registered_model, artifacts, registry, judge)


def _package(
    context: dg.AssetExecutionContext,
    registered_model: RegisteredModel,
    artifacts: Artifacts,
    registry: Registry,
    judge: Judge,
) -> dg.MaterializeResult[Package]:
    version = registry.version(registered_model.model, registered_model.version)
    name = f"{version.model}-{version.version}"
    judged = judge.judge(context, version)
    try:
        require_open(f"package {name}", judged)
    except GatesClosedError as error:
        raise Refused(str(error), {"verdicts": dg.MetadataValue.md(table(judged))}) from None
    folder = artifacts.path("packages", name)
    archive = folder / f"{name}.zip"
    if not artifacts.has("packages", name):
        with artifacts.workspace() as scratch:
            made = scratch / "package"
            made.mkdir()
            write_archive(version, made / archive.name)
            artifacts.publish("packages", name, made)
    digest = digest_file(archive)
    differing = differing_files(archive, version)
    return dg.MaterializeResult(
        asset_key=context.asset_key,
        value=Package(
            model=version.model, version=version.version, digest=digest, archive=str(archive)
        ),
        data_version=dg.DataVersion(digest),
        metadata={
            "version": version.version,
            "digest": digest,
            "bytes": archive.stat().st_size,
            "path": dg.MetadataValue.path(str(archive)),
        },
        check_results=[
            dg.AssetCheckResult(
                passed=not differing,
                check_name="archive",
                asset_key=context.asset_key,
                description=f"differs from the registered version: {', '.join(differing)}"
                if differing
                else "every file is what was registered",
                metadata={"version": str(version.version)},
            )
        ],
    )


def write_archive(version: Version, path: Path) -> None:
    """Zip a bundle; the same version gives the same bytes on every machine."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files_below(version.bundle):
            name = (
                f"{version.model}-{version.version}/{file.relative_to(version.bundle).as_posix()}"
            )
            archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes())


def differing_files(path: Path, version: Version) -> list[str]:
    """Unpack an archive elsewhere and name what is not as the registry's manifest says."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        root = Path(folder) / f"{version.model}-{version.version}"
        manifest = (root / "manifest.json").read_bytes()
        if digest_bytes(manifest) != version.digest:
            return ["manifest.json"]
        files = read_json(root / "manifest.json")["files"]
        return [
            n for n, d in files.items() if not (root / n).is_file() or digest_file(root / n) != d
        ]
