"""Where raw data lies: named folders below a root, or URLs.

Which files belong to a location is decided by their names alone, so that one listing of the root
serves every location below it.
"""

from __future__ import annotations

import os
import posixpath
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import dagster as dg
from upath import UPath

from resources.listing import (
    MissingFolderError,
    StorageError,
    StoredFile,
    fingerprint,
    list_files,
    newest,
)

__all__ = [
    "Clock",
    "MissingFolderError",
    "Storage",
    "StorageError",
    "StoredFile",
    "fingerprint",
    "newest",
]

#: Files that keep changing are waited for at least this long, in seconds,
LEAST_PATIENCE = 60.0
#: and at least this many times as long as they must lie unchanged.
PATIENCE = 20


@dataclass(frozen=True)
class Clock:
    """Time, for who waits."""

    #: Unix seconds.
    now: Callable[[], float] = time.time
    sleep: Callable[[float], object] = time.sleep


class Storage(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Folders of data files below one root."""

    root: str

    def place(self, location: str) -> UPath:
        """Where a ``data.location`` lies: below the root unless it is absolute or a URL.

        Raises:
            StorageError: a URL of a kind that is not known here.
        """
        return _place(self._full(location))

    def root_of(self, location: str) -> str:
        """What to list for a location: the storage's root where it lies below, else itself."""
        return self._split(location)[0]

    def listing(self, root: UPath | str, suffixes: Iterable[str] = ("",)) -> list[StoredFile]:
        """Every file below a folder whose name ends in one of ``suffixes``, in no order.

        Hidden files and folders are passed over: uploaders write under such names before they
        rename. Links are followed; broken ones are passed over.

        Raises:
            MissingFolderError: there is no such folder.
            StorageError: the listing failed half-way, or what it found kept vanishing.
        """
        return list_files(_place(root), suffixes)

    def pick(
        self, files: Iterable[StoredFile], wanted: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], list[StoredFile]]:
        """Sort the listing of one root by location, in one pass.

        Args:
            files: the listing of what ``root_of`` says of each of the locations.
            wanted: pairs of location and suffix.

        Returns:
            (location, suffix) -> its files as ``files`` would give them, in no order.
        """
        found: dict[tuple[str, str], list[StoredFile]] = {pair: [] for pair in wanted}
        takers: dict[str, list[_Taker]] = defaultdict(list)
        for (location, suffix), taken in found.items():
            prefix = self._split(location)[1]
            cut = len(prefix) + 1 if prefix else 0
            takers[prefix].append(_Taker(self.place(location), suffix, cut, taken))
        by_folder: dict[str, list[_Taker]] = {}
        for file in files:
            folder = file.within.rpartition("/")[0]
            if folder not in by_folder:
                by_folder[folder] = [t for above in _above(folder) for t in takers.get(above, ())]
            for taker in by_folder[folder]:
                taker.offer(file)
        return found

    def files(self, location: str, suffix: str) -> list[StoredFile]:
        """Every file below a location that ends in ``suffix``, sorted by path.

        Raises:
            StorageError: there is no such folder, no such file in it, or the listing failed.
        """
        place = self.place(location)
        try:
            found = sorted(self.listing(place, [suffix]), key=lambda file: file.within)
        except MissingFolderError:
            raise StorageError(
                f"data.location '{location}': no folder {place}; create it and put the "
                f"{suffix} files there, or correct data.location in model.yaml"
            ) from None
        if not found:
            raise StorageError(
                f"data.location '{location}': no {suffix} file below {place}; "
                "add one, or correct data.format in model.yaml"
            )
        return found

    def settled(
        self,
        location: str,
        suffix: str,
        settle_seconds: float,
        log: Callable[[str], object],
        clock: Clock = Clock(),
    ) -> list[StoredFile]:
        """As ``files``, once they have lain unchanged for ``settle_seconds``.

        They have when their dates say so and no listing has contradicted, or when all listings of
        so long a time were equal. With 0 there is one listing and no wait.

        Args:
            location: a ``data.location``.
            suffix: of the files' names.
            settle_seconds: how long no file may change.
            log: told when it waits, and why.
            clock: another one in tests.

        Raises:
            StorageError: as ``files``, or they kept changing; it names them.
        """
        files = self.files(location, suffix)
        start = now = clock.now()
        still_since = min(start, max(file.changed for file in files))
        patience = max(LEAST_PATIENCE, PATIENCE * settle_seconds)
        changing = [file.within for file in files]
        while now - still_since < settle_seconds:
            if now - start >= patience:
                raise StorageError(
                    f"data.location '{location}': files kept changing for {now - start:.0f} s: "
                    f"{_some(changing)}; start again when the upload has ended"
                )
            if now == start:
                log(
                    f"data.location '{location}': files are being changed; waiting until they have "
                    f"lain still for {settle_seconds:g} s"
                )
            clock.sleep(max(settle_seconds - (now - still_since), 0.001))
            now, before, files = clock.now(), files, self.files(location, suffix)
            if moved := _difference(before, files):
                still_since, changing = now, moved
        return files

    def _split(self, location: str) -> tuple[str, str]:
        """The root to list for a location, and the location's path below it."""
        base, below = _normal(self.root), _normal(self._full(location))
        prefix = below[len(base) :].strip("/")
        inside = f"{below}/".startswith(f"{base.rstrip('/')}/")
        # The root's listing passes over what is hidden.
        hidden = any(part.startswith(".") for part in prefix.split("/"))
        return (base, prefix) if inside and not hidden else (below, "")

    def _full(self, location: str) -> str:
        """A location with the root before it, unless it is absolute or a URL."""
        if urlsplit(location).scheme or location.startswith("/"):
            return location
        below = posixpath.normpath(location)
        return self.root if below == "." else posixpath.join(self.root, below)


class _Taker(NamedTuple):
    """Who takes files of a listing: one location with one suffix."""

    place: UPath
    suffix: str
    #: Characters of the location's own path below the root.
    cut: int
    taken: list[StoredFile]

    def offer(self, file: StoredFile) -> None:
        if file.within.endswith(self.suffix):
            within = file.within[self.cut :]
            self.taken.append(StoredFile(self.place, file.size, file.version, within, file.changed))


def _above(folder: str) -> list[str]:
    """A folder and all above it, up to the root, which is empty."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def _normal(location: str) -> str:
    """One spelling of a place: a local folder as an absolute path, a URL without a last slash."""
    if urlsplit(location).scheme in ("", "file", "local"):
        return os.path.abspath(UPath(location).path)  # noqa: PTH100  (Path keeps "..")
    return location.rstrip("/")


def _place(location: UPath | str) -> UPath:
    try:
        return UPath(location)
    except ValueError as error:
        raise StorageError(f"'{location}': {error}; correct data.location in model.yaml") from None


def _difference(before: list[StoredFile], after: list[StoredFile]) -> list[str]:
    """Names of the files that are new, gone or another version, sorted."""
    versions = [{(f.within, f.version, f.size) for f in files} for files in (before, after)]
    return sorted({within for within, _, _ in versions[0] ^ versions[1]})


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
