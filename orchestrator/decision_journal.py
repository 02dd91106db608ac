"""What people decided about a campaign, one line each in a file beside the run table.

Written after the run table has it. Where the table is lost, `orchestrator repair` takes pause and exclusions from here:
no measurement could tell them.
"""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

_log = logging.getLogger(__name__)

DECISIONS = "decisions.jsonl"
"""File name in the experiment's folder."""


class Decided(BaseModel):
    """One line: a fact that a person set, or removed.

    Attributes:
        at: when; aware UTC.
        key: of the fact.
        value: what it is since then; None: it is removed.
    """

    model_config = ConfigDict(frozen=True)

    at: datetime
    key: str
    value: JsonValue = None


class DecisionJournal:
    """The file of decisions.

    Args:
        folder: the experiment's, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / DECISIONS

    def note(self, decided: Decided) -> None:
        """Append, durably. Never raises: the run table has it already, and is what counts."""
        data = decided.model_dump_json().encode() + b"\n"
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size_bytes = os.fstat(descriptor).st_size
                if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
                    data = b"\n" + data  # behind half a line, which a full disk or a power cut left
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def read(self) -> dict[str, Decided]:
        """Key -> the last decision about it. Lines that cannot be read are left out."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return {}
        found: dict[str, Decided] = {}
        for line in lines:
            try:
                decided = Decided.model_validate_json(line)
            except ValidationError:
                continue
            found[decided.key] = decided
        return found

    def added_to(self, facts: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Facts of a run table, with the decisions that it lacks: of two about one key, the later one counts.

        Args:
            facts: what could still be read.
        """
        merged = dict(facts)
        for key, decided in self.read().items():
            if _at(merged.get(key)) > decided.at:
                continue
            if decided.value is None:
                merged.pop(key, None)
            else:
                merged[key] = decided.value
        return merged


def _at(value: JsonValue) -> datetime:
    """When a fact of ours was decided; long ago where it does not tell."""
    long_ago = datetime.fromtimestamp(0, UTC)
    at = value.get("at") if isinstance(value, dict) else None
    try:
        moment = datetime.fromisoformat(at) if isinstance(at, str) else long_ago
    except ValueError:
        return long_ago
    return moment if moment.tzinfo is not None else long_ago
