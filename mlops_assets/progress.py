"""What `mlops demo` prints while a run goes on: a line per step and per check, no more."""

import logging
from typing import Any

import dagster as dg


class _Lines(logging.Handler):
    """Prints the events that people wait for."""

    def emit(self, record: logging.LogRecord) -> None:
        line = _line(record)
        if line:
            print(line, flush=True)


def _line(record: logging.LogRecord) -> str | None:
    meta = getattr(record, "dagster_meta", None) or {}
    event = meta.get("dagster_event")
    asset = (meta.get("step_key") or "").replace("__", "/")
    if event is None:
        text = meta.get("orig_message") or record.getMessage()
        # Dagster's own: the process that was started, and steps that are skipped event by event.
        own = text.startswith(("[pipes]", "Dependencies for step"))
        return f"    {asset}: {text}" if record.levelno >= logging.INFO and not own else None
    kind = event.event_type_value
    if kind == "STEP_START":
        return f"  … {asset}"
    if kind == "STEP_SUCCESS":
        return f"  ✓ {asset}  {event.event_specific_data.duration_ms / 1000:.1f} s"
    if kind == "STEP_FAILURE":
        failure = event.event_specific_data.user_failure_data
        error = event.event_specific_data.error
        described = failure.description if failure else None
        return f"  ✗ {asset}\n{described or _raised(error)}"
    if kind == "ASSET_CHECK_EVALUATION":
        check = event.event_specific_data
        if not check.passed:
            return f"  ! {check.asset_key.to_user_string()} {check.check_name}: {check.description}"
    return None


def _raised(error: Any) -> str:
    """The class and message of what was raised, and of what that came from."""
    # Dagster wraps what a step raised in an error of its own, which only says where it was raised.
    found = error.cause or error if error else None
    said: list[str] = []
    while found:
        said.append(found.message.strip())
        found = found.cause
    return "\ncaused by ".join(said)


def _logger(_context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("mlops.progress", logging.DEBUG)  # noqa: LOG001  (one per run)
    logger.addHandler(_Lines())
    return logger


#: A Dagster logger that prints a line per step and per failed check.
progress = dg.LoggerDefinition(_logger)
