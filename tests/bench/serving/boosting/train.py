"""Gradient boosting: trees are where a model's own cost is highest beside HTTP's."""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import GradientBoostingRegressor


def build(params: dict[str, Any]) -> GradientBoostingRegressor:
    """Return the unfitted estimator; ``params`` is ``parameters`` of model.yaml."""
    return GradientBoostingRegressor(
        n_estimators=params["n_estimators"], learning_rate=params["learning_rate"], random_state=0
    )
