"""A server whose wanted state lies in blob storage: versions come and go, and it does not restart.

Below the address that it is given lie ``generation.json`` (the truth, written by who deploys),
``keys``, and ``acks/<instance>.json``, where each server says what it serves. A bundle is one
archive; it is checked against the digest that the generation names before a worker sees it.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mlops_assets.files import remove_tree, write_atomic
from mlops_assets.scoring import processes
from mlops_assets.scoring.archive import ArchiveError, Bounds, unpack
from mlops_assets.scoring.blobs import AbsentError, BlobError, BlobFolder
from mlops_assets.scoring.errors import IntegrityError
from mlops_assets.scoring.generation import (
    ACKS,
    GENERATION,
    Entry,
    Generation,
    GenerationError,
    GenerationFile,
    read_acks,
)
from mlops_assets.scoring.keys import KEYS, ensure_keys, write_keys
from mlops_assets.scoring.signature import Signed
from mlops_assets.scoring.standalone import StartError, check, find_bundle

BUNDLES = "bundles"
#: Seconds between two looks at storage, and at most while it does not answer.
POLL_SECONDS, LONGEST_PAUSE = 1.0, 30.0
#: Seconds between two looks at what the workers say.
LOOK_SECONDS = 0.05
#: How long an acknowledgement is believed to lie where it was written.
SAID_SECONDS = 60.0
#: Workers that may end before a version that they load is blamed for it.
MAXIMUM_CRASHES = 3
logger = logging.getLogger("follow")


@dataclass(frozen=True, slots=True)
class InstanceAck:
    """What one server serves, with all its workers."""

    instance: str
    #: When the server was started: ISO 8601, UTC.
    started: str
    generation: int
    #: Deployments of that generation that are not served, and why.
    errors: dict[str, str] = field(default_factory=dict)
    #: The mark of the keys that are in force.
    keys: str | None = None


class Follower:
    """Keeps the folder of a server what blob storage says; its workers follow the folder."""

    def __init__(self, folder: Path, source: BlobFolder, instance: str) -> None:
        """Nothing is read before ``run``.

        Args:
            folder: the server's.
            source: where the wanted state lies.
            instance: what this server is called there.
        """
        self._folder = folder
        self._source = source
        self._instance = instance
        self._started = dt.datetime.now(dt.UTC).isoformat()
        self._file = GenerationFile(folder)
        self._bundles = folder / BUNDLES
        self._wanted: Generation | None = None
        self._marks: dict[str, str | None] = {KEYS: None, GENERATION: None}
        #: The number that the workers have been told; None before the first.
        self._told: int | None = None
        self._errors: dict[str, str] = {}
        #: Digests whose files lie here; whoever loads one checks it once more.
        self._checked: set[str] = set()
        #: Digests that every worker has loaded.
        self._good: set[str] = set()
        self._seen: set[int] = set()
        self._said: InstanceAck | None = None
        self._said_at = 0.0
        self._trouble = False
        # The workers need a file of keys; until the real ones are there nobody knows these.
        ensure_keys(folder / KEYS)

    def start(self) -> threading.Thread:
        """Follow in a thread that ends with the process."""
        thread = threading.Thread(target=self.run, name="follow", daemon=True)
        thread.start()
        return thread

    def run(self) -> None:
        """Follow for ever."""
        pause = POLL_SECONDS
        while True:
            try:
                self._look()
                pause = POLL_SECONDS
                if self._trouble:
                    logger.info("%s: followed again", self._source.url)
                self._trouble = False
            except Exception as error:
                self._report(error)
                pause = min(pause * 2, LONGEST_PAUSE)
            self._watch(time.monotonic() + pause)

    def _report(self, error: Exception) -> None:
        """Say it once, not with every try."""
        if self._trouble:
            return
        self._trouble = True
        text = "%s; what is served goes on being served"
        if isinstance(error, (BlobError, GenerationError)):
            logger.error(text, error)
        else:
            logger.error(text, f"{type(error).__name__}: {error}", exc_info=error)

    # -- from storage to the folder

    def _look(self) -> None:
        """Read what has changed in storage; raises BlobError, GenerationError."""
        data = self._changed(KEYS)
        if data and data.split():
            write_keys(self._folder / KEYS, data.split())
        data = self._changed(GENERATION)
        if data is not None:
            mend = "remove the blob, the next deployment writes it anew"
            place = f"{self._source.url}/{GENERATION}"
            self._wanted = (
                Generation.from_json(data, place, mend) if data else Generation()
            )  # fmt: skip
            self._told = None
        if self._wanted is not None and self._told is None:
            self._tell(self._wanted)
        self._acknowledge()

    def _changed(self, name: str) -> bytes | None:
        """What a blob holds now, if it is another one; empty if there is none."""
        try:
            found = self._source.read(name, self._marks[name])
        except AbsentError:
            first = self._marks[name] is None
            if not first:  # who removes it by accident ends nothing
                logger.error("%s/%s: gone; what it said holds", self._source.url, name)
                self._marks[name] = None
                return None
            return b"" if self._wanted is None else None
        if found is None:
            return None
        self._marks[name] = found.etag
        return found.data

    def _tell(self, wanted: Generation) -> None:
        """Fetch what is new, then tell the workers; raises BlobError."""
        entries: dict[str, Entry] = {}
        errors: dict[str, str] = {}
        for name, entry in wanted.deployments.items():
            try:
                entries[name] = self._fetched(entry)
            except (AbsentError, ArchiveError, IntegrityError) as error:
                errors[name] = f"{IntegrityError.__name__}: {error}"
                logger.error("deployment %s is refused: %s", name, error)
        self._errors, self._seen = errors, set()
        self._file.write(replace(wanted, deployments=entries))
        self._told = wanted.number

    def _fetched(self, entry: Entry) -> Entry:
        """An entry whose files lie in this folder and are what its digest says."""
        folder = self._bundles / entry.digest
        if entry.digest not in self._checked:
            try:
                check(find_bundle(folder), entry.digest)
            except (IntegrityError, StartError):
                remove_tree(folder)
                self._fetch(entry, folder)
            self._checked.add(entry.digest)
        signed = entry.signed
        if signed is not None:
            path = self._bundles / Path(signed.signature).name
            if not path.is_file():
                self._download(signed.signature, path)
            signed = Signed(str(path), signed.public_key)
        return replace(entry, bundle=str(find_bundle(folder)), signed=signed)

    def _fetch(self, entry: Entry, folder: Path) -> None:
        bounds = Bounds()
        scratch = self._bundles / f".{secrets.token_hex(6)}"
        (scratch / "files").mkdir(parents=True)
        try:
            self._source.download(entry.bundle, scratch / "archive", bounds.archive)
            unpack(scratch / "archive", scratch / "files", bounds)
            check(find_bundle(scratch / "files"), entry.digest)
            (scratch / "files").rename(folder)
        except (ArchiveError, IntegrityError, StartError) as error:
            text = str(error).replace(f"{scratch / 'files'}/", "")
            raise IntegrityError(f"{entry.bundle}: {text}") from None
        finally:
            remove_tree(scratch)

    def _download(self, blob: str, path: Path) -> None:
        scratch = path.with_name(f".{secrets.token_hex(6)}")
        try:
            self._source.download(blob, scratch, 1 << 20)
            write_atomic(path, scratch.read_bytes())
        finally:
            scratch.unlink(missing_ok=True)

    # -- from the workers to storage

    def _watch(self, until: float) -> None:
        """Say what the workers have made of it, as soon as they say so themselves."""
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
            if self._trouble:
                continue
            try:
                self._acknowledge()
            except Exception as error:
                self._report(error)

    def _acknowledge(self) -> None:
        """Write the acknowledgement, if it is another one; raises BlobError."""
        acks = [a for a in read_acks(self._folder) if processes.is_alive(a.pid, a.created)]
        alive = {ack.pid for ack in acks}
        self._seen |= alive
        if self._told is None:
            return
        if len(self._seen - alive) >= MAXIMUM_CRASHES:
            self._blame()
            return
        if not acks or any(ack.generation != self._told for ack in acks):
            return
        errors = {n: text for ack in acks for n, text in ack.errors.items()} | self._errors
        said = InstanceAck(self._instance, self._started, self._told, errors, self._marks[KEYS])
        # Once in a while again, should somebody have removed it.
        if said != self._said or time.monotonic() - self._said_at > SAID_SECONDS:
            self._source.write(f"{ACKS}/{self._instance}.json", json.dumps(asdict(said)))
            self._said, self._said_at = said, time.monotonic()
            self._settle(errors)

    def _blame(self) -> None:
        """Leave out what has killed the workers: what nobody has loaded yet, and has no traffic."""
        self._seen = set()
        generation = self._file.read()
        kept = {
            name: entry
            for name, entry in generation.deployments.items()
            if entry.traffic or entry.digest in self._good
        }
        for name in generation.deployments.keys() - kept.keys():
            self._errors[name] = "the workers that load it crash"
            logger.error("deployment %s is left out: %s", name, self._errors[name])
        if kept != generation.deployments:
            self._file.write(replace(generation, deployments=kept))

    def _settle(self, errors: dict[str, str]) -> None:
        """Remember what is served, and remove what no longer is."""
        served = self._file.read().deployments
        self._good = {entry.digest for name, entry in served.items() if name not in errors}
        wanted = self._wanted or Generation()
        named = {entry.digest for entry in wanted.deployments.values()}
        signed = [e.signed for e in wanted.deployments.values() if e.signed is not None]
        named |= {Path(found.signature).name for found in signed}
        for path in self._bundles.glob("*"):
            if path.name not in named:
                self._checked.discard(path.name)
                remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)


def default_instance() -> str:
    """What a server is called that was given no name: as its machine is."""
    return os.uname().nodename
