"""Ridge regression on standardised measurements."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def build(params: dict[str, Any]) -> Pipeline:
    """Return the unfitted estimator; ``params`` is ``parameters`` of model.yaml."""
    return make_pipeline(StandardScaler(), Ridge(alpha=params["alpha"]))
