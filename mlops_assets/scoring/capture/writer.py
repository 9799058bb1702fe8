"""The capture process's memory and files: rows in, spool files, Parquet files."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from mlops_assets.scoring.capture.rows import RowBuffer
from mlops_assets.scoring.capture.settings import SPOOL, CaptureSettings
from mlops_assets.scoring.capture.spool import SUFFIX, Spool, finish, tidy
from mlops_assets.scoring.capture.wire import NO_SOURCE, Record
from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.generation import GenerationError, GenerationFile
from mlops_assets.scoring.logs import without_values
from mlops_assets.scoring.metrics import Metrics
from mlops_assets.scoring.predictor import read_manifest
from mlops_assets.scoring.schema import Schema

#: Rows that wait in memory at most, beside those of one block.
MOST_ROWS = 10_000
#: Bytes of spool files that wait for a store that takes none, in sizes at which one is finished.
MOST_SPOOLS = 16
#: Seconds until a store that failed is tried again, and between two looks for old days.
RETRY_SECONDS, TIDY_SECONDS = 5.0, 3600.0
logger = logging.getLogger("capture")


@dataclass
class _Open:
    """The rows of one version, and the file that they are appended to."""

    buffer: RowBuffer
    spool: Spool | None = None
    #: When the file was made, by ``monotonic``.
    since: float = 0.0


class Writer:
    """Writes what it is given; a disk or store that fails costs rows, which are counted."""

    def __init__(self, folder: Path, settings: CaptureSettings, metrics: Metrics) -> None:
        """Take over what an earlier process has left.

        Args:
            folder: the endpoint's.
            settings: what is kept, and where.
            metrics: counts what is kept and what is dropped.
        """
        self._folder = folder
        self._settings = settings
        self._metrics = metrics
        self._spools = folder / SPOOL
        self._store = Path(settings.folder)
        self._rotate_bytes = int(settings.rotate_megabytes * 2**20)
        self._versions: dict[str, _Open | None] = {}
        #: The version that rows without a deployment are written beside.
        self._last: _Open | None = None
        self._told: set[str] = set()
        # A thread of its own: a slow store holds up the files alone.
        self._thread = ThreadPoolExecutor(1, "store")
        self._finishing: Future[None] | None = None
        #: Spool files that are to be finished with their bytes; when the store is asked again.
        self._waiting: dict[Path, int] = {}
        self._not_before = self._tidied = 0.0
        self._make_room()
        for path in sorted(self._spools.glob(f"*{SUFFIX}")):
            self._waiting[path] = path.stat().st_size

    def take(self, sources: Sequence[Sequence[Any]], records: Sequence[Record]) -> None:
        """Take records as a worker has sent them."""
        for source, run in groupby(records, itemgetter(2)):
            self._take(None if source == NO_SOURCE else sources[source], [*run])

    def _take(self, source: Sequence[Any] | None, records: Sequence[Record]) -> None:
        """Take requests that one deployment has answered, or none."""
        name = number = None
        if source is None:
            found = self._last or self._served()
        else:
            name, number, digest, bundle = source
            found = self._version(digest, bundle)
        if found is None:
            self._metrics.drop("unknown_version", len(records))
            return
        self._last = found
        for start in range(0, len(records), MOST_ROWS):
            try:
                wrong = found.buffer.extend((name, number), records[start : start + MOST_ROWS])
            except Exception as error:
                self._drop_unwritable(found, error)
                continue
            if wrong:
                self._tell("undecodable", f"requests cannot be read again: {wrong[0]}")
                self._metrics.drop("undecodable", len(wrong))
            if len(found.buffer) >= MOST_ROWS:
                self._flush(found)

    def flush(self) -> None:
        """Append what waits in memory, and finish what is large or old enough."""
        now = time.monotonic()
        for found in [*self._versions.values()]:
            if found is None:
                continue
            if len(found.buffer):
                self._flush(found)
            if found.spool is not None and (
                found.spool.size >= self._rotate_bytes
                or now - found.since >= self._settings.rotate_seconds
            ):
                self._rotate(found)
        self._finish_some(now)

    def close(self) -> None:
        """Finish every file; one that the store does not take is finished by the next process."""
        self.flush()
        for found in self._versions.values():
            if found is not None:
                self._rotate(found)
        self._not_before = 0.0
        if self._finishing is not None:
            self._finishing.exception()
        self._finish_some(time.monotonic())
        self._thread.shutdown()

    # -- the disk

    def _flush(self, found: _Open) -> None:
        requests = found.buffer.requests
        if self._piled_up():
            found.buffer.clear()
            self._metrics.drop("store", requests)
            return
        try:
            batch = found.buffer.batch()
            if found.spool is None:
                self._make_room()
                first = batch.column("mlops_time")[0].value / 1e6
                found.spool = Spool(self._spools, first)
                found.since = time.monotonic()
            found.spool.append(batch)
        except OSError as error:
            self._tell("disk", f"requests are not kept: {self._spools}: {error.strerror}")
            self._metrics.drop("disk", requests)
        except Exception as error:
            self._drop_unwritable(found, error)
        else:
            self._told.discard("disk")
            self._metrics.capture(requests)

    def _drop_unwritable(self, found: _Open, error: Exception) -> None:
        self._metrics.drop("unwritable", found.buffer.requests)
        found.buffer.clear()
        self._tell("unwritable", f"requests are not kept\n{without_values(error)}")

    def _make_room(self) -> None:
        try:
            self._spools.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            self._tell("disk", f"{self._spools}: {error.strerror}")

    def _piled_up(self) -> bool:
        return sum(self._waiting.values()) >= MOST_SPOOLS * self._rotate_bytes

    def _rotate(self, found: _Open) -> None:
        if found.spool is not None:
            found.spool.close()
            self._waiting[found.spool.path] = found.spool.size
            found.spool = None

    # -- the store

    def _finish_some(self, now: float) -> None:
        """Let the thread finish what waits, unless it is at it."""
        if self._finishing is not None:
            if not self._finishing.done():
                return
            self._waiting = {p: size for p, size in self._waiting.items() if p.exists()}
            self._not_before = now + RETRY_SECONDS if self._finishing.exception() else 0.0
            self._finishing = None
        tidies = now - self._tidied >= TIDY_SECONDS or not self._tidied
        if now >= self._not_before and (self._waiting or tidies):
            self._finishing = self._thread.submit(self._finish, [*self._waiting], tidies)

    def _finish(self, waiting: list[Path], tidies: bool) -> None:
        try:
            for path in waiting:
                if path.exists():
                    finish(path, self._store)
            if tidies:
                tidy(self._store, self._settings.keep_days, time.time())
                self._tidied = time.monotonic()
            self._told.discard("store")
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            self._tell("store", f"{self._store}: {reason}; tried again")
            raise

    # -- versions

    def _version(self, digest: str, bundle: str) -> _Open | None:
        """A version by its digest; None where its manifest is gone."""
        if digest not in self._versions:
            try:
                manifest, _ = read_manifest(Path(bundle), digest)
                buffer = RowBuffer(Schema.from_manifest(manifest), self._settings)
                self._versions[digest] = _Open(buffer)
            except (IntegrityError, KeyError, TypeError, ValueError) as error:
                self._tell(digest, f"{bundle}: requests are not kept: {error}")
                self._versions[digest] = None
        return self._versions[digest]

    def _served(self) -> _Open | None:
        """Any version that is deployed."""
        try:
            entries = GenerationFile(self._folder).read().deployments.values()
        except (GenerationError, OSError):
            return None
        found = (self._version(entry.digest, entry.bundle) for entry in entries)
        return next((one for one in found if one is not None), None)

    def _tell(self, what: str, message: str) -> None:
        """Say it once, until it is mended."""
        if what not in self._told:
            self._told.add(what)
            logger.error("%s", message)
