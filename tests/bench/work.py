"""The work that all sides of the benchmark do: read, validate, split, fit, evaluate, pickle."""

import hashlib
import pickle
from pathlib import Path

COLUMNS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]


def read(folder: Path):
    import pandas as pd

    return pd.concat([pd.read_csv(path) for path in sorted(folder.glob("*.csv"))])


def validate(frame):
    import pandera.pandas as pa

    columns = {name: pa.Column(nullable=False, coerce=True) for name in [*COLUMNS, "progression"]}
    return pa.DataFrameSchema(columns).validate(frame, lazy=True)


def split(frame):
    def held_out(key) -> bool:
        return hashlib.sha256(str(key).encode()).digest()[0] < 64

    mask = frame["patient"].map(held_out)
    return frame[~mask], frame[mask]


def fit(training):
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge()).fit(training[COLUMNS], training["progression"])


def evaluate(model, holdout) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    predicted = model.predict(holdout[COLUMNS])
    target = holdout["progression"]
    return {
        "r2": float(r2_score(target, predicted)),
        "mean_absolute_error": float(mean_absolute_error(target, predicted)),
        "root_mean_squared_error": float(root_mean_squared_error(target, predicted)),
    }


def write(model, path: Path) -> None:
    path.write_bytes(pickle.dumps(model))
