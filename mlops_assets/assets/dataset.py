"""The asset ``dataset``: an immutable snapshot that met the commit's data contract."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from mlops_assets.assets.sources import (
    RAW_DATA,
    TRAINING_CODE,
    files_metadata,
    report,
    seen,
)
from mlops_assets.files import write_atomic
from mlops_assets.references import DatasetSnapshot
from mlops_assets.release import SourceConfig, resolve_commit
from mlops_assets.retraining import asked_inputs
from mlops_assets.spec import ModelSpec
from resources.artifacts import Artifacts
from resources.attempts import Attempts
from resources.environment import Profile
from resources.git import GitSource
from resources.references import References
from resources.registry import Registry, Version
from resources.serving import Serving
from resources.storage import Storage, StorageError, fingerprint

#: This asset's checks.
CHECKS = {
    "contract": "Columns, types, ranges, categories, keys and rows are as model.yaml declares.",
    "volume": "Not many rows fewer than in the snapshot before.",
    "drift": "Distributed as in the snapshot that the champion was trained on, column by column.",
}

#: The volume check warns when fewer than this share of the previous rows is left.
LEAST_SHARE = 0.8


@dg.op(
    name="dataset",
    out={"result": dg.Out(DatasetSnapshot), **{c: dg.Out(dg.Nothing) for c in CHECKS}},
)
def dataset(
    context: dg.AssetExecutionContext,
    config: SourceConfig,
    profile: dg.ResourceParam[Profile],
    git: GitSource,
    storage: Storage,
    artifacts: Artifacts,
    references: References,
    registry: dg.ResourceParam[Registry],
    serving: dg.ResourceParam[Serving],
    attempts: Attempts,
):
    """All files of the data location as one snapshot that met the contract.

    Read with the contract's types, checked, sorted, and named by their content. Data that breaks
    the contract publishes nothing: the last snapshot stays.
    """
    # Imported here: the code location must load without pandas.
    from mlops_assets.contract import ContractError
    from mlops_assets.snapshots import take_snapshot

    key = context.asset_key
    asked = asked_inputs(registry, key.path[0])
    known = _known(context.instance, key.path[0]) | asked
    with attempts.working(context, key, known) as work:
        released, spec = resolve_commit(context, config, profile, git, references)
        try:
            files = storage.settled(
                spec.data.location,
                f".{spec.data.format}",
                spec.data.settle_seconds,
                context.log.info,
            )
        except StorageError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        found = fingerprint(files)
        now = _known(context.instance, spec.name)
        # Where something newer was reported meanwhile, that stays the last report.
        if found != known.get(RAW_DATA) and now.get(RAW_DATA) == known.get(RAW_DATA):
            event = report(spec.name, RAW_DATA, found, files_metadata(spec.data.location, files))
            context.instance.report_runless_asset_event(event)
        work.found({RAW_DATA: found, "contract": released.contract})
        with artifacts.workspace() as folder:
            try:
                snapshot = take_snapshot(files, spec.data, spec.task, folder)
            except ContractError as error:
                yield _broken_contract(key, error)
                raise dg.Failure(str(error), allow_retries=False) from None
            publish_snapshot(artifacts, snapshot, spec, folder)
        reference = DatasetSnapshot(
            model=spec.name,
            digest=snapshot.digest,
            rows=snapshot.rows,
            contract=spec.contract_digest,
            commit=released.commit,
        )
        previous = references.latest(key, DatasetSnapshot)
        champion = serving.champion(spec.name, registry)
        path = artifacts.path("snapshots", snapshot.digest)
        yield dg.MaterializeResult(
            asset_key=key,
            value=reference,
            data_version=dg.DataVersion(snapshot.digest),
            metadata={
                "dagster/row_count": snapshot.rows,
                "snapshot": snapshot.digest,
                "commit": released.commit.commit,
                "files": len(files),
                "bytes": sum(file.size for file in files),
                "path": dg.MetadataValue.path(str(path)),
            },
            check_results=list(_checks(key, reference, previous, champion, artifacts, spec)),
        )


def _known(instance: dg.DagsterInstance, model: str) -> dict[str, str]:
    """What the last reports of the sources say, before anything is read."""
    found = seen(instance, [(model, TRAINING_CODE), (model, RAW_DATA)])
    code, data = found.get((model, TRAINING_CODE)), found.get((model, RAW_DATA))
    inputs = {RAW_DATA: data.version} if data else {}
    return inputs | ({"contract": str(code.metadata["contract"])} if code else {})


def publish_snapshot(artifacts: Artifacts, snapshot: Any, spec: ModelSpec, folder: Path) -> None:
    """Put a snapshot that lies in a scratch folder into the store, under its content's name."""
    if artifacts.has("snapshots", snapshot.digest):
        return
    finished = folder / "snapshot"
    finished.mkdir()
    snapshot.path.rename(finished / "data.parquet")
    write_atomic(finished / "contract.json", spec.data.model_dump_json(indent=2))
    artifacts.publish("snapshots", snapshot.digest, finished)


def _broken_contract(key: dg.AssetKey, error: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=False,
        check_name="contract",
        asset_key=key,
        description=f"{len(error.violations)} violations; nothing was published",
        metadata={"violations": _violation_table(error)},
    )


def _checks(
    key: dg.AssetKey,
    snapshot: DatasetSnapshot,
    previous: DatasetSnapshot | None,
    champion: Version | None,
    artifacts: Artifacts,
    spec: ModelSpec,
) -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(
        passed=True,
        check_name="contract",
        asset_key=key,
        description=f"{snapshot.rows} rows meet all {len(spec.data.columns)} columns",
    )
    share = snapshot.rows / previous.rows if previous else 1.0
    before = previous.rows if previous else "none"
    yield _warning(key, "volume", share >= LEAST_SHARE, f"{snapshot.rows} rows, before: {before}")
    yield _drift(key, snapshot, champion, artifacts, spec)


def _warning(
    key: dg.AssetKey, name: str, passed: bool, description: str, **metadata: Any
) -> dg.AssetCheckResult:
    """A check that never holds anything back."""
    return dg.AssetCheckResult(
        passed=passed,
        check_name=name,
        asset_key=key,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )


def _drift(
    key: dg.AssetKey,
    snapshot: DatasetSnapshot,
    champion: Version | None,
    artifacts: Artifacts,
    spec: ModelSpec,
) -> dg.AssetCheckResult:
    if champion is None:
        return _warning(key, "drift", True, "no version serves production yet")
    trained_on = champion.manifest.snapshot.digest
    known = artifacts.path("snapshots", trained_on) / "data.parquet"
    same = "the snapshot that the champion was trained on"
    if trained_on == snapshot.digest:
        return _warning(key, "drift", True, same)
    if not known.is_file():
        return _warning(key, "drift", True, f"{same} is no longer in the store")
    from mlops_assets.monitoring.monitor import compare_snapshots  # needs numpy

    now = artifacts.path("snapshots", snapshot.digest) / "data.parquet"
    found = compare_snapshots(known, now, spec)
    moved = ", ".join(c.column for c in found if c.moved)
    rows = [
        dg.TableRecord(
            {
                "column": c.column,
                "psi": c.psi,
                "by chance at most": c.psi_noise,
                "moved": c.moved,
                "how": c.reason,
            }
        )
        for c in found
    ]
    return _warning(
        key,
        "drift",
        not moved,
        f"moved since version {champion.version} was trained: {moved or 'no column'}",
        columns=dg.MetadataValue.table(rows),
    )


def _violation_table(error: Any) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "column": violation.column,
                    "rule": violation.rule,
                    "rows": violation.count,
                    "first": "; ".join(violation.examples),
                }
            )
            for violation in error.violations
        ]
    )
