"""Who drives an experiment and in what condition: a fact in the run table, so that `status` can tell why nothing moves.

One fact per process, and of a pool one per testbed, replaced when the condition changes, and never more often than
every few seconds: a run that goes well costs no write.
"""

import hashlib
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.store.base import RunReader

_PREFIX = "driver/"


class Condition(StrEnum):
    """What a driver is at."""

    WORKING = "working"
    """Nothing holds it up; the attempts tell the rest."""
    COOLING = "cooling"
    """It waits for the floor of a cooldown."""
    GATE = "gate"
    """It waits for the machine to be cool."""
    UNREACHABLE = "unreachable"
    """The testbed does not answer."""
    BUSY = "busy"
    """The testbed runs another's trial."""
    WAITING = "waiting"
    """It waits for something else; the message tells."""
    ENDED = "ended"
    """It has ended in order; the message tells why."""


class Driver(BaseModel):
    """A process that drives an experiment, as it last wrote itself down.

    Attributes:
        owner: see `orchestrator.store.owner`.
        testbed: name of the machine.
        url: where it is asked.
        command: that was started, for whoever has to start it again.
        version: of joulebed.
        started_at: of the process's campaign.
        condition: see `Condition`.
        since: when the condition began.
        seen_at: when this was written.
        message: the condition in words, where there is more to say.
        ending: of a campaign that ended, see `orchestrator.campaign.Ending`; `refused` also when it could not begin.
        attempt_id: that is driven; None: none.
        run_id: its run.
        last_answer_at: when the testbed last answered before it became unreachable.
        until: when a wait gives up, or a cooldown's floor ends.
        temp_c: hottest sensor, last read.
        idle_temp_c: of the campaign.
        delta_c: how far above it a trial may start.
        clock_offset_s: the testbed's clock less this machine's, when the campaign began; None: not told.
        testbed_disk_free_bytes: where the testbed keeps attempts, when it was last asked; None: not told.
        testbed_disk_total_bytes: of the same.
        is_member: whether the testbed is one of a pool that the process drives.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str
    testbed: str
    url: str = ""
    command: str = ""
    version: str = ""
    started_at: datetime
    condition: Condition
    since: datetime
    seen_at: datetime
    message: str = ""
    ending: str = ""
    attempt_id: str | None = None
    run_id: str | None = None
    last_answer_at: datetime | None = None
    until: datetime | None = None
    temp_c: float | None = None
    idle_temp_c: float | None = None
    delta_c: float | None = None
    clock_offset_s: float | None = None
    testbed_disk_free_bytes: int | None = None
    testbed_disk_total_bytes: int | None = None
    is_member: bool = False

    @property
    def key(self) -> str:
        """Of its fact."""
        return driver_key(self.owner, self.testbed if self.is_member else "")


def driver_key(owner: str, member: str = "") -> str:
    """Key of the fact about a driver; the table's keys have 128 characters at most.

    Args:
        owner: the process.
        member: the testbed, where the process drives a pool of them.
    """
    if not member:
        return (_PREFIX + owner)[:128]
    return f"{_PREFIX}{owner}"[:111] + "/" + hashlib.sha256(member.encode()).hexdigest()[:16]


def drivers(reader: RunReader) -> list[Driver]:
    """All that are written down, the latest first. One of an unknown form, from another version, is left out."""
    found = []
    for value in reader.facts(_PREFIX).values():
        try:
            found.append(Driver.model_validate(value))
        except ValidationError:
            continue
    return sorted(found, key=lambda driver: driver.seen_at, reverse=True)
