"""The entry script of Azure's inference server, as its documentation has people write it."""

import json
import os
import pickle
from pathlib import Path

import pandas as pd


def init():
    global model
    model = pickle.loads((Path(os.environ["AZUREML_MODEL_DIR"]) / "model.pkl").read_bytes())


def run(raw_data):
    frame = pd.DataFrame(json.loads(raw_data)["data"])
    return {"predictions": model.predict(frame).tolist()}
