"""The testbed's log: lines for people, or JSON for programs, each with the attempt that it is about."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]

_attempt: ContextVar[tuple[str, str] | None] = ContextVar("attempt", default=None)


@contextmanager
def about_attempt(attempt_id: str, run_id: str) -> Iterator[None]:
    """Lines logged inside, by this thread, are about an attempt."""
    token = _attempt.set((attempt_id, run_id))
    try:
        yield
    finally:
        _attempt.reset(token)


def configure_log(level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Set up the log of this process.

    Args:
        level: as `logging` names it, any case.
        log_format: `json` writes an object per line with time, level, logger, message, attempt_id and run_id, and the
            traceback where there is one.
        stream: the error stream by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_add_attempt)
    if log_format == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s %(attempt_id)s %(run_id)s",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s%(about)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _add_attempt(record: logging.LogRecord) -> bool:
    attempt_id, run_id = _attempt.get() or (None, None)
    record.attempt_id, record.run_id = attempt_id, run_id
    record.about = "" if attempt_id is None else f" [{run_id} {attempt_id}]"
    return True
