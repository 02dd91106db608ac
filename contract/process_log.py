"""The log of a process that serves: a testbed, or the dashboard. Lines for people, or JSON for programs."""

import logging
import sys
from collections.abc import Collection
from typing import TextIO

from contract.log_line import LineFormatter, LogFormat


def configure_log(
    level: str, log_format: LogFormat, stream: TextIO | None = None, *, secrets: Collection[str] = ()
) -> None:
    """Set up the log of this process.

    Args:
        level: as `logging` names it, any case.
        log_format: see `contract.log_line.LineFormatter`.
        stream: the error stream by default.
        secrets: never written. More may be added to it later.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(log_format, secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
