"""The testbed's log: lines for people, or JSON for programs, each with the attempt that it is about."""

import logging
import sys
from collections.abc import Collection
from typing import TextIO

from contract.log_line import LineFormatter, LogFormat, about_attempt

__all__ = ["about_attempt", "configure_log"]


def configure_log(
    level: str, log_format: LogFormat, stream: TextIO | None = None, *, secrets: Collection[str] = ()
) -> None:
    """Set up the log of this process.

    Args:
        level: as `logging` names it, any case.
        log_format: see `contract.log_line.LineFormatter`.
        stream: the error stream by default.
        secrets: never written.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(log_format, secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
