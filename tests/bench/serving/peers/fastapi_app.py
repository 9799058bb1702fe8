"""The plain way: FastAPI, a pickle, a frame per request.

The function is asynchronous, which suits it: in FastAPI's threads it answers fewer requests.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

model = pickle.loads(Path(os.environ["MODEL"]).read_bytes())
app = FastAPI()


class Rows(BaseModel):
    data: list[dict[str, Any]]


@app.post("/score")
async def score(rows: Rows) -> dict[str, Any]:
    frame = pd.DataFrame(rows.data)
    return {"predictions": model.predict(frame).tolist()}
