"""``python -m tests.azure.leash COMMAND...`` runs a command that ends with its starter.

The starter holds the other end of standard input and never writes. However it ends, the command
and all that the command has started in its own process group end too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 5.0


class Leashed:
    """A running command; all of it ends with this process at the latest."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path | None
    ) -> None:
        """Start it; its output goes to ``log``."""
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-S", str(Path(__file__)), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )
        self.log = log

    @property
    def ended(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def end(self) -> None:
        """End it and wait until it has."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    """Run the command; returns its exit code."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    # Only the starter's end is asked for here: a signal to the group must not end the leash first.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_starter, args=(child.pid,), daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):  # what it has left in the background
        os.killpg(child.pid, signal.SIGKILL)
    return code


def _end_with_starter(group: int) -> None:
    os.read(0, 1)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        time.sleep(GRACE_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
