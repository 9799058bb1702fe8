"""The asset ``experiment``: what branches have tried, on the page beside what is released.

Commands report it; nothing follows from it, so that no automation is asked for anything by it.
"""

from typing import Any

import dagster as dg

from mlops_assets.assets.sources import RAW_DATA

EXPERIMENT = "experiment"


def spec(model: str, owner: str) -> dg.AssetSpec:
    """The asset of one model."""
    return dg.AssetSpec(
        dg.AssetKey([model, EXPERIMENT]),
        deps=[dg.AssetKey([model, RAW_DATA])],
        description="What branches have tried on the newest data: `mlops experiment --keep` "
        "compares one with what serves, `mlops preview` serves it for a while. Neither releases.",
        group_name=model,
        owners=[owner],
        kinds={"git", "experiment"},
    )


def report(instance: dg.DagsterInstance, model: str, metadata: dict[str, Any]) -> None:
    """Add to the history of a model's experiments."""
    event = dg.AssetMaterialization(dg.AssetKey([model, EXPERIMENT]), metadata=metadata)
    instance.report_runless_asset_event(event)
