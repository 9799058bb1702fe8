"""Captured requests, found again: on this machine and in blob storage.

``<captured>/<environment>/<model>/<YYYY-MM-DD>/<HHMMSS>-<id>.parquet``; a file's name is the time
of its first row, in UTC.
"""

from __future__ import annotations

import datetime as dt
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.files import matching

if TYPE_CHECKING:
    from resources.azure.blobs import Blobs

#: The folder below the state folder, and in the container.
CAPTURED = "captured"
#: How long a file may be written to, and how much older than its first row another one may be.
LONGEST_FILE, LATE = dt.timedelta(hours=1, minutes=5), dt.timedelta(minutes=5)
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)/(\d{6})-[0-9a-zA-Z]+\.parquet")


@dataclass(frozen=True, slots=True)
class CapturedFile:
    """One file of captured rows; whole, and never changed."""

    #: Below the folder of a model in an environment.
    name: str
    #: When its first row was answered.
    first: dt.datetime
    #: Bytes.
    size: int


class Captured(ABC):
    """The captured rows of all models and environments of a profile."""

    def files(
        self, model: str, environment: str, since: dt.datetime, until: dt.datetime
    ) -> list[CapturedFile]:
        """Every file that may hold rows of a span of time, the oldest first.

        Rows of other times are in them too: who reads them looks at ``mlops_time``.

        Args:
            model: whose requests.
            environment: where it served.
            since: with a time zone; the first moment.
            until: likewise; the first moment after it.
        """
        found = list(self.listed(model, environment, _days(since, until)))
        wanted = [f for f in found if since - LONGEST_FILE <= f.first < until + LATE]
        return sorted(wanted, key=lambda file: (file.first, file.name))

    @abstractmethod
    def fetch(
        self, model: str, environment: str, files: Sequence[CapturedFile], folder: Path
    ) -> list[Path]:
        """The files as paths of this machine, in their order.

        Args:
            model: as for ``files``.
            environment: likewise.
            files: of ``files``; one that was removed since is left out.
            folder: where copies go, if copies are needed.
        """

    @abstractmethod
    def tidy(self, model: str, environment: str, keep_days: int, today: dt.date) -> int:
        """Remove the files of days that are no longer kept; returns how many."""

    @abstractmethod
    def listed(self, model: str, environment: str, days: list[str]) -> Iterator[CapturedFile]:
        """The files of some days, ``YYYY-MM-DD``, in any order."""


class CapturedFolder(Captured):
    """Below a folder of this machine."""

    def __init__(self, root: Path) -> None:
        """Name the folder; it need not be there."""
        self._root = root

    def fetch(
        self, model: str, environment: str, files: Sequence[CapturedFile], folder: Path
    ) -> list[Path]:
        """See Captured.fetch: no copies are made."""
        del folder
        paths = [self._root / environment / model / file.name for file in files]
        return [path for path in paths if path.is_file()]

    def tidy(self, model: str, environment: str, keep_days: int, today: dt.date) -> int:
        """See Captured.tidy."""
        removed = 0
        for day in (self._root / environment / model).glob("[0-9]*"):
            if _is_over(day.name, keep_days, today):
                # The server tidies here too, at the same hour.
                for path in matching(day, "*"):
                    with suppress(FileNotFoundError):
                        path.unlink()
                        removed += 1
                with suppress(OSError):
                    day.rmdir()
        return removed

    def listed(self, model: str, environment: str, days: list[str]) -> Iterator[CapturedFile]:
        """See Captured.listed."""
        place = self._root / environment / model
        for day in days:
            for path in matching(place / day, "*.parquet"):
                found = None
                with suppress(FileNotFoundError):  # the server has just removed it
                    found = _file(path.relative_to(place).as_posix(), path.stat().st_size)
                if found is not None:
                    yield found


class CapturedBlobs(Captured):
    """In the platform's container."""

    def __init__(self, blobs: Blobs) -> None:
        """Nothing is asked yet."""
        self._blobs = blobs

    def fetch(
        self, model: str, environment: str, files: Sequence[CapturedFile], folder: Path
    ) -> list[Path]:
        """See Captured.fetch: a copy of each; raises AzureError."""
        from resources.azure.blobs import side_by_side

        prefix = _prefix(model, environment)

        def fetched(file: CapturedFile) -> Path | None:
            path = folder / file.name
            if path.is_file() or self._blobs.bring(f"{prefix}{file.name}", path):
                return path
            return None

        return [path for path in side_by_side(fetched, files) if path is not None]

    def tidy(self, model: str, environment: str, keep_days: int, today: dt.date) -> int:
        """See Captured.tidy; raises AzureError."""
        prefix = _prefix(model, environment)
        names = [blob.name for blob in self._blobs.listed(prefix)]
        old = [n for n in names if _is_over(n[len(prefix) :].split("/")[0], keep_days, today)]
        for name in old:
            self._blobs.remove(name)
        return len(old)

    def listed(self, model: str, environment: str, days: list[str]) -> Iterator[CapturedFile]:
        """See Captured.listed."""
        prefix = _prefix(model, environment)
        for day in days:
            for blob in self._blobs.listed(f"{prefix}{day}/"):
                found = _file(blob.name[len(prefix) :], blob.size)
                if found is not None:
                    yield found


class CapturedWhereServed(Captured):
    """Of several kinds, each where the target of an environment leaves them."""

    def __init__(self, of: Callable[[str], Captured]) -> None:
        """Nothing is asked yet.

        Args:
            of: the captured rows by the name of an environment.
        """
        self._of = of

    def fetch(
        self, model: str, environment: str, files: Sequence[CapturedFile], folder: Path
    ) -> list[Path]:
        """See Captured.fetch."""
        return self._of(environment).fetch(model, environment, files, folder)

    def tidy(self, model: str, environment: str, keep_days: int, today: dt.date) -> int:
        """See Captured.tidy."""
        return self._of(environment).tidy(model, environment, keep_days, today)

    def listed(self, model: str, environment: str, days: list[str]) -> Iterator[CapturedFile]:
        """See Captured.listed."""
        yield from self._of(environment).listed(model, environment, days)


def _prefix(model: str, environment: str) -> str:
    return f"{CAPTURED}/{environment}/{model}/"


def _days(since: dt.datetime, until: dt.datetime) -> list[str]:
    """The days, in UTC, whose folders may hold files of a span."""
    first = (since - LONGEST_FILE).astimezone(dt.UTC).date()
    last = (until + LATE).astimezone(dt.UTC).date()
    return [f"{first + dt.timedelta(days=n)}" for n in range((last - first).days + 1)]


def _file(name: str, size: int) -> CapturedFile | None:
    found = _FILE.fullmatch(name)
    if found is None:
        return None
    moment = dt.datetime.strptime(f"{found[1]} {found[2]}", "%Y-%m-%d %H%M%S")
    return CapturedFile(name, moment.replace(tzinfo=dt.UTC), size)


def _is_over(day: str, keep_days: int, today: dt.date) -> bool:
    try:
        return (today - dt.date.fromisoformat(day)).days > keep_days
    except ValueError:
        return False
