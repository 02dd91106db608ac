"""What became of each attempt, one line each in a file beside the run table.

Written after the run table has it, so it never knows more: where it does, the table is older than it was, since
somebody deleted its -wal file or put an old copy back. It also holds the ends that leave no result on disk.
"""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from contract.attempt_state import AttemptState, RunState
from contract.errors import ErrorBody
from contract.trial_result import SuspectReason
from orchestrator.campaign_view import AttemptEnd
from orchestrator.cooldown import CooldownOutcome

_log = logging.getLogger(__name__)

JOURNAL = "attempts.jsonl"
"""File name in the experiment's folder."""


class EndedAttempt(BaseModel):
    """One line: an attempt's end, as the run table has it, without the result, which is in the attempt's folder."""

    model_config = ConfigDict(frozen=True)

    attempt_id: str
    run_id: str
    number: int
    state: AttemptState
    accepted: bool
    testbed: str
    finished_at: datetime
    error: ErrorBody | None = None
    reasons: tuple[SuspectReason, ...] = ()
    cooldown: CooldownOutcome | None = None


class AttemptJournal:
    """The file of ended attempts.

    Args:
        folder: the experiment's, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL

    def note(self, *ended: EndedAttempt) -> None:
        """Append. Never raises: the run table has it already, and is what counts.

        Not synced: a power cut may cost the last lines, which the run table then has.
        """
        data = "".join(each.model_dump_json() + "\n" for each in ended).encode()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size_bytes = os.fstat(descriptor).st_size
                if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
                    data = b"\n" + data  # behind half a line, which a full disk or a power cut left
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def read(self) -> dict[str, EndedAttempt]:
        """Attempt id -> its end; of several lines the last. Lines that cannot be read are left out."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return {}
        ended: dict[str, EndedAttempt] = {}
        for line in lines:
            try:
                each = EndedAttempt.model_validate_json(line)
            except ValidationError:
                continue
            ended[each.attempt_id] = each
        return ended


def ended_attempt(end: AttemptEnd, testbed: str, cooldown: CooldownOutcome | None) -> EndedAttempt:
    """The line of an attempt that has just ended.

    Args:
        end: as the run table took it.
        testbed: name of the machine.
        cooldown: the pause before it, where it is known.
    """
    result = end.result
    return EndedAttempt(
        attempt_id=end.claim.attempt_id,
        run_id=end.claim.run_id,
        number=end.claim.number,
        state=end.state,
        accepted=end.state is AttemptState.SUCCEEDED and end.run_state is RunState.DONE,
        testbed=testbed,
        finished_at=datetime.now(UTC),
        error=end.error or (result.error if result else None),
        reasons=end.reasons or (tuple(result.reasons) if result else ()),
        cooldown=cooldown,
    )
