"""From a container's own folder to blob storage: a container's disk ends with it."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.files import matching
from mlops_assets.scoring.metrics import Metrics

if TYPE_CHECKING:
    from mlops_assets.scoring.blobs import BlobFolder

#: Seconds between two looks, and at most while storage does not answer.
LOOK_SECONDS, LONGEST_PAUSE = 2.0, 60.0
#: Bytes that wait for a storage that does not answer; the oldest files are dropped.
MAXIMUM_BYTES = 256 * 2**20
logger = logging.getLogger("capture")


class Uploader:
    """Uploads finished files and removes them here; a file that is there already is the same."""

    def __init__(
        self,
        folder: Path,
        store: BlobFolder,
        place: str,
        metrics: Metrics,
        maximum: int = MAXIMUM_BYTES,
    ) -> None:
        """Nothing is asked before ``run``.

        Args:
            folder: of the Parquet files.
            store: of the container that they go to.
            place: the folder there; the names stay.
            metrics: counts files that are dropped.
            maximum: bytes that may wait.
        """
        self._folder = folder
        self._store = store
        self._place = place
        self._metrics = metrics
        self._maximum = maximum
        self._trouble = False

    def start(self) -> None:
        """Upload in a thread that ends with the process."""
        threading.Thread(target=self.run, name="upload", daemon=True).start()

    def run(self) -> None:
        """Upload for ever."""
        pause = LOOK_SECONDS
        while True:
            time.sleep(pause)
            pause = LOOK_SECONDS if self.look() else min(pause * 2, LONGEST_PAUSE)

    def look(self) -> bool:
        """Upload what is there; False if storage did not take it."""
        try:
            for path in self._finished():
                with suppress(FileNotFoundError):  # the capture process removes old days too
                    self._take(path)
            self._trouble = False
        except Exception as error:
            if not self._trouble:
                logger.error("captured requests stay here: %s", error)
            self._trouble = True
            self._bound()
        return not self._trouble

    def _take(self, path: Path) -> None:
        name = path.relative_to(self._folder).as_posix()
        self._store.upload(f"{self._place}/{name}", path)
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()  # a day that is over

    def _finished(self) -> list[Path]:
        """The oldest first; names tell."""
        return sorted(matching(self._folder, "*/[0-9]*.parquet"))

    def _bound(self) -> None:
        sizes: dict[Path, int] = {}
        for path in self._finished():
            with suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total <= self._maximum:
                break
            path.unlink(missing_ok=True)
            total -= size
            self._metrics.drop("unreachable_files")
        with suppress(OSError):
            self._metrics.write()
