"""What a campaign whose database server is away says meanwhile: a file in the experiment's folder.

The run table is where all else is written down, and it is what cannot be reached.
"""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.durable_file import write_durably
from orchestrator.processes import ProcessState, host_of, pid_of, process_state
from orchestrator.store.outage import Stage
from orchestrator.store.owner import this_owner
from orchestrator.time_words import told_since, told_time

_log = logging.getLogger(__name__)

NOTE = "outage.json"
"""File name in the experiment's folder; it is there while the server is away, and after a campaign gave up on it."""


class OutageNote(BaseModel):
    """An outage of the run table's server, as one process met it.

    Attributes:
        owner: the process.
        since: when it began; aware UTC.
        until: when the process gives up, or gave up.
        is_over: whether it gave up.
        message: why, in words.
    """

    model_config = ConfigDict(frozen=True)

    owner: str
    since: AwareDatetime
    until: AwareDatetime
    is_over: bool
    message: str

    def words(self, now: datetime) -> str:
        """Who waits since when, and what follows from it.

        Args:
            now: aware UTC.
        """
        who = f"process {pid_of(self.owner)} on {host_of(self.owner)}"
        since = told_since(self.since, now)
        if self.is_over:
            return f"The orchestrator, {who}, waited for it {since}, and gave up at {told_time(self.until, now)}."
        if process_state(self.owner) is ProcessState.GONE:
            return f"The orchestrator, {who}, waited for it {since}, and is gone."
        return (
            f"The orchestrator, {who}, waits for it {since}, until {told_time(self.until, now)} at most, and goes on "
            "by itself when it is back. Trials that run go on meanwhile."
        )


class OutageNotes:
    """Writes and removes the file.

    Args:
        folder: the experiment's.
        limit_s: how long the campaign waits.
        owner: this process.
    """

    def __init__(self, folder: Path, limit_s: float, *, owner: str | None = None) -> None:
        self._path = folder / NOTE
        self._limit_s = limit_s
        self._owner = owner or this_owner()
        self._since: datetime | None = None

    def note(self, stage: Stage, message: str) -> None:
        """See `ServerWait`. Never raises: the campaign's log has it too."""
        now = datetime.now(UTC)
        try:
            if stage == "back":
                self._since = None
                self._path.unlink(missing_ok=True)
                return
            self._since = self._since or now
            is_over = stage == "over"
            until = now if is_over else self._since + timedelta(seconds=self._limit_s)
            told = OutageNote(owner=self._owner, since=self._since, until=until, is_over=is_over, message=message)
            write_durably(self._path, told.model_dump_json(indent=1).encode())
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error)

    def clear(self) -> None:
        """The run table could be opened: what an earlier process noted is past."""
        self.note("back", "")


def outage_of(folder: Path) -> OutageNote | None:
    """What a process noted last; None: nothing, or nothing that can be read."""
    try:
        return OutageNote.model_validate_json((folder / NOTE).read_bytes())
    except (OSError, ValidationError):
        return None
