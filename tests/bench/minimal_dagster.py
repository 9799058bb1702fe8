"""The work as four assets, in process: ``python -m tests.bench.minimal_dagster DATA OUT``."""

import os
import sys
from pathlib import Path

import dagster as dg

from tests.bench import work

DATA, OUT = Path(sys.argv[1]), Path(sys.argv[2])


@dg.asset
def dataset():
    return work.validate(work.read(DATA))


@dg.asset
def parts(dataset):
    return work.split(dataset)


@dg.asset
def model(parts):
    return work.fit(parts[0])


@dg.asset
def metrics(context: dg.AssetExecutionContext, model, parts) -> None:
    context.add_output_metadata(work.evaluate(model, parts[1]))
    work.write(model, OUT / "model.pkl")


if __name__ == "__main__":
    os.environ["DAGSTER_HOME"] = str(OUT)
    (OUT / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as instance:
        defs = dg.Definitions(assets=[dataset, parts, model, metrics])
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance).success
