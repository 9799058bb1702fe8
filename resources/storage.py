"""Where raw data lies: named folders below a root, or URLs."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import dagster as dg
from upath import UPath


class StorageError(Exception):
    """Data that cannot be found or read; the message names the place and the mend."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a data location."""

    path: UPath
    #: Bytes.
    size: int

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name


class Storage(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Folders of data files below one root."""

    root: str

    def place(self, location: str) -> UPath:
        """Where a ``data.location`` lies: below the root unless it is absolute or a URL."""
        return UPath(location) if urlsplit(location).scheme else UPath(self.root) / location

    def files(self, location: str, suffix: str) -> list[StoredFile]:
        """Every file below a location that ends in ``suffix``, sorted by path.

        Hidden files are passed over: uploaders write under such names before they rename.

        Raises:
            StorageError: there is no such folder, or no such file in it.
        """
        place = self.place(location)
        if not place.is_dir():
            raise StorageError(
                f"data.location '{location}': no folder {place}; create it and put the "
                f"{suffix} files there, or correct data.location in model.yaml"
            )
        paths = sorted(
            (p for p in place.rglob(f"*{suffix}") if p.is_file() and not p.name.startswith(".")),
            key=str,
        )
        if not paths:
            raise StorageError(
                f"data.location '{location}': no {suffix} file below {place}; "
                "add one, or correct data.format in model.yaml"
            )
        return [StoredFile(path, path.stat().st_size) for path in paths]
