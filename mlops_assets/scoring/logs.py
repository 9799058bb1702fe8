"""The server's log: one JSON object a line, with the request's id where there is one.

What a request holds is never in it: its columns may be anybody's secret.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import traceback
from typing import Any

from mlops_assets.scoring.errors import ModelError

#: What a record may carry beside its message.
_EXTRAS = (
    "request_id", "method", "path", "status", "milliseconds", "deployment", "version",
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in UTC, level, logger, process, message, extras, and a traceback if there is one."""
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        line |= {name: record.__dict__[name] for name in _EXTRAS if name in record.__dict__}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def without_values(error: BaseException) -> str:
    """An exception as its frames and type: its text may quote the request it came from."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = f": {error}" if isinstance(error, ModelError) else ""
    return f"{frames}{type(error).__name__}{text}"


def log_to_stderr() -> None:
    """Send all records of this process to stderr, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
