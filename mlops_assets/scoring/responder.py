"""One deployment behind the server: a request's body in, the answer's body out."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from mlops_assets.scoring.decoder import Decoder, Rows
from mlops_assets.scoring.inference_protocol import infer
from mlops_assets.scoring.metrics import Tally
from mlops_assets.scoring.payload import parse
from mlops_assets.scoring.predictor import Prediction
from mlops_assets.scoring.table import MAXIMUM_ROWS, Table, too_many_rows

if TYPE_CHECKING:
    from mlops_assets.scoring.deployments import Deployment

#: Larger bodies are read and scored in a thread: health stays quick.
THREAD_BYTES = 64 * 2**10
#: So is everything, while answers take longer than this.
SLOW_SECONDS = 0.01
#: Header that names the deployment that answered, or is to answer.
DEPLOYMENT = b"azureml-model-deployment"
encode = msgspec.json.encode


class Responder:
    """Answers for one deployment, and counts what it answers."""

    def __init__(self, deployment: Deployment, tally: Tally, source: int = 0) -> None:
        self.deployment = deployment
        self.tally = tally
        #: The number of the deployment for who captures.
        self.source = source
        schema = deployment.predictor.schema
        #: Sent with every answer.
        self.headers = [
            (b"content-type", b"application/json"),
            (DEPLOYMENT, deployment.name.encode()),
            (b"x-mlops-version", str(deployment.entry.version).encode()),
        ]
        #: Whether it is an estimator's own code that answers, which may do what it likes.
        self.runs_anything = deployment.predictor.format == "pickle"
        self._schema = schema
        self._model = deployment.predictor.model
        self._names = schema.names
        self._decoder = Decoder(schema)
        self._labels = schema.label_names
        self._seconds = 0.0

    def is_slow(self, body: bytes) -> bool:
        """Whether scoring a body would hold up the other requests."""
        return len(body) > THREAD_BYTES or self._seconds > SLOW_SECONDS

    def answer(self, body: bytes) -> bytes:
        """Answer on the event loop; raises RequestError."""
        started = perf_counter()
        rows = self._decoder.rows(body)
        prediction = None if rows is None else self._quickly(rows)
        if prediction is None:
            prediction = self.predict(body)
        self.count(prediction, perf_counter() - started)
        return self.encoded(prediction)

    def predict(self, body: bytes) -> Prediction:
        """Answer a body with care, in any thread; raises RequestError."""
        return self.deployment.predictor.predict_table(parse(body, self._schema))

    def infer(self, body: bytes) -> tuple[bytes, Prediction]:
        """Answer a body of the Open Inference Protocol, in any thread; raises RequestError."""
        return infer(body, self.deployment.predictor, str(self.deployment.entry.version))

    def work(self, body: bytes) -> tuple[bytes, Prediction]:
        """Answer a large body, in any thread; raises RequestError."""
        rows = self._decoder.rows(body)
        prediction = self.predict(body) if rows is None else self._batch(rows)
        return self.encoded(prediction), prediction

    def count(self, prediction: Prediction, seconds: float) -> None:
        """Count what was predicted; on the event loop alone."""
        # Smoothed: one pause of the machine makes no model a slow one.
        self._seconds += (seconds - self._seconds) / 8
        self.tally.predicted(prediction.values, self._schema)
        if self.deployment.reference is not None:
            self.tally.compare(prediction.values, self.deployment.reference)
        if prediction.outside:
            self.tally.outside.update(prediction.outside)

    def encoded(self, prediction: Prediction) -> bytes:
        """An answer's body."""
        return encode(prediction.answer(self._labels))

    def _quickly(self, rows: Rows) -> Prediction | None:
        """Score rows that are surely right; None where the model has no answer for them."""
        if len(rows) > 1:
            return self._batch(rows)
        try:
            return Prediction(*self._model.run_row(rows[0]))
        except Exception:  # with care once more: it may be told what is wrong
            return None

    def _batch(self, rows: Rows) -> Prediction:
        if len(rows) > MAXIMUM_ROWS:
            raise too_many_rows(len(rows))
        columns: dict[str, Sequence[Any]] = dict(
            zip(self._names, zip(*rows, strict=True), strict=True)
        )
        return self.deployment.predictor.predict_table(Table(columns, len(rows)), within=True)
