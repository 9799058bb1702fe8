"""``python -m tests.azure``: Azure on this machine, until it is ended."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import closing

from tests.azure.server import REGISTRY, AzureServer


def main() -> int:
    """Print what is to be exported, then serve; at the end, print what was seen."""
    # A demo that is ended by its terminal or its parent cleans up all the same.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # A shell that starts it in the background lets it ignore this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    proxied = {name for name in os.environ if name.lower() in ("http_proxy", "https_proxy")}
    if proxied:
        print(f"# these are replaced: {', '.join(sorted(proxied))}", file=sys.stderr)
    with closing(AzureServer()) as server:
        for name, value in server.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# registry {REGISTRY}; faults: POST {server.proxy.url}/faults")
        sys.stdout.flush()
        try:
            signal.pause()
        except (KeyboardInterrupt, SystemExit):
            found = server.findings()
            seen = f"{len(server.record.exchanges())} exchanges"
            print(f"# {found.summary() if found else seen}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
