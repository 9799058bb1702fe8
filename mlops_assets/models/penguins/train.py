"""Logistic regression on imputed measurements and one-hot text."""

from __future__ import annotations

from typing import Any

from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]


def build(params: dict[str, Any]) -> Pipeline:
    """Return the unfitted estimator; ``params`` is ``parameters`` of model.yaml."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    # A missing text is the empty string, in training as in serving.
    texts = make_pipeline(
        SimpleImputer(missing_values="", strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    columns = make_column_transformer((numbers, NUMBERS), (texts, TEXTS))
    return make_pipeline(columns, LogisticRegression(C=params["C"], max_iter=1000))
