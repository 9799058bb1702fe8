"""``python -m mlops_assets.scoring.health`` asks the server of this container whether it is ready.

For images that have no other HTTP client. It asks where ``MLOPS_HOST`` and ``MLOPS_PORT`` say that
the server listens, prints what is wrong, and exits with 0 if nothing is.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping

#: Seconds for the answer.
TIMEOUT = 5.0


def problem(variables: Mapping[str, str]) -> str | None:
    """Why the server is not ready; None if it is."""
    host = variables.get("MLOPS_HOST", "")
    # An address that stands for all of them is no place to ask.
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104
    port = int(variables.get("MLOPS_PORT") or 5001)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/v2/health/ready")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == 200 else f"{host}:{port} answers {status}"


if __name__ == "__main__":
    sys.exit(problem(os.environ))
