"""The wanted state of an endpoint, and what each worker says it has made of it.

``generation.json`` is the truth: who deploys writes it atomically, every worker follows it.
``acks/<pid>.json`` says which generation a worker serves.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlops_assets.files import to_json, write_atomic
from mlops_assets.scoring.signature import Signed

GENERATION, ACKS = "generation.json", "acks"
#: What a worker acknowledges before it has read its first generation.
NOTHING_YET = -1


class GenerationError(Exception):
    """``generation.json`` is not what a rollout writes; names the file and the mend."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One deployment, as wanted."""

    bundle: str
    digest: str
    version: int
    #: Percent of the requests that name no deployment.
    traffic: int = 0
    #: Percent of the requests that are copied to it after they are answered.
    mirror: int = 0
    #: By whom it must be signed; None where the environment does not ask.
    signed: Signed | None = None
    #: Edges by which its predictions are counted beside its own: those of the version that serves
    #: in another server; None where there is no such server.
    compared: tuple[float, ...] | None = None

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Entry:
        """Read it from JSON; raises TypeError."""
        signed, compared = value.pop("signed", None), value.pop("compared", None)
        return cls(
            **value,
            signed=None if signed is None else Signed(**signed),
            compared=None if compared is None else tuple(compared),
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """All deployments of an endpoint; ``number`` grows with every change."""

    number: int = 0
    deployments: dict[str, Entry] = field(default_factory=dict)
    #: Requests with the same value of this header go the same way while the traffic is shared;
    #: in lower case.
    sticky_header: str | None = None

    def next(self, deployments: dict[str, Entry], sticky_header: str | None = None) -> Generation:
        """The generation after this one."""
        return Generation(self.number + 1, deployments, sticky_header)

    @classmethod
    def from_json(cls, data: bytes, place: str, mend: str) -> Generation:
        """Read it; raises GenerationError, which names the place and the mend."""
        try:
            value = json.loads(data)
            entries = {name: Entry.from_dict(entry) for name, entry in value["deployments"].items()}
            return cls(int(value["number"]), entries, value.get("sticky_header"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            kind = type(error).__name__
            raise GenerationError(f"{place}: not a generation ({kind}: {error}); {mend}") from None

    def to_json(self) -> str:
        """As text; the inverse of ``from_json``."""
        return to_json(asdict(self))


class GenerationFile:
    """``generation.json`` of one endpoint; absent means that nothing was deployed yet."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / GENERATION
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        """Whether the file is another than at the last ``read``: one system call."""
        return self._stamp() != self._seen

    def read(self) -> Generation:
        """The wanted state; raises GenerationError."""
        # The stamp is taken first: a file that is replaced in between is read once more.
        self._seen = self._stamp()
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return Generation()
        return Generation.from_json(data, str(self.path), _MEND)

    def write(self, generation: Generation) -> None:
        """Make ``generation`` the wanted state."""
        write_atomic(self.path, generation.to_json())

    def _stamp(self) -> tuple[int, ...]:
        try:
            stat = os.stat(self.path)  # noqa: PTH116  (twenty times a second)
        except FileNotFoundError:
            return ()
        return (stat.st_mtime_ns, stat.st_ino, stat.st_size)


_MEND = "stop the endpoint and remove this file, the next deployment writes it anew"


@dataclass(frozen=True, slots=True)
class Ack:
    """What one worker serves."""

    pid: int
    #: When the process was started, by ``processes.created``: a pid alone may be reused.
    created: float
    generation: int
    #: Deployments of that generation that could not be loaded, and why.
    errors: dict[str, str] = field(default_factory=dict)


def write_ack(folder: Path, ack: Ack) -> None:
    """Say what this worker serves."""
    write_atomic(ack_path(folder, ack.pid), json.dumps(asdict(ack)))


def ack_path(folder: Path, pid: int) -> Path:
    """Where a worker says what it serves."""
    return folder / ACKS / f"{pid}.json"


def read_acks(folder: Path) -> list[Ack]:
    """What every worker said last, also of those that are gone."""
    acks: list[Ack] = []
    for path in sorted((folder / ACKS).glob("*.json")):
        try:
            value: dict[str, Any] = json.loads(path.read_bytes())
            acks.append(Ack(**value))
        except (FileNotFoundError, ValueError, TypeError):
            continue  # its worker has just ended
    return acks
