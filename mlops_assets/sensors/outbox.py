"""Alerts that wait to be delivered, and what was delivered: a file for each, so none goes twice."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mlops_assets.files import digest_bytes, read_json, to_json, write_atomic
from resources.alerts import Alert, AlertError, Alerts
from resources.delivery import NotTakenError

#: Bounds of one tick; the rest follows in the next. Dagster ends a tick after 60 seconds.
MOST_MESSAGES = 20
MOST_SECONDS = 20.0


@dataclass(frozen=True)
class Delivery:
    """What one round of sending did."""

    #: Titles of the alerts that every destination has now.
    sent: list[str]
    #: How many still wait.
    left: int


class Outbox:
    """A folder: ``waiting/<number>-<digest>.json`` becomes ``sent/<digest>.json``."""

    def __init__(self, folder: Path) -> None:
        self._waiting = folder / "waiting"
        self._sent = folder / "sent"
        self._lock = folder / ".lock"

    def put(self, alert: Alert) -> bool:
        """Take an alert in; False if its key is known, sent or not."""
        digest = digest_bytes(alert.key.encode())[:32]
        with self._locked():
            if (self._sent / f"{digest}.json").exists() or any(
                self._waiting.glob(f"*-{digest}.json")
            ):
                return False
            content = {
                "key": alert.key,
                "title": alert.title,
                "text": alert.text,
                "url": alert.url,
                "delivered": [],
            }
            write_atomic(self._waiting / f"{time.time_ns():020}-{digest}.json", to_json(content))
            return True

    def send(self, alerts: Alerts, log: Callable[[str], object]) -> Delivery:
        """Deliver what waits, oldest first, to the destinations that do not have it yet.

        A destination that fails is left alone for the rest of the round; the others go on.

        Raises:
            AlertError: at the end, with the destinations that failed.
        """
        sent: list[str] = []
        failed: dict[str, NotTakenError] = {}
        broken: set[str] = set()
        deadline = time.monotonic() + MOST_SECONDS
        messages = 0
        with self._locked():
            for path in sorted(self._waiting.glob("*.json")):
                if messages >= MOST_MESSAGES or time.monotonic() >= deadline:
                    break
                if broken.issuperset(alerts.destinations):
                    break
                content = read_json(path)
                before = len(content["delivered"])
                for name, error in self._deliver(alerts, path, content, broken, log).items():
                    failed.setdefault(name, error)
                    if not error.message_refused:
                        broken.add(name)
                messages += len(content["delivered"]) > before
                if set(alerts.destinations) <= set(content["delivered"]):
                    self._sent.mkdir(parents=True, exist_ok=True)
                    path.rename(self._sent / f"{path.stem.partition('-')[2]}.json")
                    sent.append(content["title"])
            left = sum(1 for _ in self._waiting.glob("*.json"))
        if failed:
            raise AlertError(failed)
        return Delivery(sent, left)

    def _deliver(
        self,
        alerts: Alerts,
        path: Path,
        content: dict[str, Any],
        broken: set[str],
        log: Callable[[str], object],
    ) -> dict[str, NotTakenError]:
        alert = Alert(content["key"], content["title"], content["text"], content["url"])

        def delivered(destination: str) -> None:
            content["delivered"].append(destination)
            write_atomic(path, to_json(content))

        try:
            alerts.send(alert, log, {*content["delivered"], *broken}, delivered)
        except AlertError as error:
            return error.failed
        return {}

    def _locked(self) -> FileLock:
        # A person can evaluate the sensor from the page while the daemon does.
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self._lock)
