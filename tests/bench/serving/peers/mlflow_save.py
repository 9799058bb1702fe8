"""``python mlflow_save.py PICKLE FOLDER REQUIREMENTS``: the estimator as an MLflow model."""

import pickle
import sys
from pathlib import Path

import mlflow.sklearn

mlflow.sklearn.save_model(
    pickle.loads(Path(sys.argv[1]).read_bytes()),
    sys.argv[2],
    serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
    pip_requirements=sys.argv[3],
)
