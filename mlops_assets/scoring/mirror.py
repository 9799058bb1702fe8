"""Copies of requests for a version that has no traffic yet: scored aside, answered to nobody."""

from __future__ import annotations

import logging
import random
import threading
from queue import SimpleQueue
from time import thread_time
from typing import TYPE_CHECKING

from mlops_assets.scoring.errors import RequestError
from mlops_assets.scoring.logs import without_values
from mlops_assets.scoring.metrics import DROPPED, Tally
from mlops_assets.scoring.responder import Responder

if TYPE_CHECKING:
    from mlops_assets.scoring.deployments import Deployment

#: Copies that wait, and their bytes; more are dropped.
MAXIMUM_WAITING, MAXIMUM_BYTES = 64, 16 * 2**20
logger = logging.getLogger(__name__)


class Mirror:
    """Scores a share of the requests on one more deployment, in a thread of its own."""

    def __init__(self, deployment: Deployment, tally: Tally) -> None:
        """Begin to take copies.

        Args:
            deployment: what scores them; its entry says which share of them.
            tally: counts them, and the predictions by the buckets of the deployment that it is
                compared with.
        """
        self.deployment = deployment
        self._schema = deployment.reference or deployment.predictor.schema
        self._share = deployment.entry.mirror / 100
        self._responder = Responder(deployment, Tally())
        self._tally = tally
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        # Each side counts up its own: what waits is the difference, and nobody takes a lock.
        self._given = self._given_bytes = 0
        self._taken = self._taken_bytes = 0
        self._closed = self._told = False
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Copies that are not scored yet."""
        return self._given - self._taken

    def offer(self, body: bytes) -> None:
        """Take a copy of a request that was answered, or leave it; called by one thread."""
        if random.random() >= self._share:  # noqa: S311
            return
        size = self._given_bytes - self._taken_bytes + len(body)
        if self.waiting >= MAXIMUM_WAITING or size > MAXIMUM_BYTES:
            self._tally.statuses[DROPPED] += 1
            return
        self._given += 1
        self._given_bytes += len(body)
        self._queue.put(body)

    def close(self) -> None:
        """Take no more copies; those that wait are dropped."""
        self._closed = True
        self._queue.put(None)

    def _run(self) -> None:
        while (body := self._queue.get()) is not None:
            if self._closed:
                self._tally.statuses[DROPPED] += 1
            else:
                self._score(body)
            self._taken += 1
            self._taken_bytes += len(body)

    def _score(self, body: bytes) -> None:
        # Processor time: real requests come first, and to wait for them is not the version's fault.
        started = thread_time()
        try:
            _, prediction = self._responder.work(body)
        except Exception as error:
            status = error.status if isinstance(error, RequestError) else 500
            self._tally.record(status, thread_time() - started)
            self._log(error)
            return
        self._tally.record(200, thread_time() - started)
        self._tally.predicted(prediction.values, self._schema)

    def _log(self, error: Exception) -> None:
        """Tell of the first failure; the others are counted."""
        if not self._told and not isinstance(error, RequestError):
            self._told = True
            name = self.deployment.name
            logger.error("mirrored requests fail on %s\n%s", name, without_values(error))
