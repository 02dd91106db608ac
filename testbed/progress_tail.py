"""Reads what a child writes to progress.jsonl while it writes it."""

import logging
from pathlib import Path

from pydantic import ValidationError

from testbed.attempt_folder import Progress

_log = logging.getLogger(__name__)


class ProgressTail:
    """Reads the complete lines of progress.jsonl, each byte once.

    Args:
        path: may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._part = b""

    def new(self) -> list[Progress]:
        """The lines since the last call, oldest first, but for those that cannot be read."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(new)
        *lines, self._part = (self._part + new).split(b"\n")
        found = []
        for line in lines:
            try:
                found.append(Progress.model_validate_json(line))
            except ValidationError:
                _log.warning("%s has a line that is no progress: %r", self._path, line[:200])
        return found
