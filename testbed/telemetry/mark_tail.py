"""When a running attempt came into which state, from what its process writes to progress.jsonl."""

from pathlib import Path

from pydantic import ValidationError

from contract.telemetry import TelemetryMark
from testbed.attempt_folder import Progress

_CHUNK_BYTES = 2**20


class MarkTail:
    """Reads progress.jsonl as it grows. It has a line per finished request: only those of a new state are parsed.

    Args:
        path: may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._part = b""
        self._beginning = b""
        self.marks: list[TelemetryMark] = []

    def read(self) -> None:
        """Take what is new."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                new = file.read(_CHUNK_BYTES)
        except OSError:
            return
        self._position += len(new)
        *lines, self._part = (self._part + new).split(b"\n")
        for line in lines:
            if self._beginning and line.startswith(self._beginning):
                continue
            try:
                progress = Progress.model_validate_json(line)
            except ValidationError:
                continue
            self._beginning = b'{"state":"%s",' % progress.state.value.encode()
            if not self.marks or self.marks[-1].state is not progress.state:
                self.marks.append(TelemetryMark(state=progress.state, at_s=progress.at_s))
