"""The assets ``training_code`` and ``raw_data``: what lies outside, with the versions seen of it.

Sensors report what they see; a run that reads something newer reports it too. Each report is a
materialization with a data version, so that commits and uploads are nodes of the graph with
history, and conditions compare versions and not moments.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.references import Commit
from resources.storage import StoredFile, newest

#: The commit of a model's source; its version is the digest of the files training depends on.
TRAINING_CODE = "training_code"
#: The files of a model's data location; their version is a fingerprint of names, sizes and dates.
RAW_DATA = "raw_data"

DESCRIPTIONS = {
    TRAINING_CODE: "The source of the model at the head of its branch, as the git sensor saw it.",
    RAW_DATA: "The files of the model's data location, as the data sensor saw them.",
}
KINDS = {TRAINING_CODE: {"git", "source"}, RAW_DATA: {"file", "source"}}

#: Dagster's tag for the version of what was materialized.
DATA_VERSION = "dagster/data_version"


@dataclass(frozen=True)
class Seen:
    """The last report of one source."""

    version: str
    #: What the report says beside the version; numbers and text.
    metadata: Mapping[str, Any]


def specs(model: str, owner: str) -> list[dg.AssetSpec]:
    """The external assets of one model."""
    return [
        dg.AssetSpec(
            dg.AssetKey([model, name]),
            description=DESCRIPTIONS[name],
            group_name=model,
            owners=[owner],
            kinds=KINDS[name],
        )
        for name in (TRAINING_CODE, RAW_DATA)
    ]


def report(
    model: str, source: str, version: str, metadata: Mapping[str, Any]
) -> dg.AssetMaterialization:
    """The event that says which version of a source was seen."""
    return dg.AssetMaterialization(
        dg.AssetKey([model, source]), metadata=dict(metadata), tags={DATA_VERSION: version}
    )


def commit_metadata(commit: Commit, contract: str) -> dict[str, str]:
    """What a report of training_code says about the commit, and the contract it declares."""
    return {
        "commit": commit.commit,
        "author": commit.author,
        "message": commit.message,
        "time": commit.time,
        "branch": commit.branch,
        "repository": commit.repository,
        "contract": contract,
    }


def files_metadata(location: str, files: Sequence[StoredFile]) -> dict[str, Any]:
    """What a report of raw_data says about the files of a location."""
    return {
        "location": location,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "newest": newest(files),
    }


def unreadable_contract(tree: str) -> str:
    """Stands for the contract of a model.yaml that cannot be parsed: the run says why."""
    return f"unreadable:{tree}"


def seen(
    instance: dg.DagsterInstance, keys: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Seen]:
    """The last reports of several (model, source), in one query; never seen is left out."""
    by_key = {dg.AssetKey([model, source]): (model, source) for model, source in keys}
    found: dict[tuple[str, str], Seen] = {}
    for record in instance.get_asset_records(list(by_key)):
        last = seen_in(record.asset_entry.last_materialization)
        if last is not None:
            found[by_key[record.asset_entry.asset_key]] = last
    return found


def seen_in(event: dg.EventLogEntry | None) -> Seen | None:
    """The report that an event of a source holds."""
    last = event.asset_materialization if event else None
    if last is None or not last.tags or DATA_VERSION not in last.tags:
        return None
    metadata = {name: value.value for name, value in last.metadata.items()}
    return Seen(last.tags[DATA_VERSION], metadata)
