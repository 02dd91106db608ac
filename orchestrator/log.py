"""The orchestrator's log: a file in the experiment's folder that tells what happened, whatever the terminal showed."""

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from contract.log_line import LineFormatter, LogFormat

LOG = "orchestrator.log"
"""File name in the experiment's folder; older ones are LOG.1, LOG.2, ..."""

_MAX_BYTES = 20 * 1024 * 1024
_N_OLDER = 5


@contextmanager
def campaign_log(
    folder: Path,
    *,
    level: str = "info",
    log_format: LogFormat = "text",
    secrets: Collection[str] = (),
    max_bytes: int = _MAX_BYTES,
) -> Iterator[Path]:
    """Everything that is logged inside goes to the experiment's log, and to no terminal: bars are shown there.

    Args:
        folder: the experiment's, which exists.
        level: as `logging` names it, any case.
        log_format: see `contract.log_line.LineFormatter`.
        secrets: never written.
        max_bytes: a longer log is put aside as LOG.1; five of these are kept.

    Yields:
        The file.
    """
    path = folder / LOG
    handler = _PrivateFile(path, maxBytes=max_bytes, backupCount=_N_OLDER, encoding="utf-8", delay=True)
    handler.setFormatter(LineFormatter(log_format, secrets))
    root = logging.getLogger()
    handlers_before, level_before = list(root.handlers), root.level
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    try:
        yield path
    finally:
        root.handlers[:] = handlers_before
        root.setLevel(level_before)
        handler.close()


class _PrivateFile(RotatingFileHandler):
    """Its owner's alone. A full disk costs lines, never the campaign: the run table's own errors tell of it."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> Any:
        """See `logging.Handler`: nothing, where the default prints a traceback into the progress bars."""
