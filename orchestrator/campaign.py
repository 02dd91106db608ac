"""What a campaign may cost in patience, and how it ended."""

from dataclasses import dataclass, field
from enum import StrEnum

from contract.attempt_state import AttemptState, RunState
from orchestrator.campaign_view import AttemptEnd
from orchestrator.config import OnSuspect


class Ending(StrEnum):
    """Why a campaign's loop ended."""

    FINISHED = "finished"
    """There is nothing left to do."""
    STOPPED = "stopped"
    """A person asked for it."""
    UNREACHABLE = "unreachable"
    """The testbed stayed away, or stayed busy with another's trial, for too long."""
    REFUSED = "refused"
    """The testbed does not let us in, or speaks another version."""
    HOPELESS = "hopeless"
    """The first runs all failed alike."""
    BROKEN = "broken"
    """This machine cannot go on: a full disk, for instance."""


@dataclass(frozen=True)
class CampaignOutcome:
    """How a campaign ended. Whatever the ending, the same command continues it.

    Attributes:
        ending: why the loop ended.
        message: in words, with the next step; empty when it finished.
        counts: runs per state.
    """

    ending: Ending
    message: str
    counts: dict[RunState, int]


@dataclass(frozen=True)
class ControllerSettings:
    """Patience of a campaign.

    Attributes:
        poll_wait_s: how long one long poll is held.
        unreachable_after_s: the campaign stops when the testbed stays away for this long.
        busy_after_s: or when it runs somebody else's trials for this long.
        max_equal_failures: it stops when this many different runs failed one after the other with the same error
            code and no run has a result yet: what is wrong with all runs is better mended than tried 900 times.
            0 never stops.
        export_every_s: the least time between two exports of the run table during the campaign.
        on_suspect: what becomes of doubted results.
    """

    poll_wait_s: float = 10.0
    unreachable_after_s: float = 600.0
    busy_after_s: float = 4 * 3600.0
    max_equal_failures: int = 3
    export_every_s: float = 60.0
    on_suspect: OnSuspect = OnSuspect.KEEP


@dataclass
class FailureStreak:
    """Failures of different runs with one error code, while no run has a result.

    Attributes:
        code: of the last failure.
        message: of the last failure.
        runs: that failed so, one after the other.
        is_over: whether some run has a result: then failures are the runs' own affair.
    """

    code: str = ""
    message: str = ""
    runs: set[str] = field(default_factory=set)
    is_over: bool = False

    def note(self, end: AttemptEnd) -> None:
        """Take an attempt's end into account."""
        is_refused = end.state is AttemptState.SUSPECT and end.run_state is RunState.FAILED
        if end.state.has_result and not is_refused:
            self.is_over = True
        elif end.error is not None and (is_refused or end.state in (AttemptState.FAILED, AttemptState.TIMED_OUT)):
            if end.error.code != self.code:
                self.code, self.runs = end.error.code, set()
            self.message = end.error.message
            self.runs.add(end.claim.run_id)
